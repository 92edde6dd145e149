"""Where the memory of a training goes, for several networks side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.style import PALETTE, list_classes, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "average": "moving average",
    "activations": "activations",
}
"""What a training step holds, and what it is called."""
COLORS = dict(zip(NAMES, (PALETTE[0], PALETTE[4], PALETTE[2], PALETTE[3], PALETTE[5]), strict=True))


def plot_memory(rows: Sequence[Mapping[str, Any]], *, counted: Sequence[str], title: str) -> "Figure":
    """Return bars of MiB for each network, stacked by what was counted, with the measured peak; and the same as shares of the sum.

    rows: `network`, bytes by the names in `counted`, and `peak`.
    """
    shown = [name for name in counted if any(row[name] for row in rows)]
    figure, (sizes, shares) = new_figure(1, 2, width=9.6, height=0.55 * len(rows) + 1.9, width_ratios=(1.6, 1), sharey=True)
    _draw(sizes, rows, shown, [2.0**20] * len(rows))
    peaks = [row["peak"] / 2**20 for row in rows]
    sizes.plot(peaks, range(len(rows)), color="black", marker="D", markersize=5, linestyle="", label="measured peak")
    for place, row in enumerate(rows):
        end = max(row["peak"], sum(row[name] for name in shown)) / 2**20
        sizes.annotate(f"{row['peak'] / 2**20:,.0f}", (end, place), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9)
    sizes.set_xlim(0, 1.15 * max([*peaks, *(sum(row[name] for name in shown) / 2**20 for row in rows)]))
    sizes.xaxis.set_major_formatter("{x:,.0f}")
    _draw(shares, rows, shown, [max(sum(row[name] for name in shown), 1) for row in rows])
    shares.xaxis.set_major_formatter("{x:.0%}")
    shares.set_xlim(0, 1)
    tidy(sizes, x="memory of a training step (MiB)", y="network")
    tidy(shares, x="share of what was counted", y="")
    for axes in (sizes, shares):
        axes.grid(visible=False, axis="y")
    figure.legend(*sizes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=len(shown) + 1)
    set_title(figure, title)
    return figure


def _draw(axes: "Axes", rows: Sequence[Mapping[str, Any]], shown: Sequence[str], units: Sequence[float]) -> None:
    left = [0.0] * len(rows)
    for name in shown:
        widths = [row[name] / unit for row, unit in zip(rows, units, strict=True)]
        axes.barh(range(len(rows)), widths, left=left, color=COLORS[name], label=NAMES[name], height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    list_classes(axes, [str(row["network"]) for row in rows])
