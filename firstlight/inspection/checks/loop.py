"""Checks of the loop: gradients that are cleared, one softmax and not two, evaluation that leaves the network alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from firstlight.errors import ConfigError
from firstlight.inspection.checks.check import Check, not_applicable
from firstlight.inspection.trials import Loop, gradients_of_loss, gradients_of_step, named_parameters

SAME_GRADIENT = 1e-2
"""Relative distance within which two gradients are the same; float32 on a GPU stays within 1e-4, bfloat16 within 1e-2 of itself."""
ANOTHER_GRADIENT = 0.5
"""Sine of the angle from which a step follows another gradient than that of its labels; label smoothing and weight decay stay far below."""
TINY_LR = 1e-3
"""Times the learning rate of a step whose gradients are compared: the weights should hardly move between two."""


@dataclass(frozen=True)
class StepSeen:
    """What one step showed. off_course: sine of the angle between its gradient and that of the cross-entropy on its labels; NaN where
    it could not be compared."""

    check: Check
    softmax: Check
    off_course: float


def check_step(loop: Loop) -> StepSeen:
    """B5: does a step clear the gradients, compute them, and move; and is it the gradient of one softmax and not of two."""
    if loop.optimizer is None:
        why = "the optimizer was not given, so what it sees is not known"
        return StepSeen(not_applicable("training step", why), _check_outputs(loop) or not_applicable("softmax", why), math.nan)
    base = [lr * TINY_LR for lr in loop.lrs]
    with loop.untouched():
        loop.scale_lr(base)
        start = {name: value.detach().clone() for name, value in named_parameters(loop.model)}
        first = gradients_of_step(loop, *loop.batch(0), seed=0)
        moved = any(not torch.equal(value.detach(), start[name]) for name, value in named_parameters(loop.model))
        with_rest = gradients_of_step(loop, *loop.batch(1), seed=1)
    with loop.untouched():
        loop.scale_lr(base)
        gradients_of_step(loop, *loop.batch(0), seed=0)
        loop.clear_gradients()
        alone = gradients_of_step(loop, *loop.batch(1), seed=1)
    with loop.untouched():
        one = gradients_of_loss(loop, *loop.batch(0), seed=0)
    with loop.untouched():
        two = gradients_of_loss(loop, *loop.batch(0), seed=0, softmax_first=True)
    seen = {name: torch.zeros_like(one[name]) if (slope := first.gradients.get(name)) is None else slope for name in one}
    off_course, softmax = _check_softmax(loop, _flat(seen), _flat(one), _flat(two))
    return StepSeen(_judge_step(first, with_rest, alone, moved), softmax, off_course)


def _judge_step(first: Any, with_rest: Any, alone: Any, moved: bool) -> Check:
    name = "training step"
    if first.calls == 0:
        says = "a step never calls the optimizer" + ("" if moved else ", and no weight moves")
        return Check(name, "fault", says, "Call optimizer.step() behind loss.backward().")
    if all(slope is None for slope in first.gradients.values()):
        return Check(name, "fault", "the optimizer is called without any gradient", "Call loss.backward() ahead of optimizer.step().")
    if with_rest.calls != 1 or alone.calls != 1:
        return not_applicable(name, "the optimizer is not called once a step")
    distance = _distance(with_rest.flat, alone.flat)
    figures = {"leftover": distance}
    if distance > SAME_GRADIENT:
        says = f"gradients of earlier batches are still there: they change the gradient of a step by {distance:.0%} of its size"
        return Check(name, "fault", says, "Call optimizer.zero_grad() ahead of loss.backward().", figures)
    if first.was_training is False:
        says = "the network is trained in eval mode: dropout is off and batch normalisation learns no statistics"
        return Check(name, "warning", says, "Call model.train() at the start of each epoch.", figures)
    if not math.isfinite(distance):
        return not_applicable(name, "the gradients are no numbers")
    return Check(name, "ok", "each step clears the gradients, computes them and moves the weights", "", figures)


def _check_softmax(loop: Loop, seen: Tensor, one: Tensor, two: Tensor) -> tuple[float, Check]:
    """Return how far the step's gradient points away from that of the loss, and whether it is that of a second softmax."""
    off_course = _sine(seen, one)
    if (found := _check_outputs(loop)) is not None:
        return off_course, found
    figures = {"distance_to_one": _distance(seen, one), "distance_to_two": _distance(seen, two), "off_course": off_course}
    if not math.isfinite(off_course):
        return off_course, not_applicable("softmax", "the gradients are 0 or no numbers")
    if figures["distance_to_two"] < 0.05 and figures["distance_to_one"] > 0.3:
        says = "the loss takes the softmax twice: its gradient is that of cross_entropy(softmax(logits))"
        return off_course, Check("softmax", "fault", says, "Hand the logits to cross_entropy: it takes the softmax itself.", figures)
    return off_course, Check("softmax", "ok", "the network returns logits, and the loss takes the softmax once", "", figures)


