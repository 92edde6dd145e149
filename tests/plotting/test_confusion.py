"""Pictures of a confusion matrix, of 3 to 200 classes."""

import itertools

import numpy as np
import pytest

from firstlight.plotting.confusion import MOST_CLASSES, most_confused, plot_class_scores, plot_confusion

SMALL = np.array([[90, 10, 0], [1, 199, 0], [0, 0, 0]])


def many(num: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.diag(rng.integers(30, 50, num)) + (rng.random((num, num)) < 0.02) * rng.integers(1, 9, (num, num))


def cells(figure) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in figure.axes[0].texts}


def test_each_cell_holds_its_count_and_its_share_of_the_true_class():
    figure = plot_confusion(SMALL, ["cat", "dog", "frog"], title="first")
    assert cells(figure) == {(0, 0): "90\n90%", (0, 1): "10\n10%", (1, 0): "1\n0.5%", (1, 1): "199\n>99%"}
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1, 0], [0.005, 0.995, 0], [0, 0, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["cat", "dog", "frog"]
    assert figure.axes[1].get_ylabel() == "share of the true class"


def test_with_more_classes_the_cells_hold_counts_and_then_colour_alone():
    assert "\n" not in "".join(cells(plot_confusion(many(20), [str(n) for n in range(20)], title="first")).values())
    assert cells(plot_confusion(many(40), [str(n) for n in range(40)], title="first")) == {}


def test_of_200_classes_the_most_confused_are_drawn_and_named():
    matrix = many()
    names = [f"a class with number {n}" for n in range(200)]
    figure = plot_confusion(matrix, names, title="first")
    shown = most_confused(matrix)
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    assert len(shown) == MOST_CLASSES and min(mistakes[shown]) >= sorted(mistakes)[-MOST_CLASSES]
    assert figure.axes[0].images[0].get_array().shape == (MOST_CLASSES, MOST_CLASSES)
    assert "the 50 of 200 classes with the most mistakes" in figure.get_suptitle().replace("\n", " ")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()[:MOST_CLASSES]]
    assert all(a.y0 >= b.y1 - 1 for a, b in itertools.pairwise(boxes))  # no name runs into the next


def test_scores_stand_lowest_first():
    rows = [
        {"class": name, "images": 10, "precision": p, "recall": r, "f1": f}
        for name, p, r, f in [("cat", 0.9, 0.8, 0.85), ("dog", 0.5, 0.6, 0.55)]
    ]
    axes = plot_class_scores(rows, title="first").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog (10)", "cat (10)"]
    assert [points.get_offsets()[:, 0].tolist() for points in axes.collections[1:]] == [[0.5, 0.9], [0.6, 0.8]]
    low, high = axes.get_xlim()
    assert 0 <= low < 0.5 and high > 1


def test_scores_of_one_empty_class_can_be_drawn():
    rows = [{"class": "cat", "images": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}]
    assert plot_class_scores(rows, title="first").axes[0].get_xlim()[0] <= 0


@pytest.mark.parametrize(("share", "text"), [(0.0004, "<0.1%"), (0.034, "3.4%"), (0.0996, "10%"), (0.996, ">99%"), (1.0, "100%")])
def test_no_share_is_rounded_to_nothing_or_all(share: float, text: str):
    whole = 10_000
    count = round(share * whole)
    matrix = np.array([[count, whole - count], [0, 1]])
    assert cells(plot_confusion(matrix, ["a", "b"], title="first"))[0, 0] == f"{count:,}\n{text}"
