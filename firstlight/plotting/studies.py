"""Pictures of a study: the response to one parameter with its spread, and of two as a map with both margins."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.style import PALETTE, new_figure, plain, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_WRITTEN = 144
"""Cells of a map that have their figure written in them."""


def plot_response(
    values: Sequence[Any],
    figures: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float]],
    *,
    parameter: str,
    objective: str,
    log: bool,
    title: str,
) -> "Figure":
    """Return the objective over one parameter: each seed as a dot, the mean as a line, a 95 % interval as a bar where there are seeds.

    values: of the parameter, numbers in order or names; figures: of each value, one number a seed, none where all diverged;
    intervals: low and high end of each mean's interval, NaN where there is none.
    """
    from matplotlib.ticker import MaxNLocator

    from_names = not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: NDArray[np.float64] = np.arange(len(values), dtype=np.float64) if from_names else np.asarray(values, dtype=np.float64)
    means = np.array([np.mean(column) if len(column) else np.nan for column in figures])
    figure, (axes,) = new_figure(width=7.5, height=4.2)
    ends = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    has_bars = bool(np.isfinite(ends).any())
    bars = {"yerr": np.nan_to_num([means - ends[:, 0], ends[:, 1] - means]), "capsize": 4} if has_bars else {}
    label = "mean, 95 % interval" if has_bars else "one seed" if max(map(len, figures), default=0) == 1 else "mean"
    axes.errorbar(places, means, color=PALETTE[0], marker="o", markersize=6, linewidth=1.6, label=label, **bars)
    if has_bars:
        dots = [(place, figure) for place, column in zip(places, figures, strict=True) for figure in column]
        axes.plot(*zip(*dots, strict=True), marker="x", markersize=5, linestyle="", color=PALETTE[1], zorder=4, label="one seed")
        axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    for place, column in zip(places, figures, strict=True):
        if not len(column):
            axes.axvline(place, color=PALETTE[1], linestyle=":", linewidth=1)
    if from_names:
        axes.set_xticks(places, [plain(str(value)) for value in values])
    elif log:
        axes.set_xscale("log")
    elif all(isinstance(value, int) for value in values):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    most = max((len(column) for column in figures), default=0)
    tidy(axes, x=parameter, y=objective)
    lost = sum(not len(column) for column in figures)
    set_title(
        figure, f"{title}; {most} seed{'s' if most != 1 else ''} a value" + (f", dotted where every seed diverged ({lost})" if lost else "")
    )
    return figure


def plot_map(
    rows: Sequence[Any], columns: Sequence[Any], means: Any, *, names: tuple[str, str], objective: str, title: str, higher_is_better: bool
) -> "Figure":
    """Return the mean objective of each pair of values as a map, with the best of each row and column as curves at its margins.

    rows, columns: values of the two parameters, names: theirs; means: array [rows, columns], NaN where no seed ended with a figure.
    """
    table = np.asarray(means, dtype=np.float64)
    figure, axes = new_figure(2, 2, width=8.6, height=7.4, width_ratios=(3.2, 1), height_ratios=(1, 3.2))
    top, corner, centre, right = axes
    corner.axis("off")
    image = centre.imshow(table, aspect="auto", origin="lower", cmap="viridis" if higher_is_better else "viridis_r")
    _name_ticks(centre, rows, columns)
    tidy(centre, x=names[1], y=names[0])
    centre.grid(visible=False)
    if table.size <= MAX_WRITTEN:
        middle = np.nanmean([np.nanmin(table), np.nanmax(table)]) if np.isfinite(table).any() else 0.0
        for (row, column), value in np.ndenumerate(table):
            text = f"{value:.3f}" if np.isfinite(value) else "div."
            bright = np.isfinite(value) and ((value > middle) == higher_is_better)
            centre.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=6.5,
                clip_on=True,
                color="black" if bright or not np.isfinite(value) else "white",
            )
    best = np.nanmax if higher_is_better else np.nanmin
    top.plot(range(len(columns)), [_or_nan(best, table[:, column]) for column in range(len(columns))], marker="o", color=PALETTE[0])
    right.plot([_or_nan(best, table[row]) for row in range(len(rows))], range(len(rows)), marker="o", color=PALETTE[0])
    top.set_xlim(-0.5, len(columns) - 0.5)
    right.set_ylim(-0.5, len(rows) - 0.5)
    for panel in (top, right):
        panel.tick_params(labelbottom=panel is right, labelleft=panel is top)
    top.set_xticks(range(len(columns)))
    right.set_yticks(range(len(rows)))
    tidy(top, x="", y=f"best {objective}")
    tidy(right, x=f"best {objective}", y="")
    figure.colorbar(image, ax=right, label=f"mean {objective}")
    set_title(figure, title)
    return figure


def _name_ticks(axes: "Axes", rows: Sequence[Any], columns: Sequence[Any]) -> None:
    axes.set_xticks(range(len(columns)), [_short(value) for value in columns], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [_short(value) for value in rows], fontsize=8)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else plain(str(value))


def _or_nan(best: Any, values: NDArray[np.float64]) -> float:
    return float(best(values)) if np.isfinite(values).any() else float("nan")
