"""Which classes are taken for which, and how well each is recognised."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.style import PALETTE, list_classes, new_figure, set_title, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WITH_SHARES, WITH_COUNTS = 12, 25
"""Up to so many classes each cell holds its count and its share, or its count."""
MOST_CLASSES = 50
"""Of more classes, those with the most mistakes are drawn."""
LONGEST_NAME = 14

Counts = NDArray[np.int64]


def most_confused(matrix: Counts, num: int = MOST_CLASSES) -> list[int]:
    """Return the classes with the most mistakes, made of them or into them, in their order; all where there are no more than `num`."""
    if len(matrix) <= num:
        return list(range(len(matrix)))
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return sorted(np.argsort(-mistakes, kind="stable")[:num].tolist())


def plot_confusion(matrix: Counts, class_names: Sequence[str], *, title: str) -> "Figure":
    """Return the confusion matrix: a row a true class, a column a prediction, coloured by the root of the share of the row.

    matrix: int64 [K, K], images of class t taken for class p at [t, p]. Of more than MOST_CLASSES classes the most confused are drawn.
    """
    from matplotlib.colors import PowerNorm

    shown = most_confused(matrix)
    counts = matrix[np.ix_(shown, shown)]
    shares = _shares(matrix)[np.ix_(shown, shown)]
    names = [shorten(class_names[label], LONGEST_NAME) for label in shown]
    side = max(4.6, (0.52 if len(shown) <= WITH_COUNTS else 0.19) * len(shown) + 1.6)
    figure, (axes,) = new_figure(width=side + 1.1, height=side + 0.3)
    picture = axes.imshow(
        shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest"
    )  # or a few per cent would look like none
    _name_axes(axes, names)
    if len(shown) <= WITH_COUNTS:
        _write_cells(axes, counts, shares)
    bar = figure.colorbar(picture, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    left_out = f"; the {len(shown)} of {len(matrix)} classes with the most mistakes" if len(shown) < len(matrix) else ""
    set_title(figure, f"{title}{left_out}")
    return figure


def plot_class_scores(rows: Sequence[dict[str, Any]], *, title: str) -> "Figure":
    """Return precision and recall of each class as points on one line, the class of the lowest F1 first; of many, the lowest MOST_CLASSES.

    A row holds `class`, `images`, `precision`, `recall` and `f1`.
    """
    shown = sorted(rows, key=lambda row: row["f1"])[:MOST_CLASSES]
    small = len(shown) > WITH_COUNTS
    figure, (axes,) = new_figure(width=8, height=(0.17 if small else 0.28) * len(shown) + 1.7)
    places = range(len(shown))
    low, high = ([pick(row["precision"], row["recall"]) for row in shown] for pick in (min, max))
    axes.hlines(places, low, high, color="#bbbbbb", linewidth=1.5, zorder=1)
    axes.scatter([row["precision"] for row in shown], places, color=PALETTE[0], marker="o", s=30, label="precision", zorder=3)
    axes.scatter([row["recall"] for row in shown], places, color=PALETTE[1], marker="D", s=26, label="recall", zorder=2)
    list_classes(axes, [f"{shorten(row['class'], LONGEST_NAME)} ({row['images']:,})" for row in shown], fontsize=6 if small else 9)
    least = min(low, default=0.0)
    axes.set_xlim(max(0.0, least - 0.05 * (1 - least) - 0.01), 1.01)
    axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    left_out = f"; the {len(shown)} lowest of {len(rows)}" if len(shown) < len(rows) else ""
    tidy(axes, x="precision and recall (share of images)", y="class (images of it), lowest F1 first")
    axes.grid(visible=False, axis="y")
    set_title(figure, f"{title}{left_out}")
    return figure


def _shares(matrix: Counts) -> NDArray[np.float64]:
    """Return each row divided by its sum; 0 for a class without images."""
    sums = matrix.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(matrix, sums, out=np.zeros(matrix.shape), where=sums > 0)
    return shares


def _name_axes(axes: "Axes", names: Sequence[str]) -> None:
    size = 9 if len(names) <= WITH_COUNTS else 6
    upright = max(map(len, names)) > 2
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=90 if upright else 0)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _write_cells(axes: "Axes", counts: Counts, shares: NDArray[np.float64]) -> None:
    """Write each count that is not 0 into its cell, with its share where there is room."""
    with_shares = len(counts) <= WITH_SHARES
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        text = f"{counts[row, column]:,}" + (f"\n{_percent(share)}" if with_shares else "")
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if share > 0.36 else "black", linespacing=1.1)


def _percent(share: float) -> str:
    """Return `97%`; of less than 10% a decimal, and nothing is rounded to 0 or 100."""
    percent = 100 * share
    if share < 1 and percent >= 99.5:
        return ">99%"
    return f"{percent:.0f}%" if percent >= 9.95 else "<0.1%" if percent < 0.05 else f"{percent:.1f}%"
