"""Pictures of Monte-Carlo dropout."""

import numpy as np

from firstlight.plotting.uncertainty import plot_image_uncertainty, plot_uncertainty

GREY = np.zeros((4, 4), np.uint8)


def test_the_classes_that_passes_chose_beside_the_image() -> None:
    """B9: histogram of predicted classes, and of the probability, beside the image."""
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
    figure = plot_image_uncertainty(GREY, ["cat", "dog", "frog"], np.array([3, 0, 1]), probabilities, label="dog", title="Found")
    picture, bars, histogram = figure.axes
    assert len(picture.images) == 1 and [bar.get_width() for bar in bars.patches] == [3, 0, 1]
    assert [text.get_text() for text in bars.get_yticklabels()] == ["cat", "dog (true)", "frog"]
    assert [text.get_text() for text in histogram.get_legend().get_texts()] == ["cat: median 0.55", "dog (true): median 0.25"]
    assert (bars.get_xlabel(), histogram.get_xlabel()) == ("passes that chose it (of 4)", "probability in a pass")


def test_of_many_classes_the_foremost_and_the_true_one_are_shown() -> None:
    probabilities = np.full((5, 100), 0.01)
    votes = np.zeros(100, int)
    votes[7] = 5
    names = [f"a class with a long name {number}" for number in range(100)]
    figure = plot_image_uncertainty(GREY, names, votes, probabilities, label=names[99], title="Many")
    shown = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert len(shown) <= 21 and shown[-1] == "a class with … (true)"


def test_right_and_wrong_answers_are_shares_of_their_own() -> None:
    scores = {"predictive_entropy": np.array([0.1, 0.2, 0.9]), "mutual_information": np.array([0.0, 0.0, 0.1]), "other": np.zeros(3)}
    areas = {"predictive_entropy": 1.0, "mutual_information": 0.75, "other": None}
    figure = plot_uncertainty(scores, np.array([False, False, True]), areas, title="Found")
    entropy, information, area = figure.axes
    assert (entropy.get_xlabel(), information.get_xlabel()) == ("predictive entropy (nats)", "mutual information (nats)")
    assert [text.get_text() for text in entropy.get_legend().get_texts()] == ["right (2)", "wrong (1)"]
    assert [bar.get_width() for bar in area.patches] == [1.0, 0.75, 0]
    assert {"1.000", "0.750", "no mistakes"} <= {text.get_text() for text in area.texts}


def test_without_mistakes_there_is_one_group() -> None:
    scores = {"predictive_entropy": np.zeros(3), "mutual_information": np.zeros(3)}
    figure = plot_uncertainty(scores, np.zeros(3, bool), dict.fromkeys(scores), title="All right")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["right (3)"]
