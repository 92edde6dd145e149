"""Checks of the network itself: how it starts, how gradients pass, which units are dead or copies of each other, which layers move."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from firstlight.inspection.checks.check import Check, not_applicable, show_loss
from firstlight.inspection.trials import Loop, Trial, is_frozen, named_parameters

FAR_START = 3.0
"""Times ln(classes) from which an initial loss is a fault: the network is sure, and wrong."""
HIGH_START = 2.0
LOW_START = 0.75
"""Share of ln(classes) below which a network has learned already."""
VANISHING = 2e-3
"""Root mean square of the gradients of a layer, as a share of the largest layer's, from which it vanishes: LeNet with sigmoids has 8e-4,
the shipped networks with ReLU or GELU 5e-3 and more."""
EXPLODING = 1e3
"""Norm of the whole gradient at the start."""
DEAD_WARNING, DEAD_FAULT = 0.4, 0.8
"""Share of a layer's units."""
COPIES_WARNING, COPIES_FAULT = 0.1, 0.5
"""Share of a layer's units that are copies of others."""
SAME = 1e-6
"""Two units are copies where their weights agree to this share of the largest one."""
FAST, VERY_FAST, SLOW = 0.1, 0.5, 1e-6
"""Change of a layer's weights by one step, as a share of their norm; about 1e-3 is usual (Karpathy 2019)."""


def check_initial_loss(loop: Loop, loss: float) -> Check:
    """A15: an untrained network should not prefer any class: its loss is about ln(classes)."""
    chance = loop.chance
    figures = {"loss": loss, "ln_classes": chance, "ratio": loss / chance}
    says = f"the loss before training is {show_loss(loss)}, and ln({loop.num_classes}) = {chance:.3g} would be that of guessing"
    if not math.isfinite(loss) or loss > FAR_START * chance:
        advice = "Start with smaller weights (kaiming_uniform, or a smaller init_scale), and look at the scale of the input."
        return Check("initial loss", "fault", says, advice, figures)
    if loss > HIGH_START * chance:
        advice = "The last layer starts with large weights: the first steps only undo that; start it smaller."
        return Check("initial loss", "warning", says, advice, figures)
    if loss < LOW_START * chance:
        return Check("initial loss", "not applicable", f"{says}: it has been trained already", "", figures)
    return Check("initial loss", "ok", says, "", figures)


def check_gradients(loop: Loop, gradients: Mapping[str, Tensor]) -> Check:
    """A16: gradients that vanish towards one layer, or are huge, at the start."""
    weights = {name for name, value in named_parameters(loop.model) if value.ndim >= 2 and value.requires_grad}
    norms = {name.removesuffix(".weight"): float(slope.norm()) for name, slope in gradients.items() if name in weights}
    sizes = {name.removesuffix(".weight"): float(slope.square().mean().sqrt()) for name, slope in gradients.items() if name in weights}
    total = math.sqrt(sum(float(slope.norm()) ** 2 for slope in gradients.values()))
    figures = {"norm": total, "norm_by_layer": norms, "rms_by_layer": sizes}
    if not sizes:
        return not_applicable("gradients", "no layer with weights is trained")
    if not math.isfinite(total):
        advice = "Lower the initial weights, and look for a logarithm or a division of 0."
        return Check("gradients", "fault", "the gradient of the first batch is no number", advice, figures)
    if total > EXPLODING:
        advice = "Lower the initial weights, normalise the input, or clip with train.clip_norm."
        return Check("gradients", "fault", f"the gradient of the first batch explodes: its norm is {total:.3g}", advice, figures)
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    if sizes[smallest] == 0:
        none = [name for name, size in sizes.items() if size == 0]
        says = f"no gradient reaches {_listed(none)}"
        return Check("gradients", "fault", says, "Look for dead units, zero weights or a detach() behind that layer.", figures)
    share = sizes[smallest] / sizes[largest]
    says = f"the gradient norm is {total:.3g}; a weight of {smallest} gets {share:.2g} of what one of {largest} gets"
    if share < VANISHING:
        advice = "The gradient vanishes: use ReLU in place of sigmoid, He initialisation, or batch normalisation."
        return Check("gradients", "warning", says, advice, figures)
    return Check("gradients", "ok", says, "", figures)


def check_dead_units(before: Mapping[str, float], after: Mapping[str, float]) -> Check:
    """Units that pass no gradient on any image, at the start and after a short training."""
    if not before:
        return not_applicable("dead units", "the network has no ReLU, sigmoid or tanh")
    figures = {"share_by_layer": dict(before), "share_by_layer_after": dict(after)}
    layer, worst, when = max(
        ((name, share, when) for shares, when in ((before, "at the start"), (after, "after the trial")) for name, share in shares.items()),
        key=lambda entry: entry[1],
    )
    says = f"at most {worst:.0%} of the units of a layer are dead ({layer}, {when})" if worst else "no unit is dead"
    if worst < DEAD_WARNING:
        return Check("dead units", "ok", says, "", figures)
    says = f"{worst:.0%} of the units behind {layer} are dead {when}: no image switches them on"
    advice = "Lower the learning rate, look at the biases and the scale of the input, or take leaky_relu."
    return Check("dead units", "fault" if worst >= DEAD_FAULT else "warning", says, advice, figures)


