"""Pictures of the inside of a network."""

from typing import Any

import numpy as np

from firstlight.plotting.activations import Series, plot_depth, plot_feature_maps, plot_filters, plot_gradients, tiled
from firstlight.plotting.style import PALETTE


def layer(kind: str = "convolution", **figures: Any) -> dict[str, Any]:
    plain = {"mean": 0.4, "std": 0.6, "zeros": 0.5, "num_dead": 3, "num_units": 12, "output_gradient": 0.01, "relative_gradient": 0.1}
    return {"kind": kind, **plain, **figures}


def series(label: str, color: int, *layers: dict[str, Any], dashed: bool = False) -> Series:
    shares = [0.0] * 56
    shares[40] = 1.0
    return Series(label, color, dashed, layers, [shares] * len(layers))


LAST = layer("linear", mean=None, std=None, zeros=None, num_dead=None)


def test_figures_stand_over_the_depth_and_absent_ones_are_left_out() -> None:
    """C9: labelled axes with units; dashed at the start."""
    figure = plot_depth([series("new", 0, layer(), LAST, dashed=True), series("old", 1, layer(zeros=0.9), LAST)], title="Found")
    zeros, dead, weights = figure.axes[2], figure.axes[3], figure.axes[5]
    assert [line.get_ydata()[0] for line in zeros.lines] == [50, 90] and np.isnan(zeros.lines[0].get_ydata()[1])
    assert dead.lines[0].get_ydata()[0] == 25 and list(weights.lines[0].get_ydata()) == [0.1, 0.1]
    assert [line.get_linestyle() for line in zeros.lines] == ["--", "-"] and [line.get_color() for line in zeros.lines] == list(PALETTE[:2])
    assert [text.get_text() for text in zeros.get_xticklabels()] == ["conv 1", "linear 2"]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes) and figure.get_suptitle() == "Found"


def test_a_network_without_activation_functions_says_so() -> None:
    figure = plot_depth([series("new", 0, LAST)], title="Linear")
    figure.canvas.draw()
    assert [axes.texts[0].get_text() for axes in figure.axes[:4]] == ["no activation functions"] * 4
    assert not figure.axes[4].texts


def test_gradients_of_zero_are_left_out_of_a_logarithmic_axis() -> None:
    figure = plot_depth([series("zeros", 0, layer(output_gradient=0.0), layer())], title="Zeros")
    figure.canvas.draw()
    assert np.isnan(figure.axes[4].lines[0].get_ydata()[0]) and figure.axes[4].lines[0].get_ydata()[1] == 0.01


def test_networks_of_other_kinds_count_their_layers() -> None:
    figure = plot_depth([series("mlp", 0, layer("linear"), LAST), series("cnn", 1, layer(), LAST)], title="Two")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "2"]


def test_a_histogram_a_layer_and_a_panel_a_moment() -> None:
    figure = plot_gradients([series(name, 0, layer(), LAST) for name in ("a", "b", "c")], title="Sizes")
    figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in shown] == ["a", "b", "c"] and all(len(axes.patches) == 2 for axes in shown)
    low, high = shown[0].get_xlim()
    assert low < -2 < high  # bin 40 of 56 between 1e-12 and 1e2 is that of 1e-2
    assert shown[1].get_xlabel() == shown[2].get_xlabel() == "size of a weight's gradient\n(power of ten)"


def test_filters_are_tiled_in_rows_with_a_gap() -> None:
    values = np.stack([np.full((3, 3), value) for value in (-1.0, 0.0, 0.5)])
    sheet = tiled(values, 2)
    assert sheet.shape == (7, 7) and np.isnan(sheet[3]).all() and np.isnan(sheet[:, 3]).all()
    assert (sheet[0, 0], sheet[0, 4], sheet[4, 0]) == (-1, 0, 0.5) and np.isnan(sheet[4, 4])
    colored = tiled(np.repeat(values[..., None], 3, axis=3), 2)
    assert colored.shape == (7, 7, 3) and (colored[0, 0, 0], colored[0, 4, 0], colored[3, 3, 2]) == (0, 0.5, 1)


def test_both_moments_of_the_filters_are_shown_with_their_range() -> None:
    moments = {"at its start": np.full((9, 3, 3), 0.25), "trained": np.full((9, 3, 3), -2.0)}
    figure = plot_filters(moments, title="Moved")
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        "at its start (weights from -0.25 to 0.25)",
        "trained (weights from -2 to 2)",
    ]
    assert figure.axes[2].get_ylabel() == "weight, over the largest"


def test_feature_maps_of_a_deep_network_are_those_of_layers_spread_over_it() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    figure = plot_feature_maps(np.zeros((8, 8), np.uint8), [(f"conv{n}", 16, maps) for n in range(20)], title="Maps")
    figure.canvas.draw()
    heads = [axes.texts[0].get_text().splitlines()[0] for axes in figure.axes if axes.texts]
    assert heads[:2] == ["the image", "conv0"] and heads[-1] == "conv19" and len(heads) == 9
