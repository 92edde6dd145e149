"""Checks of a run: what its recorded rows show, and what its saved network is like."""

from collections.abc import Mapping, Sequence
from typing import Any

from firstlight.engine.health import explodes, learned_nothing, median_norms, overfits
from firstlight.inspection.checks.check import Check, not_applicable
from firstlight.inspection.checks.network import DEAD_FAULT, DEAD_WARNING

Row = Mapping[str, Any]

SAME_ACCURACY = 2e-3
"""Share of images within which an evaluation on another machine may differ from the recorded one."""


def check_ending(info: Mapping[str, Any], state: str, epochs: Sequence[Row], report: Mapping[str, Any] | None) -> Check:
    """How a run ended: with its last epoch, or with numbers that broke. report: what its nan_report.json holds."""
    figures = {"state": state, "epochs": len(epochs), "rollbacks": len(info.get("rollbacks", []))}
    if report is not None and state == "failed":
        says = f"the run broke at step {report.get('step')}: {report.get('what')}"
        return Check("ending", "fault", says, "Lower optim.lr, or set train.clip_norm=1 or train.on_divergence=rollback.", figures)
    if figures["rollbacks"]:
        says = f"the run went back {figures['rollbacks']} times because its numbers broke"
        return Check("ending", "warning", says, "Lower optim.lr.", figures)
    return Check("ending", "ok", f"the run is {state} after {len(epochs)} epochs", "", figures)


def check_curve(epochs: Sequence[Row], num_classes: int) -> Check:
    """F7: a run whose loss stayed at ln(classes) learned nothing."""
    if not epochs:
        return not_applicable("training curve", "no epoch is recorded yet")
    known = [row for row in epochs if row.get("train_loss") is not None]
    if not known:
        return Check("training curve", "fault", "no epoch has a training loss that is a number", "Lower optim.lr, and train it anew.")
    best = min(known, key=lambda row: row["train_loss"])
    figures = {key: best.get(key) for key in ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy")}
    says = f"the lowest training loss is {best['train_loss']:.4f}, in epoch {best['epoch']} of {len(epochs)}"
    if learned_nothing(best["train_loss"], best.get("train_accuracy"), num_classes) or best["train_loss"] > known[0]["train_loss"] * 2:
        says = f"{says}: it never left that of guessing"
        return Check("training curve", "fault", says, "Look at the trials above: they say why nothing is learned.", figures)
    return Check("training curve", "ok", says, "", figures)


def check_gap(epochs: Sequence[Row]) -> Check:
    """A validation loss that rises while the training loss falls."""
    if not epochs or epochs[-1].get("val_loss") is None or any(row.get("train_loss") is None for row in epochs):
        return not_applicable("train/val gap", "no validation is recorded, or a loss is no number")
    last = epochs[-1]
    figures = {key: last.get(key) for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")}
    if (text := overfits(epochs)) is not None:
        return Check("train/val gap", "warning", text.partition("; ")[0], "Try train.patience, augmentation or weight decay.", figures)
    return Check(
        "train/val gap", "ok", f"the last losses are {last['train_loss']:.4f} (train) and {last['val_loss']:.4f} (val)", "", figures
    )


def check_gradient_history(steps: Sequence[Row], *, clipped: bool) -> Check:
    """Gradient norms of all recorded steps."""
    medians = median_norms(steps)
    if not medians:
        return not_applicable("gradient history", "no step is recorded")
    figures = {"median_by_epoch": medians}
    says = f"the gradient norm went from {medians[0]:.3g} in the first epoch to {medians[-1]:.3g} in the last (medians)"
    worst = next((text for end in range(1, len(medians) + 1) if (text := explodes(medians[:end]))), None)
    if worst is not None and not clipped:
        return Check("gradient history", "warning", worst.partition("; ")[0], "Lower optim.lr, or set train.clip_norm=1.", figures)
    return Check("gradient history", "ok", says, "", figures)


def check_saved_units(shares: Mapping[str, float]) -> Check:
    """Dead units of the saved network."""
    if not shares:
        return not_applicable("dead units, saved", "the network has no ReLU, sigmoid or tanh")
    layer = max(shares, key=shares.__getitem__)
    worst, figures = shares[layer], {"share_by_layer": dict(shares)}
    if worst < DEAD_WARNING:
        says = f"at most {worst:.0%} of the units of a layer of the saved network are dead ({layer})" if worst else "no unit is dead"
        return Check("dead units, saved", "ok", says, "", figures)
    says = f"{worst:.0%} of the units behind {layer} are dead in the saved network"
    return Check(
        "dead units, saved", "fault" if worst >= DEAD_FAULT else "warning", says, "Lower the learning rate, or take leaky_relu.", figures
    )


def check_reproduced(recorded: float | None, found: float, split: str, num_images: int) -> Check:
    """The saved network should reach the accuracy that the run says it has; one image may fall on the other side."""
    if recorded is None:
        return not_applicable("recorded accuracy", f"the run says nothing of its {split} accuracy")
    figures = {"recorded": recorded, "found": found}
    says = f"the saved network has {split} accuracy {found:.4f}; the run recorded {recorded:.4f}"
    if abs(recorded - found) > max(SAME_ACCURACY, 1.5 / num_images):
        return Check("recorded accuracy", "warning", says, "Were the data or the checkpoint changed since?", figures)
    return Check("recorded accuracy", "ok", says, "", figures)