def copies_of(loop: Loop) -> dict[str, float]:
    """Return, for each hidden layer, the share of its units that have the same weights as another one."""
    found = {}
    for name, weight in hidden_weights(loop).items():
        rows = weight.detach().flatten(1)
        grid = (rows / (SAME * rows.abs().max().clamp(min=1e-30))).round()
        found[name] = 1 - len(torch.unique(grid, dim=0)) / len(rows)
    return found


def hidden_weights(loop: Loop) -> dict[str, Tensor]:
    """Return the weights of all layers but the last: there each unit has a class of its own to tell it from the others."""
    weights = {name: value for name, value in loop.weights.items() if len(value) > 1}
    last = next(reversed(loop.weights), None)
    return {name: value for name, value in weights.items() if name != last}


def check_symmetry(copies: Mapping[str, float]) -> Check:
    """C3: units that start alike get the same gradient and stay alike, so that a layer is worth one unit."""
    if not copies:
        return not_applicable("symmetry", "there is no hidden layer")
    layer = max(copies, key=copies.__getitem__)
    worst = copies[layer]
    figures = {"copies_by_layer": dict(copies)}
    if worst < COPIES_WARNING:
        return Check("symmetry", "ok", "the hidden units differ from each other after the trial", "", figures)
    says = f"{worst:.0%} of the units of {layer} are copies of others after the trial: the layer is worth fewer units"
    advice = "Start with random weights (model.init=kaiming_uniform), not with zeros or one constant."
    return Check("symmetry", "fault" if worst >= COPIES_FAULT else "warning", says, advice, figures)


def check_updates(trial: Trial, frozen: tuple[str, ...]) -> Check:
    """The size of a step beside the size of the weights."""
    ratios = {name: ratio for name, ratio in trial.updates.items() if not math.isnan(ratio) and not is_frozen(name, frozen)}
    moving = {name: ratio for name, ratio in ratios.items() if ratio > 0}
    if math.inf in ratios.values():
        return Check("update ratio", "fault", "the steps are so large that weights become no numbers", "Lower the learning rate.")
    if not moving:
        return not_applicable("update ratio", "no layer with weights above 0 moved")
    figures = {"ratio_by_layer": ratios}
    middle = sorted(moving.values())[len(moving) // 2]
    fastest = max(moving, key=moving.__getitem__)
    says = f"a step changes the weights by {middle:.2g} of their norm, in {fastest} by {moving[fastest]:.2g}; about 1e-3 is usual"
    if moving[fastest] > VERY_FAST or middle > FAST:
        return Check("update ratio", "fault" if moving[fastest] > VERY_FAST else "warning", says, "Lower the learning rate.", figures)
    if middle < SLOW:
        return Check("update ratio", "warning", says, "Raise the learning rate: the weights hardly move.", figures)
    return Check("update ratio", "ok", says, "", figures)


def check_frozen(loop: Loop, trial: Trial) -> Check:
    """Layers that no step moves: left out of the optimizer, detached, or switched off."""
    everything = [name for name, _ in named_parameters(loop.model)]
    trained = [name for name in everything if not is_frozen(name, loop.frozen)]
    weights = {name for name, value in named_parameters(loop.model) if value.ndim >= 2}
    still = [name for name in trained if name not in trial.moved]
    layers = [name for name in still if name in weights or _reason(loop, name)]  # a bias ahead of a normalisation may well stay
    figures = {"num_parameters": len(everything), "frozen_on_purpose": len(everything) - len(trained), "still": layers}
    if not layers:
        left = f" ({len(everything) - len(trained)} are frozen on purpose)" if len(trained) < len(everything) else ""
        return Check("frozen layers", "ok", f"every layer moves in the trial{left}", "", figures)
    reason = _reason(loop, layers[0]) or "its gradient is 0 or its steps are too small"
    says = f"{len(layers)} of {len(trained)} parameters never move: {_listed(layers)} ({reason})"
    advice = "Hand all parameters to the optimizer, and look for requires_grad=False, detach() or no_grad() in the forward pass."
    return Check("frozen layers", "fault", says, advice, figures)


def _reason(loop: Loop, name: str) -> str:
    """Return why a parameter cannot move; nothing where it can."""
    value = dict(named_parameters(loop.model))[name]
    if not value.requires_grad:
        return "requires_grad is False"
    if loop.optimizer is not None and not any(value is other for group in loop.optimizer.param_groups for other in group["params"]):
        return "the optimizer does not know it"
    return ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
