"""Checks of the data as the network sees them: their scale, whether they differ, whether parts overlap."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from firstlight.engine.memory import give_back_freed_memory
from firstlight.inspection.checks.check import Check
from firstlight.inspection.digests import MAX_DIGESTS, all_digests, are_among, num_distinct
from firstlight.inspection.trials import Loop, Trial

FAR_MEAN, NARROW, WIDE = 0.5, 0.5, 2.0
"""Mean and deviation of the input from which it counts as not normalised."""
VERY_FAR = 10.0
"""Mean or deviation from which that is a fault: pixels in 0..255."""
FEW_DISTINCT = 0.5
"""Share of distinct images below which most are copies."""
LEAK_WARNING, LEAK_FAULT = 0.002, 0.01
"""Share of the validation images that are training images too; a few twins are in many data sets."""
IMPLAUSIBLE = 5.0
"""Standard deviations by which validation accuracy may be above training accuracy."""


def check_input(loop: Loop) -> Check:
    """A15: the data as the network sees them should have mean 0 and deviation 1, roughly."""
    images = loop.train_images.double()
    mean, std = float(images.mean()), float(images.std())
    channels = {}
    if images.ndim == 4:
        channels = {"mean_by_channel": images.mean((0, 2, 3)).tolist(), "std_by_channel": images.std((0, 2, 3)).tolist()}
    figures = {"mean": mean, "std": std, "least": float(images.min()), "largest": float(images.max()), **channels}
    says = f"the input has mean {mean:.3g} and deviation {std:.3g}, from {figures['least']:.3g} to {figures['largest']:.3g}"
    if not torch.isfinite(images).all():
        return Check("input scale", "fault", "the input holds values that are no numbers", "Look at how the images are read.", figures)
    if _normalizes_itself(loop.model):
        return Check("input scale", "ok", f"{says}; the first layer normalises it", "", figures)
    if std == 0 or (abs(mean) <= FAR_MEAN and NARROW <= std <= WIDE):
        return Check("input scale", "ok", says, "", figures)
    verdict = "fault" if abs(mean) > VERY_FAR or std > VERY_FAR else "warning"
    advice = "Subtract the mean and divide by the deviation of the training images (input.normalize=channel)."
    return Check("input scale", verdict, f"{says}: it is not normalised", advice, figures)  # type: ignore[arg-type]


def _normalizes_itself(model: object) -> bool:
    """Tell whether the first layer that does anything is a normalisation."""
    if not isinstance(model, nn.Module):
        return False
    layers = [layer for layer in model.modules() if not list(layer.children()) and list(layer.state_dict())]
    return bool(layers) and isinstance(layers[0], _NormBase)


def check_distinct(loop: Loop) -> Check:
    """Images that are all the same say nothing about their labels."""
    images = loop.train_images
    num, distinct = len(images), num_distinct(all_digests(images))
    spread = float(images.double().std(0).mean()) if num > 1 else 0.0
    figures = {"num_images": num, "num_distinct": distinct, "mean_deviation_of_a_pixel": spread}
    if distinct == 1 or spread == 0:
        says = f"all {num:,} images that were looked at are the same"
        return Check(
            "distinct images", "fault", says, "Look at how images are read and transformed before they reach the network.", figures
        )
    if distinct < FEW_DISTINCT * num:
        says = f"only {distinct:,} of {num:,} images are distinct"
        return Check("distinct images", "warning", says, "Remove the copies, or look at how the images are read.", figures)
    return Check("distinct images", "ok", f"{distinct:,} of {num:,} images are distinct", "", figures)


def check_leak(train: Tensor, val: Tensor, *, split: str = "val") -> Check:
    """Images that are in the training part and in the part that judges it, in memory or streamed."""
    with give_back_freed_memory():
        known, asked = all_digests(train), all_digests(val)
    twins = int(are_among(asked, known).sum())
    share = twins / max(len(asked), 1)
    figures = {"num_twins": twins, "num_images": len(asked), "share": share}
    says = f"{twins:,} of {len(asked):,} {split} images are training images too, pixel by pixel"
    if len(train) > MAX_DIGESTS or len(val) > MAX_DIGESTS:
        says = f"{says} (by the first {MAX_DIGESTS:,} images of each part)"
    if share < LEAK_WARNING:
        return Check("leak", "ok", says, "", figures)
    advice = f"Take them out of the training part: as it is, {split} accuracy measures memory."
    return Check("leak", "fault" if share >= LEAK_FAULT else "warning", says, advice, figures)


def check_plausible(trial: Trial, num_train: int, num_val: int) -> Check:
    """A held-out accuracy well above that on training images is a sign of a leak or of a wrong evaluation."""
    return check_accuracies(trial.train_accuracy, trial.val_accuracy, num_train, num_val, when="after the trial")


def check_accuracies(train: float, val: float, num_train: int, num_val: int, *, when: str) -> Check:
    """Compare the accuracy on images of both parts, each seen in eval mode."""
    pooled = (train * num_train + val * num_val) / max(num_train + num_val, 1)
    deviation = max(pooled * (1 - pooled) * (1 / max(num_train, 1) + 1 / max(num_val, 1)), 1e-12) ** 0.5
    figures = {"train_accuracy": train, "val_accuracy": val, "deviations": (val - train) / deviation}
    says = f"accuracy {when} is {train:.3f} on training images and {val:.3f} on held-out ones"
    if val - train > max(IMPLAUSIBLE * deviation, 0.02):
        advice = "Look for held-out images that training sees, or easier ones in the held-out part."
        return Check("held-out accuracy", "warning", f"{says}: the held-out one is implausibly high", advice, figures)
    return Check("held-out accuracy", "ok", says, "", figures)
