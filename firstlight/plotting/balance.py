"""How many images each class has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firstlight.plotting.style import PALETTE, list_classes, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY_CLASSES = 40
"""From here on the bars are thin, and their counts are not written beside them."""


def plot_class_balance(class_names: Sequence[str], counts: Sequence[int]) -> "Figure":
    """Return a bar for the number of images of each class, and a line where all classes would be equal."""
    many = len(counts) > MANY_CLASSES
    figure, (axes,) = new_figure(width=8, height=len(counts) * (0.12 if many else 0.28) + 1.4)
    bars = axes.barh(range(len(counts)), counts, color=PALETTE[0])
    if not many:
        axes.bar_label(
            bars, [f"{count:,}" for count in counts], padding=3, fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        )
    list_classes(axes, class_names, fontsize=6 if many else 9)
    mean = sum(counts) / max(len(counts), 1)
    axes.axvline(mean, color=PALETTE[1], linestyle="--", label=f"mean {f'{mean:,.1f}'.removesuffix('.0')}")
    axes.set_xlim(0, max(*counts, 1) * 1.1)
    axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    axes.locator_params(axis="x", integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    tidy(axes, x="number of images", y="class")
    axes.grid(visible=False, axis="y")
    set_title(figure, f"{sum(counts):,} images in {len(counts)} classes, {min(counts):,} to {max(counts):,} each")
    return figure
