"""Signs that a training goes nowhere, read from rows that are written anyway. `Watch` warns of each once, at the end of an epoch.

Reading order: learned_nothing, stuck, overfits, explodes, Watch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, Any]

AT_CHANCE = 0.02
"""A loss so near (relatively) to ln(classes) is that of a network which learned nothing, if its accuracy agrees."""
LONG_ENOUGH = 200
"""Optimizer steps before a loss at ln(classes) is a sign: some networks stand there for the first hundred."""
EPOCHS_RISING = 3
"""Epochs in a row in which the validation loss must have risen before it counts."""
RISE = 1.25
"""Times its smallest value to which it must have risen."""
HUGE = 1e3
"""Median gradient norm of an epoch that is never usual; trainings that work have 0.01 to 30."""
GROWTH = 100.0
"""Times the first epoch's median gradient norm."""


def learned_nothing(loss: float | None, accuracy: float | None, num_classes: int) -> bool:
    """F7: tell whether a loss is stuck at ln(classes), with an accuracy below twice that of guessing."""
    chance = math.log(num_classes)
    return loss is not None and abs(loss - chance) < AT_CHANCE * chance and (accuracy or 0.0) < 2 / num_classes


def stuck(epochs: Sequence[Row], num_classes: int) -> str | None:
    """Return what to say where the training loss stood at ln(classes) in the last two epochs; rows of epochs, oldest first."""
    last = epochs[-2:]
    learned = [not learned_nothing(row.get("train_loss"), row.get("train_accuracy"), num_classes) for row in last]
    if not last or any(learned) or last[-1]["step"] < LONG_ENOUGH or (len(last) == 1 and last[-1]["step"] < 2 * LONG_ENOUGH):
        return None
    chance = math.log(num_classes)
    return (
        f"the training loss still stands at ln({num_classes}) = {chance:.3f} after {last[-1]['step']:,} steps: nothing is learned; "
        f"`firstlight inspect health` looks for the reason"
    )


def overfits(epochs: Sequence[Row]) -> str | None:
    """Return what to say where the validation loss rises epoch after epoch while the training loss falls."""
    losses = [row.get("val_loss") for row in epochs]
    if len(losses) <= EPOCHS_RISING or any(loss is None for loss in losses):
        return None
    vals = [float(loss) for loss in losses if loss is not None]
    best = min(range(len(vals)), key=vals.__getitem__)
    rising = all(after > before for before, after in zip(vals[-EPOCHS_RISING - 1 :], vals[-EPOCHS_RISING:], strict=False))
    if not rising or vals[-1] < RISE * vals[best] or not epochs[-1]["train_loss"] < epochs[best]["train_loss"]:
        return None
    return (
        f"the validation loss rose from {vals[best]:.4f} (epoch {epochs[best]['epoch']}) to {vals[-1]:.4f} while the training loss fell to "
        f"{epochs[-1]['train_loss']:.4f}: it overfits; try train.patience, augmentation, dropout or weight decay"
    )


def explodes(medians: Sequence[float]) -> str | None:
    """Return what to say where gradient norms are huge, or grew far beyond those of the first epoch; medians of epochs, oldest first."""
    if not medians or not (medians[-1] > HUGE or medians[-1] > max(GROWTH * medians[0], 1.0)):
        return None
    return f"the gradient norm reached {medians[-1]:.3g} (median of an epoch): it explodes; try a smaller optim.lr, or train.clip_norm=1"


def unmoved(names: Sequence[str]) -> str | None:
    """Return what to say of weights that the first epoch did not move."""
    if not names:
        return None
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"the first epoch did not move {shown}: no gradient gets there; `firstlight inspect health` looks for the reason"


def median_norms(steps: Iterable[Row]) -> list[float]:
    """Return the median gradient norm of each epoch, oldest first; rows of steps."""
    epochs: dict[int, list[float]] = {}
    for row in steps:
        if row.get("grad_norm") is not None:
            epochs.setdefault(row.get("epoch", 1), []).append(row["grad_norm"])
    return [median(epochs[number]) for number in sorted(epochs)]


def weight_norms(model: Any) -> "dict[str, Tensor]":
    """Return the norms of all trained weights (no biases, no scales), on the device."""
    import torch  # late: studies that are only read need none

    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad and value.ndim >= 2}
    return dict(zip(weights, torch._foreach_norm(list(weights.values())), strict=True)) if weights else {}


class Watch:
    """Looks at the rows of a training as they come, and says each thing once.

    rows: those that were written before; said: what was warned of then.
    """

    def __init__(self, rows: Iterable[Row], said: Iterable[str], *, num_classes: int, clipped: bool) -> None:
        self.num_classes, self.clipped = num_classes, clipped
        self.said = set(said)
        rows = list(rows)
        self.epochs = [row for row in rows if row["kind"] == "epoch"]
        done = {row["epoch"] for row in self.epochs}
        steps = [row for row in rows if row["kind"] == "step"]
        self.medians = median_norms(row for row in steps if row.get("epoch") in done)
        self.norms = [row["grad_norm"] for row in steps if row.get("epoch") not in done and row.get("grad_norm") is not None]

    def close_epoch(self, row: Row, still: Sequence[str] = ()) -> dict[str, str]:
        """Take the row of an epoch that ended, and return what is new to be said, by kind. still: weights that it did not move."""
        self.epochs.append(row)
        if self.norms:
            self.medians.append(median(self.norms))
            self.norms = []
        found = {
            "stuck": stuck(self.epochs, self.num_classes),
            "overfits": overfits(self.epochs),
            "explodes": None if self.clipped else explodes(self.medians),
            "unmoved": unmoved(still),
        }
        new = {kind: text for kind, text in found.items() if text is not None and kind not in self.said}
        self.said |= new.keys()
        return new
