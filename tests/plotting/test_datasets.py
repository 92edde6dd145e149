"""Pictures of whole data sets."""

import numpy as np

from firstlight.plotting.datasets import plot_distances, plot_image_rows, plot_pairs, plot_sheet, plot_two_histograms, plot_warmup
from tests.plotting.conftest import texts

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4)


def test_rows_of_images_are_named_and_columns_are_classes() -> None:
    figure = plot_image_rows([("mean", [GREY, None]), ("deviation", [GREY, GREY])], ["cat", "a class of a very long name"], title="Means")
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["mean", "deviation"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cat", "a class of …"]
    assert "no image" in texts(figure) and figure.get_suptitle() == "Means"


def test_a_sheet_is_one_picture_with_named_rows_and_columns() -> None:
    """D10: of many images, grey and colour."""
    figure = plot_sheet([[GREY, None], [GREY + 1, GREY + 2]], ["cat", "dog"], column_names=["as it is", "epoch 1"], title="Sheet")
    (axes,) = figure.axes
    canvas = axes.images[0].get_array()
    np.testing.assert_array_equal(canvas[5:, 5:], GREY + 2)
    assert canvas[:4, 4:].min() == 255 and axes.images[0].get_clim() == (0, 255)
    assert [text for text in texts(figure) if text in ("cat", "dog", "as it is", "epoch 1", "Sheet")] == [
        "as it is",
        "epoch 1",
        "cat",
        "dog",
        "Sheet",
    ]
    colours = plot_sheet([[np.stack([GREY] * 3, axis=2)]], ["a"], title="Colours")
    assert colours.axes[0].images[0].get_array().shape == (4, 4, 3)


def test_pairs_stand_above_each_other() -> None:
    figure = plot_pairs([(GREY, f"train {n}", GREY + 1, f"val {n}") for n in range(9)], title="Twice")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:8] == [f"train {n}" for n in range(8)] and titles[8:16] == [f"val {n}" for n in range(8)]
    assert titles[16] == "train 8" and titles[24] == "val 8"


def test_no_pair_is_said() -> None:
    assert "no such pair" in texts(plot_pairs([], title="Twice"))


def test_histograms_and_spectra_have_axes_with_units() -> None:
    """C7: labelled axes, units, and a legend that names both sets."""
    shares, waves = np.array([0.5, 0.0, 0.5]), np.array([0.0, 3.0, 2.0, 1.0])
    figure = plot_two_histograms(("a", "b"), (shares, shares), (waves, waves), fitted=(shares, waves), title="Both")
    left, right = figure.axes
    assert left.get_xlabel() == "pixel value (0 is black, 1 is white)" and right.get_xlabel() == "spatial frequency (cycles an image)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "a, with what was named done to it"]
    assert right.lines[0].get_xdata().tolist() == [1, 2, 3] and right.lines[0].get_ydata().tolist() == [3, 2, 1]


def test_distances_are_bars_with_the_nearest_kind_marked() -> None:
    figure = plot_distances({"noise": 0.3, "blur": 1.2}, before=1.3, floor=0.16, after=0.2, title="noise alone comes nearest")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nothing done", "blur", "noise", "all that was named"]
    assert [bar.get_width() for bar in axes.patches] == [1.3, 1.2, 0.3, 0.2]
    assert axes.patches[2].get_facecolor() != axes.patches[1].get_facecolor()


def test_weights_have_no_colour_at_nought() -> None:
    figure = plot_warmup(GREY, "7", np.array([[-2.0, 0.0], [1.0, 0.5]]), title="Warm-up")
    assert figure.axes[1].images[0].get_clim() == (-2, 2)
    assert figure.axes[0].get_title(loc="left") == "a random image, labelled 7"
