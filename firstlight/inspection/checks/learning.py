"""Checks by short trainings: one batch by heart, real against constant images and against shuffled labels, three learning rates."""

import math
from collections.abc import Mapping

from firstlight.inspection.checks.check import Check, Verdict, above_chance, chance_of, not_applicable, show_loss
from firstlight.inspection.trials import Loop, Trial

BY_HEART = 0.1
"""Share of ln(classes) that the loss on one batch should fall below."""
STUCK = 0.02
"""Share of ln(classes) within which a loss counts as that of guessing."""
SURE = 4.0
"""Standard errors by which real images must do better than constant ones."""
NO_FASTER = 1.25
"""Real labels that are learned no more than so much better than shuffled ones carry nothing."""
OFF_COURSE = 0.5
"""Sine of the angle from which a step follows other labels than those it was given."""
TOO_HIGH, TOO_LOW = 0.5, 0.2
"""Share of what a tenth of (ten times) the learning rate achieves."""
SOME, LITTLE = 0.1, 0.05
"""Progress is what a loss fell below ln(classes), as a share of it; so much counts as some, and less than this as none."""


def progress(loop: Loop, trial: Trial) -> float:
    """Return how far a trial brought the loss from guessing (0) towards 0 (1)."""
    return max(0.0, 1 - trial.end / loop.chance)


def check_overfit(loop: Loop, one: Trial, num_images: int) -> Check:
    """A15: a network that works can learn a few images by heart."""
    figures = {"steps": list(one.steps), "losses": list(one.losses), "num_images": num_images, "lowest": one.lowest}
    says = f"{one.steps[-1]} steps on the same {num_images} images bring the loss to {show_loss(one.lowest)}"
    if one.lowest < BY_HEART * loop.chance:
        return Check("one batch", "ok", says, "", figures)
    if one.lowest < 0.5 * loop.chance:
        advice = "It learns, but slowly: raise the learning rate, or take less regularisation, until one batch can be learned by heart."
        return Check("one batch", "warning", says, advice, figures)
    advice = "A loop that cannot learn one batch by heart has a mistake: look at the loss, the labels, the learning rate and the gradients."
    return Check("one batch", "fault", f"{says}: it cannot learn them by heart", advice, figures)


def check_learning(loop: Loop, real: Trial) -> Check:
    """F7: a training that goes nowhere stands at ln(classes) with an accuracy of guessing."""
    chance, num = chance_of(loop.val_labels, loop.num_classes), len(loop.val_labels)
    figures = {"loss": real.end, "ln_classes": loop.chance, "val_accuracy": real.val_accuracy, "chance": chance, "steps": real.steps[-1]}
    steps, accuracy = real.steps[-1], real.val_accuracy
    says = f"after {steps} steps the loss is {show_loss(real.end)} and held-out accuracy {accuracy:.3f} (guessing: {chance:.3f})"
    if above_chance(real.val_accuracy, chance, num):
        return Check("learning", "ok", says, "", figures)
    stuck = real.end > (1 - STUCK) * loop.chance
    advice = "Look at the other findings first; where there are none, give it more steps (--steps) or another learning rate."
    verdict: Verdict = "fault" if stuck else "warning"
    return Check("learning", verdict, f"{says}: it {'learned nothing' if stuck else 'does no better than guessing'}", advice, figures)


def check_uses_input(loop: Loop, real: Trial, constant: Trial) -> Check:
    """A15: a network that sees the images must do better than one that sees the same grey image each time."""
    if not (math.isfinite(real.end) and math.isfinite(constant.end)):
        return not_applicable("uses its input", "a trial ended with a loss that is no number")
    gained = constant.last - real.last
    error = float(gained.std()) / math.sqrt(len(gained)) if len(gained) > 1 else math.inf
    gain = float(gained.mean())
    figures = {"loss": real.end, "loss_on_constant_images": constant.end, "gain": gain, "standard_error": error}
    says = f"the loss after the trial is {show_loss(real.end)} on real images and {show_loss(constant.end)} on constant ones"
    if gain > SURE * error and gain > 0:
        return Check("uses its input", "ok", says, "", figures)
    advice = "The images make no difference: look at what reaches the network (constant, blank or mixed-up images, dead units)."
    return Check("uses its input", "fault", says, advice, figures)


