"""Curves of many trials on the same axes, coloured by what was varied."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from firstlight.plotting.curves import MEASURES
from firstlight.plotting.style import MAX_LEGEND, color_of, in_legend, new_figure, set_title, shades, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TRAINING = 12
"""Trials whose training curves are drawn beside those of validation."""
BEST = "best point"
MOST_LOSS = 100
"""Times the smallest loss that the axis shows; trials that broke lie far above."""
WIDE_LOSS = 10
"""Ratio of the largest loss to the smallest from which on the axis is logarithmic."""


def plot_trials(
    histories: Sequence[Sequence[Mapping[str, Any]]],
    values: Sequence[Any],
    *,
    num_best: int,
    parameter: str,
    log: bool,
    title: str,
) -> "Figure":
    """Return loss and accuracy by epoch of each trial, validation solid, of few trials training dashed.

    histories: rows with `epoch`, `train_loss`, `val_loss`, ...; the first `num_best`, the seeds of the best point, are drawn black;
    values: of the parameter that gives a trial its colour, numbers or names.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = sorted(set(values)) if numbers else list(dict.fromkeys(map(str, values)))
    mapped = shades([float(value) for value in values], log=log) if numbers else None
    colors = (
        [color_of(distinct.index(str(value))) for value in values]
        if mapped is None
        else mapped.to_rgba(np.asarray(values, dtype=np.float64))
    )
    figure, axes = new_figure(1, 2, width=11, height=4.4)
    few = len(histories) <= MAX_TRAINING
    for panel, (measure, label) in zip(axes, MEASURES, strict=True):
        for order, (rows, color) in reversed(list(enumerate(zip(histories, colors, strict=True)))):
            look: dict[str, Any] = {"color": color, "linewidth": 1.6 if few else 1.0, "alpha": 0.95 if few else 0.7, "zorder": 2}
            if order < num_best:
                look |= {"color": "black", "linewidth": 2.2, "alpha": 1.0, "zorder": 3}
            if few:
                _draw(panel, rows, f"train_{measure}", linestyle="--", **look)
            _draw(panel, rows, f"val_{measure}", **look)
        tidy(panel, x="epoch", y=label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    heights = np.array([height for line in axes[0].lines for height in np.asarray(line.get_ydata(), dtype=float)])
    heights = heights[np.isfinite(heights) & (heights > 0)]
    if len(heights) and heights.max() > WIDE_LOSS * heights.min():
        axes[0].set_yscale("log")
        if heights.max() > MOST_LOSS * heights.min():
            axes[0].set_ylim(0.8 * heights.min(), MOST_LOSS * heights.min())
            axes[0].set_title("larger losses are cut off", fontsize=9, loc="left")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[0].yaxis.set_minor_locator(NullLocator())
    if mapped is not None and len(distinct) > MAX_LEGEND:
        figure.colorbar(mapped, ax=axes, label=parameter, pad=0.02)
        axes[1].plot([], [], color="black", linewidth=2.2, label=BEST)
        axes[1].legend(frameon=False, fontsize=9, loc="lower right")
    else:
        _name_values(figure, distinct, parameter, log=log, numbers=numbers)
    set_title(figure, f"{title}: validation" + (" solid, training dashed" if few else ""))
    return figure


def _draw(axes: "Axes", rows: Sequence[Mapping[str, Any]], key: str, **look: Any) -> None:
    values = np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=np.float64)
    if np.isfinite(values).any():
        axes.plot([row["epoch"] for row in rows], values, marker="o" if len(rows) == 1 else "", markersize=4, **look)


def _name_values(figure: "Figure", distinct: Sequence[Any], parameter: str, *, log: bool, numbers: bool) -> None:
    """Put the values with their colours below the panels."""
    from matplotlib.lines import Line2D

    shown = list(distinct[:MAX_LEGEND])
    mapped = shades([float(value) for value in distinct], log=log) if numbers and distinct else None
    colors = [color_of(index) for index in range(len(shown))] if mapped is None else mapped.to_rgba(np.asarray(shown, dtype=np.float64))
    lines = [Line2D([], [], color=color, linewidth=2) for color in colors] + [Line2D([], [], color="black", linewidth=2.2)]
    names = [f"{value:.4g}" if isinstance(value, float) else in_legend(str(value)) for value in shown]
    more = f" (the first {MAX_LEGEND} of {len(distinct)})" if len(distinct) > MAX_LEGEND else ""
    figure.legend(
        lines,
        [*names, BEST],
        loc="outside lower center",
        ncols=min(len(lines), 7),
        frameon=False,
        fontsize=9,
        title=parameter + more,
        title_fontsize=9,
    )
