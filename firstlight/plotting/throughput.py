"""Training speed over the batch size, under the roofs of the machine, with the parts of a step and what took its time below."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.style import PALETTE, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("data wait", "forward", "backward", "optimizer", "rest")
CAUSES = ("data wait", "overhead", "memory", "compute")
PART_COLORS = dict(zip(PARTS, (PALETTE[1], PALETTE[4], PALETTE[0], PALETTE[2], "#bbbbbb"), strict=True))
CAUSE_COLORS = dict(zip(CAUSES, (PALETTE[1], PALETTE[3], PALETTE[5], PALETTE[0]), strict=True))
CEILINGS = {"compute": "compute roof", "memory": "memory roof", "overhead": "overhead alone", "data wait": "data wait alone"}
BAR = 2**0.4
"""Half a bar, on an axis where a batch twice as large is one further."""


def plot_throughput(points: Sequence[Mapping[str, Any]], *, failed: Sequence[int], knee: int | None, title: str) -> "Figure":
    """Return images/s over the batch size with its roofs, and below it the shares of a step by part and by cause.

    points: by growing batch size, the plain data of profiling/throughput.py; failed: batches for which memory did not suffice; knee: the
    batch that is marked.
    """
    figure, (speed, parts, causes) = new_figure(3, width=8.4, height=9.6, height_ratios=(2.2, 1, 1))
    _draw_speed(speed, points, failed, knee)
    limits = speed.get_xlim()
    points = _apart(points)
    sizes = [point["batch_size"] for point in points]
    by_part = {part: [point["part_seconds"][part] / sum(point["part_seconds"].values()) for point in points] for part in PARTS}
    by_cause = {cause: [point["cause_seconds"][cause] / sum(point["cause_seconds"].values()) for point in points] for cause in CAUSES}
    _draw_shares(parts, sizes, by_part, PART_COLORS, "What a step does")
    _draw_shares(causes, sizes, by_cause, CAUSE_COLORS, "What takes the time")
    for axes in (parts, causes):
        axes.set_xlim(*limits)
    set_title(figure, title)
    return figure


def _apart(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return those points whose bars have room beside each other."""
    kept = list(points[:1])
    for point in points[1:]:
        if point["batch_size"] >= kept[-1]["batch_size"] * BAR**2:
            kept.append(point)
    return kept


def _draw_speed(axes: "Axes", points: Sequence[Mapping[str, Any]], failed: Sequence[int], knee: int | None) -> None:
    from matplotlib.ticker import FuncFormatter

    sizes, speeds = [point["batch_size"] for point in points], [point["images_per_second"] for point in points]
    below = [speed - point["slowest_images_per_second"] for speed, point in zip(speeds, points, strict=True)]
    above = [point["fastest_images_per_second"] - speed for speed, point in zip(speeds, points, strict=True)]
    for cause in reversed(CAUSES):
        known = [(point["batch_size"], point["ceilings"][cause]) for point in points if cause in point["ceilings"]]
        style = "--" if cause in ("compute", "memory") else ":"
        axes.plot(
            *zip(*known, strict=True), color=CAUSE_COLORS[cause], linestyle=style, linewidth=1.3, label=CEILINGS[cause]
        ) if known else None
    axes.errorbar(sizes, speeds, (below, above), color="black", marker="o", markersize=4, capsize=3, linewidth=1.8, label="measured")
    for place, size in enumerate(sorted(failed)):
        axes.axvline(size, color=PALETTE[1], linewidth=1.2, linestyle="-.", label="out of memory" if place == 0 else None)
    _by_twos(axes, [point["batch_size"] for point in _apart(points)])
    axes.set_xlim(min(sizes) / 1.5, max([*sizes, *failed]) * 1.5)
    axes.set_yscale("log")
    roofs = [value for point in points for value in point["ceilings"].values()]
    axes.set_ylim(min(speeds) / 2, min(max([*speeds, *roofs]), 30 * max(speeds)) * 1.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if knee is not None:
        axes.axvline(knee, color="#888888", linewidth=0.9)
        axes.annotate(f"knee: {knee:,}", (knee, min(speeds) / 2), xytext=(4, 6), textcoords="offset points", fontsize=9, color="#555555")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    tidy(axes, x="batch size (images)", y="training speed (images/s)")


def _by_twos(axes: "Axes", sizes: Sequence[int]) -> None:
    """Make a batch twice as large one further, and write these sizes below the axis."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=9)
    axes.set_xticks([], minor=True)


def _draw_shares(axes: "Axes", sizes: Sequence[int], shares: Mapping[str, Sequence[float]], colors: Mapping[str, str], title: str) -> None:
    from matplotlib.ticker import PercentFormatter

    bottom = [0.0] * len(sizes)
    left, width = [size / BAR for size in sizes], [size * BAR - size / BAR for size in sizes]
    for name, values in shares.items():
        axes.bar(left, values, width, bottom, align="edge", color=colors[name], label=name)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    _by_twos(axes, sizes)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    tidy(axes, x="batch size (images)", y="share of a step", title=title)
    axes.grid(visible=False, axis="x")
