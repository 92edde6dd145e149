"""How many images each class has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firstlight.plotting.style import PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_class_balance(class_names: Sequence[str], counts: Sequence[int]) -> "Figure":
    """Return a bar for the number of images of each class, and a line where all classes would be equal."""
    figure, (axes,) = new_figure(width=8, height=max(2.5, 0.28 * len(counts) + 1))
    axes.barh(range(len(counts)), counts, color=PALETTE[0])
    axes.set_yticks(range(len(counts)), class_names)
    axes.invert_yaxis()
    mean = sum(counts) / max(len(counts), 1)
    axes.axvline(mean, color=PALETTE[1], linestyle="--", label=f"mean {mean:,.0f}")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    tidy(axes, x="images", y="class")
    figure.suptitle(f"{sum(counts):,} images in {len(counts)} classes, {min(counts):,} to {max(counts):,} each", fontsize=11)
    return figure
