"""The response to one parameter and the map of two: what stands in them, read back from the figures."""

import math

import numpy as np

from firstlight.plotting.studies import plot_map, plot_response
from tests.plotting.conftest import texts


def test_response_has_bars_seeds_and_the_right_scale() -> None:
    """C4: error bars at the ends of the interval, every seed a cross, a logarithmic axis."""
    nothing = (math.nan, math.nan)
    figure = plot_response(
        [0.01, 0.1, 1.0],
        [[0.5, 0.6], [0.8, 0.9], []],
        [(0.4, 0.7), (0.7, 1.0), nothing],
        parameter="optim.lr",
        objective="accuracy",
        log=True,
        title="study",
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert sum(line.get_marker() == "x" and len(line.get_xdata()) == 4 for line in axes.lines) == 1
    bars = [segment for collection in axes.collections for segment in collection.get_segments()]
    assert sorted((round(bar[0][1], 6), round(bar[1][1], 6)) for bar in bars if len(bar) == 2 and np.isfinite(bar).all()) == [
        (0.4, 0.7),
        (0.7, 1.0),
    ]
    assert "dotted where every seed diverged (1)" in " ".join(texts(figure)).replace("\n", " ")


def test_response_of_one_seed_has_no_bars() -> None:
    nothing = (math.nan, math.nan)
    figure = plot_response(["a", "b"], [[0.5], [0.6]], [nothing] * 2, parameter="p", objective="o", log=False, title="t")
    assert not [segment for collection in figure.axes[0].collections for segment in collection.get_segments()]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b"]


def test_map_writes_each_cell_and_its_margins() -> None:
    """C5, C7: the interaction with the best of each row and column at the margins."""
    means = [[0.1, 0.2], [0.4, math.nan]]
    figure = plot_map([1, 2], [0.1, 0.2], means, names=("rows", "columns"), objective="accuracy", title="t", higher_is_better=True)
    written = texts(figure)
    assert [text for text in ("0.100", "0.200", "0.400", "div.") if text not in written] == []
    top, _, _, right, *_ = figure.axes
    assert list(top.lines[0].get_ydata()) == [0.4, 0.2]
    assert list(right.lines[0].get_xdata()) == [0.2, 0.4]
