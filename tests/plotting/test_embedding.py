"""Maps of points."""

import numpy as np

from firstlight.plotting.embedding import APART, marker, plot_embedding, spaced


def test_classes_are_named_and_wrong_answers_ringed() -> None:
    """B17: readable class names, colour and marker a class."""
    points = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [6.0, 5.0]])
    labels, predicted = np.array([0, 0, 8, 8]), np.array([0, 0, 8, 1])
    figure = plot_embedding(points, labels, predicted, [f"class {n}" for n in range(9)], axes=("x (m)", "y (m)"), title="Found")
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["class 0", "class 8"]
    assert [len(dots.get_offsets()) for dots in panel.collections] == [2, 2, 1]
    assert panel.get_legend().get_texts()[0].get_text() == "wrong answers (1)"
    assert (panel.get_xlabel(), panel.get_ylabel(), figure.get_suptitle()) == ("x (m)", "y (m)", "Found")


def test_of_many_classes_the_largest_are_named_and_the_title_counts_the_rest() -> None:
    labels = np.concatenate([np.arange(50), np.full(3, 49)])
    points = np.random.default_rng(0).normal(size=(53, 2))
    figure = plot_embedding(points, labels, labels, [f"c{n}" for n in range(50)], axes=("x", "y"), title="Fifty")
    names = [text.get_text() for text in figure.axes[0].texts]
    assert len(names) == 30 and names[0] == "c49" and figure.get_suptitle() == "Fifty (20 classes are not named)"
    assert figure.axes[0].get_legend() is None


def test_names_at_the_same_place_are_moved_apart() -> None:
    points = np.array([[0.0, 0.0], [10.0, 10.0]])
    first, second = spaced(np.array([[5.0, 5.0], [5.0, 5.0]]), points)
    assert abs(first[1] - second[1]) >= 10 * APART * 0.99 and abs(first[0] - second[0]) < 1e-9


def test_classes_of_one_colour_have_markers_of_their_own() -> None:
    assert len({(number % 7, marker(number)) for number in range(35)}) == 35