def check_labels(loop: Loop, real: Trial, shuffled: Trial, one: Trial, off_course: float) -> Check:
    """Labels that belong to their images are learned faster than shuffled ones, and shuffled ones teach nothing about other images."""
    name, start, least = "labels", loop.chance, STUCK * loop.chance
    fall, fall_shuffled = start - real.end, start - shuffled.end
    chance, num = chance_of(loop.val_labels, loop.num_classes), len(loop.val_labels)
    figures = {
        "fall": fall,
        "fall_on_shuffled_labels": fall_shuffled,
        "val_accuracy": real.val_accuracy,
        "val_accuracy_on_shuffled_labels": shuffled.val_accuracy,
        "chance": chance,
        "off_course": off_course,
    }
    # a guesser that takes all images of a class for one other class is right by luck on whole classes, not on single images
    lucky = chance + 4 * math.sqrt(chance * (1 - chance) / min(loop.num_classes, num))
    if shuffled.val_accuracy > max(lucky, 0.5 * (chance + real.val_accuracy)):
        says = f"trained on shuffled labels it still gets {shuffled.val_accuracy:.3f} of the held-out images right"
        return Check(name, "fault", says, "The evaluation does not measure what was trained: look at what it compares.", figures)
    says = f"held-out accuracy is {real.val_accuracy:.3f} with the labels and {shuffled.val_accuracy:.3f} with shuffled ones"
    if real.val_accuracy > lucky:
        return Check(name, "ok", says, "", figures)
    if off_course > OFF_COURSE:
        wrong = "a step does not follow the gradient of the cross-entropy on the labels that it was given"
        advice = "Look at what the step does with the labels: shuffled apart from the images, or another loss?"
        return Check(name, "fault", wrong, advice, figures)
    if one.lowest < 0.5 * start and fall < NO_FASTER * max(fall_shuffled, 0.0) + least:
        says = f"the labels are learned no better than shuffled ones (loss {show_loss(real.end)} against {show_loss(shuffled.end)})"
        advice = (
            "The labels say nothing about the images: look whether images and labels were put into another order apart from each other."
        )
        return Check(name, "fault", says, advice, figures)
    return Check(name, "not applicable", "the network learned too little to judge the labels", "", figures)


def check_lr(loop: Loop, trials: Mapping[float, Trial]) -> Check:
    """A learning rate beside a tenth of it, ten times it, and others where none of these learned; trials: by the factor on the lr."""
    if loop.optimizer is None:
        return not_applicable("learning rate", "the optimizer was not given, so the learning rate cannot be changed")
    lr, real = loop.lrs[0], trials[1.0]
    reached = {factor: progress(loop, trial) for factor, trial in sorted(trials.items())}
    losses = {f"{lr * factor:.3g}": trials[factor].end for factor in reached}
    figures = {"lr": lr, "losses": losses, "progress": list(reached.values())}
    says = f"the loss after the trial is {', '.join(f'{show_loss(loss)} at lr {rate}' for rate, loss in losses.items())}"
    lower = max((factor for factor in reached if factor < 1), key=reached.__getitem__)
    closer = f"Try {lr * lower:.3g}; `firstlight tune lr` looks closer."
    verdict: Verdict
    if reached[lower] > SOME and reached[1.0] < TOO_HIGH * reached[lower]:
        verdict = "fault" if reached[1.0] < LITTLE else "warning"
        return Check("learning rate", verdict, f"{says}: {lr:.3g} is too high", closer, figures)
    if not math.isfinite(real.end):
        return Check("learning rate", "fault", f"{says}: the training diverges", f"Try {lr / 1000:.3g} or less.", figures)
    higher = max((factor for factor in reached if factor > 1), key=reached.__getitem__)
    if reached[higher] > SOME and reached[1.0] < TOO_LOW * reached[higher]:
        advice = f"Try {lr * higher:.3g}; `firstlight tune lr` looks closer."
        verdict = "fault" if higher > 10 else "warning"
        return Check("learning rate", verdict, f"{says}: {lr:.3g} is too low, or needs many more steps", advice, figures)
    if max(reached.values()) < LITTLE:
        return Check("learning rate", "not applicable", f"{says}: none of them learns", "", figures)
    return Check("learning rate", "ok", says, "", figures)
