"""A map of images as points: a colour and a marker a class, its name where it is densest, wrong answers ringed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.style import PALETTE, color_of, new_figure, set_title, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v")
"""A class's marker changes when the colours have been through; behind 35 classes all come again."""
MAX_NAMED = 30
"""Classes whose names are written; of more, those with the most points."""
MAX_LETTERS = 14
APART = 0.045
"""How near, as a share of the picture, two names may come."""


def plot_embedding(
    points: NDArray[Any], labels: NDArray[Any], predicted: NDArray[Any], class_names: Sequence[str], *, axes: tuple[str, str], title: str
) -> "Figure":
    """Return the points coloured by class.

    points: float [N, 2]; labels, predicted: int [N]; axes: what the two axes show.
    """
    figure, (panel,) = new_figure(width=8.2, height=7.2)
    size = float(np.clip(6000 / max(len(points), 1), 5, 26))
    present, counts = np.unique(labels, return_counts=True)
    for number in present:
        own = points[labels == number]
        panel.scatter(own[:, 0], own[:, 1], s=size, marker=marker(number), color=color_of(number), alpha=0.7, linewidths=0)
    wrong = labels != predicted
    if wrong.any():
        text = f"wrong answers ({int(wrong.sum()):,})"
        panel.scatter(
            points[wrong, 0],
            points[wrong, 1],
            s=2 * size + 12,
            marker="o",
            facecolors="none",
            edgecolors="black",
            linewidths=0.7,
            label=text,
        )
        panel.legend(frameon=True, framealpha=0.9, fontsize=9, loc="best")
    named = present[np.argsort(-counts, kind="stable")][:MAX_NAMED]
    places = np.array([np.median(points[labels == number], axis=0) for number in named])
    for number, place in zip(named, spaced(places, points), strict=True):
        panel.annotate(
            shorten(class_names[number], MAX_LETTERS), place, ha="center", va="center",
            fontsize=10, fontweight="bold", color=color_of(number),
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": color_of(number), "alpha": 0.9}, zorder=5,
        )  # fmt: skip
    tidy(panel, x=axes[0], y=axes[1])
    unnamed = len(present) - len(named)
    set_title(figure, title + (f" ({unnamed} classes are not named)" if unnamed else ""))
    return figure


def marker(number: int) -> str:
    """Return the marker of a class."""
    return MARKERS[number // len(PALETTE) % len(MARKERS)]


def spaced(places: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
    """Return the places of names, float [K, 2], moved as little as keeps them readable."""
    low = points.min(0)
    width = np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    scaled = (places - low) / width
    for _ in range(100):
        moved = False
        for one in range(len(scaled)):
            for other in range(one):
                step = scaled[one] - scaled[other]
                distance = float(np.hypot(step[0] / 1.6, step[1]))  # names are wider than high
                if distance < APART:
                    push = step / np.linalg.norm(step) if distance > 1e-9 else np.array([0.0, 1.0])
                    scaled[one] += push * (APART - distance) / 2
                    scaled[other] -= push * (APART - distance) / 2
                    moved = True
        if not moved:
            break
    shifted: NDArray[Any] = scaled * width + low
    return shifted