def _check_outputs(loop: Loop) -> Check | None:
    """Return a fault where the outputs are probabilities already."""
    with loop.untouched(), torch.no_grad():
        loop.model.eval()
        outputs = loop.forward(loop.model, loop.batch(0)[0]).double()
    sums = float((outputs.sum(1) - 1).abs().max())
    if float(outputs.min()) < 0 or not sums < 1e-3:
        return None
    says = "the network returns probabilities (they add up to 1), and cross-entropy takes the softmax a second time"
    return Check("softmax", "fault", says, "Leave out the softmax at the end of the network.", {"largest_deviation_of_sums": sums})


def check_evaluation(loop: Loop) -> Check:
    """An evaluation should change nothing and say the same again."""
    name = "evaluation"
    modes: list[bool] = []
    with loop.untouched(), _ModesTold(loop.model, modes.append):
        start = {key: value.detach().clone() for key, value in loop.model.state_dict().items()}
        figures = []
        for turn in range(2):
            loop.seed_all(4, turn)
            figures.append(checked_accuracy(loop.evaluate(loop.model, loop.val_images, loop.val_labels)))
        changed = [key for key, value in loop.model.state_dict().items() if not torch.equal(value.detach(), start[key])]
    facts = {"accuracies": figures, "changed": changed, "in_train_mode": any(modes)}
    advice = "Call model.eval() ahead of the evaluation, compute under torch.no_grad(), and call model.train() behind it."
    if any(modes):
        says = "dropout or batch normalisation is in training mode while the network is evaluated"
        return Check(name, "fault", says, advice, facts)
    if changed:
        return Check(name, "fault", f"an evaluation changes the network ({', '.join(changed[:3])})", advice, facts)
    if figures[0] != figures[1] and not all(map(math.isnan, figures)):
        says = f"the same network evaluated twice has accuracy {figures[0]:.4f} and then {figures[1]:.4f}"
        return Check(name, "fault", says, advice, facts)
    return Check(name, "ok", "an evaluation gives the same figure twice and leaves the network as it was", "", facts)


def checked_accuracy(value: object) -> float:
    """Return what `evaluate` returned as a number. Raises ConfigError where it is no accuracy."""
    try:
        accuracy = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        accuracy = math.inf
    if not (0 <= accuracy <= 1 or math.isnan(accuracy)):
        raise ConfigError(f"evaluate returned {value!r}, which is no accuracy; return the share of images that are right, 0 to 1")
    return accuracy


class _ModesTold:
    """Tells, while its block runs, the mode of each dropout and batch normalisation that is passed."""

    def __init__(self, model: Any, tell: Callable[[bool], None]) -> None:
        self.model, self.tell = model, tell
        self.hooks: list[Any] = []

    def __enter__(self) -> None:
        if isinstance(self.model, nn.Module):
            layers = [layer for layer in self.model.modules() if isinstance(layer, _NormBase | _DropoutNd)]
            self.hooks = [layer.register_forward_pre_hook(lambda module, _: self.tell(module.training)) for layer in layers]

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def _flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([slope.double().flatten().cpu() for slope in gradients.values()]) if gradients else torch.zeros(0).double()


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the distance of two gradients as a share of the other's norm."""
    if one.shape != other.shape or not len(one) or float(other.norm()) == 0:
        return math.nan
    return float((one - other).norm() / other.norm())


def _sine(one: Tensor, other: Tensor) -> float:
    """Return the sine of the angle between two gradients."""
    sizes = float(one.norm() * other.norm()) if len(one) and len(other) else 0.0
    if sizes == 0 or not math.isfinite(sizes):
        return math.nan
    cosine = float(one @ other) / sizes
    return 1.0 if cosine <= 0 else math.sqrt(max(0.0, 1 - cosine * cosine))
