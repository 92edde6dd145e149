"""Pictures of many parameters at once: what a search covered, each trial as a line through all of them, and which of them mattered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.style import PALETTE, new_figure, set_title, shades, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TICKS = 8
"""Values of a parameter that are all named on its axis; of more, round ones are."""
NEAR = 0.06
"""Share of an axis within which two ticks would overlap."""
BELOW = -0.1
"""Height of a parameter that does not apply to a trial."""
MAX_LETTERS = 18
"""Letters of a name on an axis."""


@dataclass(frozen=True)
class Axis:
    """One parameter of several trials: its name, a value a trial (None where it does not apply), and whether factors count."""

    name: str
    values: Sequence[Any]
    log: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in self.values)


def plot_coverage(searches: Sequence[tuple[str, Axis, Axis]]) -> "Figure":
    """Return the trials of one or two searches in the plane of two parameters, their shadows on both axes, and how many values each has.

    The figure of Bergstra and Bengio 2012: a grid of 27 trials looks at 3 values of each of three parameters, 27 random draws at 27.
    """
    figure, panels = new_figure(1, len(searches), width=1.2 + 4.6 * len(searches), height=5.0)
    for panel, (title, across, up) in zip(panels, searches, strict=True):
        for axis, scale in ((across, panel.set_xscale), (up, panel.set_yscale)):
            if axis.log:
                scale("log")
        panel.plot(across.values, up.values, marker="o", markersize=6, linestyle="", color=PALETTE[0], alpha=0.8, clip_on=False)
        rug: dict[str, Any] = {"marker": "|", "markersize": 14, "linestyle": "", "color": PALETTE[1], "clip_on": False}
        panel.plot(across.values, np.full(len(across.values), -0.02), transform=panel.get_xaxis_transform(), **rug)
        panel.plot(np.full(len(up.values), -0.02), up.values, transform=panel.get_yaxis_transform(), **{**rug, "marker": "_"})
        panel.tick_params(pad=11)
        count = len(set(zip(across.values, up.values, strict=True)))
        tidy(
            panel,
            x=f"{across.name}\n{len(set(across.values))} distinct values",
            y=f"{up.name}\n{len(set(up.values))} distinct values",
            title=f"{title}\n{len(across.values)} points, {count} distinct places here",
        )
    across_all, up_all = ([limit for panel in panels for limit in get(panel)] for get in (_x_limits, _y_limits))
    for panel in panels:  # the same limits, but no shared axes: each panel names its own values
        panel.set_xlim(min(across_all), max(across_all))
        panel.set_ylim(min(up_all), max(up_all))
    set_title(figure, "What the search looked at: each point, and its shadow on both axes")
    return figure


def _x_limits(axes: "Axes") -> tuple[float, float]:
    return axes.get_xlim()


def _y_limits(axes: "Axes") -> tuple[float, float]:
    return axes.get_ylim()


def plot_parallel(axes: Sequence[Axis], objective: Sequence[float | None], *, name: str, higher_is_better: bool, title: str) -> "Figure":
    """Return each trial as a line through its value of each parameter, coloured by the objective, the best on top; broken ones dotted."""
    figure, (panel,) = new_figure(width=max(6.5, 1.9 * (len(axes) + 1) + 1.5), height=4.8)
    heights = [_heights(axis) for axis in axes]
    known = [value for value in objective if value is not None]
    mapped = shades(known or [0.0], log=False)
    table = np.array([places for places, _ in heights]).T
    if known:
        low, high = min(known), max(known)
        ends = [np.nan if value is None else (value - low) / (high - low or 1) for value in objective]
        table = np.column_stack([table, ends])
    order = sorted(range(len(objective)), key=lambda index: _worst_first(objective[index], higher_is_better))
    best = order[-1] if known else None
    for index in order:
        value = objective[index]
        look: dict[str, Any] = {"color": "#888888", "linestyle": ":", "linewidth": 0.8}
        if value is not None:
            look = {
                "color": mapped.to_rgba(np.array([value]))[0],
                "linewidth": 2.8 if index == best else 1.2,
                "alpha": 1.0 if index == best else 0.7,
            }
        panel.plot(range(table.shape[1]), table[index], **look)
    names = [axis.name for axis in axes]
    if known:
        names.append(name)
        heights.append(_heights(Axis(name, known)))
    for place, (_, ticks) in enumerate(heights):
        panel.axvline(place, color="black", linewidth=0.8)
        for height, text in ticks:
            panel.plot([place - 0.012, place], [height, height], color="black", linewidth=0.8)
            panel.annotate(
                text, (place, height), xytext=(-5, 0), textcoords="offset points", ha="right", va="center", fontsize=8, bbox=_HALO, zorder=4
            )
    panel.set_xticks(range(len(names)), names, fontsize=9)
    panel.set_xlim(-0.45, len(names) - 0.85)
    panel.set_ylim(min(float(np.nanmin(table, initial=0.0)), 0.0) - 0.04, 1.04)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_yticks([])
    if known:
        figure.colorbar(mapped, ax=panel, label=name, pad=0.02)
    broken = len(objective) - len(known)
    set_title(figure, f"{title}; {len(objective)} points, the best thick" + (f", {broken} without a figure dotted" if broken else ""))
    return figure


def plot_importance(
    names: Sequence[str],
    shares: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    chance: Sequence[float] | None,
    remark: str,
    title: str,
) -> "Figure":
    """Return how much each parameter mattered as bars with their least and most; chance: the share of one without effect, as a mark."""
    figure, (axes,) = new_figure(width=8, height=1.9 + 0.45 * len(names))
    places = np.arange(len(names))
    axes.barh(places, shares, height=0.6, color=PALETTE[4])
    means = np.asarray(shares)
    if any(high[index] > low[index] for index in range(len(names))):
        ends = np.maximum([means - np.asarray(low), np.asarray(high) - means], 0)
        axes.errorbar(means, places, xerr=ends, color="black", linestyle="", capsize=4, linewidth=1.2)
    if chance is not None:
        axes.plot(chance, places, marker="|", markersize=22, linestyle="", color=PALETTE[1], label="what noise alone would give")
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, markerscale=0.5)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.04)
    tidy(axes, x=remark, y="")
    axes.xaxis.label.set_fontsize(9)
    set_title(figure, title)
    return figure


_HALO = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def _worst_first(value: float | None, higher_is_better: bool) -> tuple[bool, float]:
    return (False, 0.0) if value is None else (True, value if higher_is_better else -value)


def _heights(axis: Axis) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Return the height in [0, 1] of each value on a vertical axis, a place below where it does not apply, and the ticks."""
    if not axis.is_numeric:
        names = list(dict.fromkeys("-" if value is None else str(value) for value in axis.values))
        step = max(len(names) - 1, 1)
        places = np.array([names.index("-" if value is None else str(value)) / step for value in axis.values])
        return places, [(index / step, shorten(name, MAX_LETTERS)) for index, name in enumerate(names)]
    numbers = np.array([np.nan if value is None else value for value in axis.values], dtype=np.float64)
    if not np.isfinite(numbers).any():
        return np.full(len(numbers), BELOW), [(BELOW, "-")]
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))

    def height(value: Any) -> Any:
        if low == high:
            return np.full_like(value, 0.5, dtype=np.float64)
        return np.log(value / low) / np.log(high / low) if axis.log else (value - low) / (high - low)

    distinct = np.unique(numbers[np.isfinite(numbers)])
    if len(distinct) > MAX_TICKS or (np.diff(height(distinct)) < NEAR).any():
        distinct = _round_values(low, high, log=axis.log)
    ticks = [(float(height(np.float64(value))), f"{value:.3g}") for value in distinct]
    ends = [(place, text) for place, text in ((0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")) if low < high]
    ticks += [end for end in ends if all(abs(end[0] - place) > NEAR for place, _ in ticks)]
    absent = [(BELOW, "-")] if None in axis.values else []
    return np.where(np.isfinite(numbers), height(numbers), BELOW), ticks + absent


def _round_values(low: float, high: float, *, log: bool) -> NDArray[np.float64]:
    """Return round numbers of a range, powers of ten where factors count."""
    from matplotlib.ticker import MaxNLocator

    if log and high >= 10 * low:
        return 10.0 ** np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    made = np.asarray(MaxNLocator(5).tick_values(low, high))
    return made[(made >= low) & (made <= high)]
