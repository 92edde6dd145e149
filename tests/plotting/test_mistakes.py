"""Mistakes side by side."""

from typing import Any

import numpy as np
import pytest

from firstlight.plotting.mistakes import plot_mistakes
from firstlight.plotting.style import RIGHT, WRONG

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
    (axes,) = plot_mistakes([mistake() for _ in range(num)], title="first").axes
    assert len(axes.images) == 5 * num
    each = ["dog 0.93\ntrue: cat 0.05", "image 1,234", "nearest in training\ndog", "cosine 0.900", "\ndog", "cosine 0.800"]
    each += ["\ncat", "cosine 0.700", "saliency\n(bright: it counts)", ""]
    assert [text.get_text() for text in axes.texts] == each * num
    assert axes.texts[0].get_color() == WRONG and axes.texts[6].get_color() == RIGHT  # a neighbour of the true class
    for start in range(0, 5 * num, 5):
        np.testing.assert_array_equal(axes.images[start + 3].get_array(), IMAGE + 2)
        assert [picture.get_cmap().name for picture in axes.images[start : start + 5]] == ["gray"] * 4 + ["inferno"]


@pytest.mark.parametrize("num", [1, 5, 40])
def test_no_picture_covers_another_and_no_text_leaves_the_figure(num: int) -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    figure = plot_mistakes([mistake(image=wide), *[mistake() for _ in range(num - 1)]], title="a title of several lines " * 10)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [picture.get_window_extent() for picture in axes.images]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[place + 1 :])
    assert boxes[0].width == pytest.approx(2 * boxes[0].height, rel=0.02)
    assert boxes[1].width == pytest.approx(boxes[1].height, rel=0.02)
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert min(box.x0 for box in texts) >= 0 and max(box.x1 for box in texts) <= figure.bbox.width and min(box.y0 for box in texts) >= 0
    assert not any(text.overlaps(box) for text in texts for box in boxes)
    title = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert title.y0 > max(box.y1 for box in texts) and title.y1 <= figure.bbox.height


def test_a_doubted_label_is_marked_and_long_names_are_cut() -> None:
    (axes,) = plot_mistakes([mistake(suspect=True, label="a very long class name")], title="first").axes
    assert axes.texts[1].get_text() == "image 1,234: label?"
    assert axes.texts[0].get_text() == "dog 0.93\ntrue: a very long… 0.05"


def test_a_map_of_zeros_and_no_neighbours_can_be_drawn() -> None:
    figure = plot_mistakes([mistake(saliency=np.zeros((4, 4)), neighbours=[], neighbour_labels=[], neighbour_similarity=[])], title="first")
    figure.draw_without_rendering()
    assert len(figure.axes[0].images) == 2
