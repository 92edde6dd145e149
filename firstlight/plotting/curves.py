"""Curves of training: loss and accuracy by epoch for one or several runs, loss and learning rate by step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.style import MAX_LEGEND, PALETTE, color_of, in_legend, marker_of, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Histories = Mapping[str, Sequence[Row]]

MEASURES = (("loss", "cross-entropy loss (nats)"), ("accuracy", "accuracy (share of images)"))


def plot_curves(histories: Histories) -> "Figure":
    """Return loss and accuracy by epoch, training dashed and validation solid, for each named run on the same axes.

    A row holds `epoch`, `train_loss`, `train_accuracy` and, where there was validation, `val_loss`, `val_accuracy` and `best`.
    """
    figure, axes = new_figure(1, 2, width=11, height=4.2)
    longest = max((row["epoch"] for rows in histories.values() for row in rows), default=1)
    for panel, (measure, label) in zip(axes, MEASURES, strict=True):
        for index, (name, rows) in enumerate(histories.items()):
            if len(histories) == 1:
                _draw_run(panel, rows, measure, (PALETTE[0], PALETTE[1]), ("training", "validation", "best epoch"))
            else:
                _draw_run(panel, rows, measure, (color_of(index), color_of(index)), _one_label(name, rows, measure), marker_of(index))
        tidy(panel, x="epoch", y=label)
        _whole_epochs(panel, longest)
    _add_legend(figure, axes[0], columns=3 if len(histories) == 1 else 2)
    set_title(figure, _title(histories))
    return figure


def plot_steps(rows: Sequence[Row]) -> "Figure":
    """Return the loss of each optimizer step above the learning rate that the step was made at; a row holds `step`, `loss`, `lr`."""
    figure, (upper, lower) = new_figure(2, 1, width=9, height=5.5, sharex=True, height_ratios=(2, 1))
    steps, losses = _values(rows, "step"), _values(rows, "loss")
    marker = "o" if len(rows) == 1 else ""
    window = len(rows) // 50
    upper.plot(steps, losses, color=PALETTE[0], linewidth=0.7, alpha=0.45 if window > 1 else 1, marker=marker, label="each step")
    if window > 1:
        upper.plot(steps, smooth(losses, window), color=PALETTE[0], linewidth=1.8, label=f"mean of {window:,} steps")
    if (losses > 0).any():
        upper.set_yscale("log")
    upper.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    tidy(upper, x="", y="training loss (nats)")
    lower.plot(steps, _values(rows, "lr"), color=PALETTE[1], linewidth=1.8, marker=marker)
    tidy(lower, x="optimizer step", y="learning rate")
    _whole_epochs(lower, 1 if len(rows) == 1 else 2, at=steps[0] if len(rows) else 1)
    set_title(figure, f"Training loss and learning rate up to step {int(steps[-1]) if len(rows) else 0:,}")
    return figure


def smooth(values: Sequence[float] | NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of the last `window` values at each place, or of those that are there; NaN is left out of a mean."""
    column = np.asarray(values, dtype=np.float64)
    there = np.isfinite(column)
    level = column[there].mean() if there.any() else 0.0  # sums of deviations stay small, so that their differences stay exact
    sums = np.concatenate([[0.0], np.cumsum(np.where(there, column - level, 0.0))])
    counts = np.concatenate([[0], np.cumsum(there)])
    ends = np.arange(1, len(column) + 1)
    begins = np.maximum(ends - window, 0)
    num = counts[ends] - counts[begins]
    means: NDArray[np.float64] = np.divide(sums[ends] - sums[begins], num, out=np.full(len(column), np.nan), where=num > 0) + level
    return means


def _draw_run(
    axes: "Axes", rows: Sequence[Row], measure: str, colors: tuple[str, str], labels: Sequence[str | None], marker: str = ""
) -> None:
    """Draw training, validation and best epoch of one run, in these colours and under these labels."""
    epochs, train, val = (_values(rows, key) for key in ("epoch", f"train_{measure}", f"val_{measure}"))
    look: dict[str, Any] = {"marker": marker or ("o" if len(rows) == 1 else ""), "markersize": 4, "markevery": max(len(rows) // 10, 1)}
    axes.plot(epochs, train, color=colors[0], linestyle="--", label=labels[0], **look)
    if not np.isfinite(val).any():
        return
    axes.plot(epochs, val, color=colors[1], label=labels[1], **look)
    best = _best(rows)
    if best is not None and best.get(f"val_{measure}") is not None:
        axes.plot(best["epoch"], best[f"val_{measure}"], marker="*", markersize=12, linestyle="", color=colors[1], label=labels[2])


def _one_label(name: str, rows: Sequence[Row], measure: str) -> tuple[str | None, str | None, None]:
    """Return labels that name a run once: at its validation, or at its training where it has none."""
    label = in_legend(name)
    return (None, label, None) if np.isfinite(_values(rows, f"val_{measure}")).any() else (label, None, None)


def _whole_epochs(axes: "Axes", longest: int, at: float = 1) -> None:
    """Put ticks at whole numbers alone, and the point of a single epoch in the middle."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if longest == 1:
        axes.set_xlim(at - 1, at + 1)


def _add_legend(figure: "Figure", axes: "Axes", columns: int) -> None:
    """Put the legend below the panels; of too many runs the first are named, and how many more there are is said."""
    handles, labels = axes.get_legend_handles_labels()
    more = len(labels) - MAX_LEGEND
    figure.legend(
        handles[:MAX_LEGEND],
        labels[:MAX_LEGEND],
        loc="outside lower center",
        ncols=max(min(len(labels), columns), 1),
        frameon=False,
        fontsize=9,
        title=f"the first {MAX_LEGEND} runs; {more} more are drawn" if more > 0 else None,
        title_fontsize=9,
    )


def _title(histories: Histories) -> str:
    if len(histories) != 1:
        return f"{len(histories)} runs: training dashed, validation solid, a star at the best epoch"
    name, rows = next(iter(histories.items()))
    best = _best(rows)
    if best is None or best.get("val_accuracy") is None:
        return f"{name}: loss and accuracy by epoch"
    return f"{name}: validation accuracy {best['val_accuracy']:.4f} at the best epoch, {best['epoch']}"


def _best(rows: Sequence[Row]) -> Row | None:
    """Return the last row that was the best so far."""
    return next((row for row in reversed(rows) if row.get("best")), None)


def _values(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """Return a column; what is missing (or was not finite, and stored as null) becomes NaN, which leaves a gap."""
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=np.float64)
