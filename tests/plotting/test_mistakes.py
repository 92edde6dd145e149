"""Mistakes side by side."""

from typing import Any

import numpy as np
import pytest

from firstlight.plotting.mistakes import plot_mistakes
from firstlight.plotting.style import WRONG

IMAGE = np.arange(16, dtype=np.uint8).reshape(4, 4)


def mistake(**changes: Any) -> dict[str, Any]:
    return {
        "image": IMAGE, "label": "cat", "predicted": "dog", "probability": 0.934, "label_probability": 0.05, "index": 1234,
        "neighbours": [IMAGE, IMAGE + 1, IMAGE + 2], "neighbour_labels": ["dog", "dog", "cat"], "neighbour_similarity": [0.9, 0.8, 0.7],
        "saliency": np.linspace(0, 1, 16).reshape(4, 4), "suspect": False,
    } | changes  # fmt: skip


@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_row_holds_image_neighbours_and_saliency(num: int) -> None:
    """C9."""
    figure = plot_mistakes([mistake() for _ in range(num)], title="first")
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 5 * num
    for start in range(0, 5 * num, 5):
        image, *near, saliency = drawn[start : start + 5]
        assert image.get_title() == "dog 0.93\ntrue: cat 0.05" and image.title.get_color() == WRONG
        assert [axes.get_title() for axes in near] == ["nearest in training\ndog", "\ndog", "\ncat"]
        assert [axes.texts[0].get_text() for axes in (image, *near)] == ["image 1,234", "cosine 0.900", "cosine 0.800", "cosine 0.700"]
        assert "saliency" in saliency.get_title()
        np.testing.assert_array_equal(near[2].images[0].get_array(), IMAGE + 2)


def test_a_doubted_label_is_marked_and_long_names_are_cut() -> None:
    figure = plot_mistakes([mistake(suspect=True, label="a very long class name")], title="first")
    assert figure.axes[0].texts[0].get_text() == "image 1,234: label?"
    assert figure.axes[0].get_title() == "dog 0.93\ntrue: a very long… 0.05"


def test_a_map_of_zeros_and_no_neighbours_can_be_drawn() -> None:
    figure = plot_mistakes([mistake(saliency=np.zeros((4, 4)), neighbours=[], neighbour_labels=[], neighbour_similarity=[])], title="first")
    figure.canvas.draw()
    assert sum(bool(axes.images) for axes in figure.axes) == 2
