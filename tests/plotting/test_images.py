import numpy as np
import pytest

from firstlight.plotting.images import MAX_BARS, plot_class_bars, plot_images, plot_nothing, plot_predictions
from firstlight.plotting.style import RIGHT, WRONG

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)


def titles_of(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("image", [GREY, COLOUR])
def test_a_sheet_shows_each_image_below_its_title(image):
    """D10: labelled images of any data set."""
    figure = plot_images([image] * 7, [f"class {index}" for index in range(7)], title="Seven images", columns=5)
    assert titles_of(figure) == [*(f"class {index}" for index in range(7)), "", "", ""]
    assert figure.get_suptitle() == "Seven images"
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(shown) == 7
    np.testing.assert_array_equal(shown[0].get_array(), image)


def test_grey_runs_from_black_0_to_white_255_whatever_the_image_holds():
    """D10: colours right."""
    figure = plot_images([GREY], ["dark"], title="One")
    shown = figure.axes[0].images[0]
    assert (shown.get_clim(), shown.get_cmap().name, shown.get_interpolation()) == ((0, 255), "gray", "nearest")


def test_long_titles_are_cut():
    assert titles_of(plot_images([GREY], ["a class with a very long name"], title="One"))[0] == "a class with a ve…"


def test_predictions_are_coloured_and_name_the_true_label():
    """D20: predictions with predicted and true label."""
    figure = plot_predictions([COLOUR] * 2, ["cat", "dog"], ["cat", "frog"], [0.934, 0.5], title="Two predictions")
    assert titles_of(figure)[:2] == ["cat 0.93\ntrue: cat", "frog 0.50\ntrue: dog"]
    assert [axes.title.get_color() for axes in figure.axes[:2]] == [RIGHT, WRONG]
    long = plot_predictions(
        [GREY], ["golden_retriever_1"], ["golden_retriever_2"], [0.981], title="Long names leave room for the probability"
    )
    assert titles_of(long)[0] == "golden_retri… 0.98\ntrue: golden_retr…" and long.axes[0].title.get_color() == WRONG


def test_predictions_without_labels_are_black_and_name_the_guess_alone():
    """E8: predictions of a test part without labels."""
    figure = plot_predictions([GREY], None, ["7"], [0.5], title="One prediction")
    assert (figure.axes[0].get_title(), figure.axes[0].title.get_color()) == ("7 0.50", "black")


def test_an_image_beside_the_probabilities_of_its_classes():
    """B10: one prediction, the image beside its class-probability bars."""
    figure = plot_class_bars(COLOUR, ["cat", "dog", "frog"], [0.2, 0.7, 0.1], title="Image 5")
    picture, bars = figure.axes
    assert len(picture.images) == 1
    assert [bar.get_width() for bar in bars.patches] == [0.2, 0.7, 0.1]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["cat", "dog", "frog"]
    assert [text.get_text() for text in bars.texts] == ["0.20", "0.70", "0.10"]
    assert bars.patches[1].get_facecolor() != bars.patches[0].get_facecolor() == bars.patches[2].get_facecolor()
    assert (bars.get_xlabel(), bars.get_ylabel()) == ("probability", "class")


def test_of_many_classes_the_likeliest_are_shown_in_their_order():
    probabilities = np.linspace(0, 1, 200)
    bars = plot_class_bars(GREY, [str(label) for label in range(200)], probabilities, title="Image 5").axes[1]
    assert [label.get_text() for label in bars.get_yticklabels()] == [str(label) for label in range(200 - MAX_BARS, 200)]


def test_nothing_to_see_is_said():
    """Issue 6, bad input: an empty selection is a picture that says so."""
    figure = plot_nothing("no wrong val images", title="first: all right")
    assert (figure.axes[0].texts[0].get_text(), figure.get_suptitle()) == ("no wrong val images", "first: all right")


def test_the_true_class_is_named_beside_its_bar():
    bars = plot_class_bars(GREY, ["cat", "dog"], [0.2, 0.8], title="Image 5", label="cat").axes[1]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["cat (true)", "dog"]
