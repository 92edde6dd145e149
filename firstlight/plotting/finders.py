"""What the finders of a learning rate and of a batch size saw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firstlight.plotting.style import PALETTE, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_lr_range(
    lrs: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    *,
    steepest: float | None,
    largest: float | None,
    title: str,
) -> "Figure":
    """Return the loss of each step over its learning rate, with the one where it falls fastest and the largest that trains."""
    figure, (axes,) = new_figure(width=7.5, height=4.4)
    axes.plot(lrs, losses, color=PALETTE[4], linewidth=0.9, label="loss of a step")
    axes.plot(lrs, smoothed, color=PALETTE[0], linewidth=1.8, label="smoothed")
    for lr, color, style, name in ((steepest, PALETTE[2], "-", "falls fastest"), (largest, PALETTE[1], "--", "largest that trains")):
        if lr is not None:
            axes.axvline(lr, color=color, linestyle=style, linewidth=1.5, label=f"{name}: {lr:.2g}")
    axes.set_xscale("log")
    if smoothed:
        low, start = min(smoothed), smoothed[0]
        axes.set_ylim(low - 0.1 * (start - low or 1), start + 1.2 * (start - low or 1))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(axes, x="learning rate", y="training loss (nats)")
    set_title(figure, title)
    return figure


def plot_batch_sizes(speeds: Sequence[tuple[int, float]], *, failed: Sequence[int], title: str) -> "Figure":
    """Return images/s over the batch size, and the sizes for which memory did not suffice."""
    from matplotlib.ticker import FuncFormatter

    figure, (axes,) = new_figure(width=7.5, height=4.4)
    axes.plot([size for size, _ in speeds], [speed for _, speed in speeds], color=PALETTE[0], marker="o", label="fits")
    for place, size in enumerate(sorted(failed)):
        axes.axvline(size, color=PALETTE[1], linestyle=":", linewidth=1.2, label="out of memory" if place == 0 else None)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylim(bottom=0)
    if failed:
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(axes, x="batch size (images)", y="training speed (images/s)")
    set_title(figure, title)
    return figure
