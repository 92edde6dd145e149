"""Curves of training: loss and accuracy by epoch for one or several runs, loss and learning rate by step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.style import MAX_LEGEND, PALETTE, color_of, new_figure, tidy

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
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(1, 2, width=11, height=4.2)
    for panel, (measure, label) in zip(axes, MEASURES, strict=True):
        for index, (name, rows) in enumerate(histories.items()):
            _draw_run(panel, rows, measure, name if len(histories) > 1 else "", color_of(index))
        tidy(panel, x="epoch", y=label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(figure, axes[0], len(histories))
    figure.suptitle(_title(histories), fontsize=11)
    return figure


def plot_steps(rows: Sequence[Row]) -> "Figure":
    """Return the loss of each optimizer step above the learning rate that the step was made at; a row holds `step`, `loss`, `lr`."""
    figure, (upper, lower) = new_figure(2, 1, width=9, height=5.5, sharex=True, height_ratios=(2, 1))
    steps = [row["step"] for row in rows]
    losses = _values(rows, "loss")
    upper.plot(steps, losses, color=PALETTE[0], linewidth=0.5, alpha=0.35, label="each step")
    upper.plot(steps, smooth(losses, max(len(rows) // 50, 1)), color=PALETTE[0], linewidth=1.6, label="running mean")
    if any(loss > 0 for loss in losses):
        upper.set_yscale("log")
    upper.legend(frameon=False, fontsize=9)
    tidy(upper, x="", y="training loss (nats)")
    lower.plot(steps, _values(rows, "lr"), color=PALETTE[1], linewidth=1.6)
    tidy(lower, x="optimizer step", y="learning rate")
    figure.suptitle(f"Training loss and learning rate over {len(rows):,} steps", fontsize=11)
    return figure


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values at each place; where fewer are there, of those."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def _draw_run(axes: "Axes", rows: Sequence[Row], measure: str, name: str, color: str) -> None:
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else ""
    val_color = color if name else PALETTE[1]
    prefix = f"{name} " if name else ""
    axes.plot(epochs, _values(rows, f"train_{measure}"), color=color, linestyle="--", marker=marker, label=f"{prefix}train")
    if any(row.get(f"val_{measure}") is not None for row in rows):
        axes.plot(epochs, _values(rows, f"val_{measure}"), color=val_color, marker=marker, label=f"{prefix}validation")
    best = [row for row in rows if row.get("best") and row.get(f"val_{measure}") is not None]
    if best:
        label = None if name else "best epoch"
        axes.plot(best[-1]["epoch"], best[-1][f"val_{measure}"], marker="*", markersize=12, linestyle="", color=val_color, label=label)


def _add_legend(figure: "Figure", axes: "Axes", num_runs: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MAX_LEGEND:
        handles, labels = handles[:MAX_LEGEND], [*labels[: MAX_LEGEND - 1], f"and {len(labels) - MAX_LEGEND + 1} more"]
    columns = min(len(labels), 4 if num_runs == 1 else 2)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(columns, 1), frameon=False, fontsize=9)


def _title(histories: Histories) -> str:
    if len(histories) > 1:
        return f"{len(histories)} runs: training dashed, validation solid, a star at the best epoch"
    name, rows = next(iter(histories.items()))
    best = [row for row in rows if row.get("best") and row.get("val_accuracy") is not None]
    return f"{name}: best validation accuracy {best[-1]['val_accuracy']:.4f} at epoch {best[-1]['epoch']}" if best else name


def _values(rows: Sequence[Row], key: str) -> list[float]:
    """Return a column; what is missing (or was not finite, and stored as null) becomes NaN, which leaves a gap."""
    return [float("nan") if row.get(key) is None else float(row[key]) for row in rows]
