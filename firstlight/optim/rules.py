"""Optimizers as pairs of plain functions: what they remember at first, and what one step does. For lanes, and to be read.

A hyperparameter is a number or a tensor that broadcasts against the parameter, so that one call can step many networks that lie side by
side in one tensor, each with settings of its own. tests/optim/test_rules.py holds every rule against torch.optim.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Memory = dict[str, Tensor]
Hyper = Mapping[str, float | Tensor]


class Rule(NamedTuple):
    """An update rule.

    start: parameter -> what the rule remembers of it, tensors of its shape (`step` counts, as a scalar).
    update: parameter, gradient, memory, settings -> nothing; parameter and memory are changed in place.
    settings: the names that `update` reads.
    """

    start: Callable[[Tensor], Memory]
    update: Callable[[Tensor, Tensor, Memory, Hyper], None]
    settings: tuple[str, ...]


def _nothing(parameter: Tensor) -> Memory:
    return {}


def _descend(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """Gradient descent: w -= lr * (g + decay * w)."""
    parameter.sub_(hyper["lr"] * _decayed(parameter, gradient, hyper))


def _velocity(parameter: Tensor) -> Memory:
    return {"velocity": torch.zeros_like(parameter)}


def _roll(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """Momentum (Polyak 1964): v = m * v + g, w -= lr * v."""
    velocity = memory["velocity"].mul_(hyper["momentum"]).add_(_decayed(parameter, gradient, hyper))
    parameter.sub_(hyper["lr"] * velocity)


def _look_ahead(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """Nesterov's momentum (Sutskever et al. 2013): v = m * v + g, w -= lr * (g + m * v)."""
    gradient = _decayed(parameter, gradient, hyper)
    velocity = memory["velocity"].mul_(hyper["momentum"]).add_(gradient)
    parameter.sub_(hyper["lr"] * (gradient + hyper["momentum"] * velocity))


def _square(parameter: Tensor) -> Memory:
    return {"square": torch.zeros_like(parameter)}


def _scale(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """RMSprop (Tieleman and Hinton 2012): s = d * s + (1 - d) * g^2, w -= lr * g / (sqrt(s) + eps)."""
    gradient = _decayed(parameter, gradient, hyper)
    square = memory["square"].mul_(hyper["decay"]).add_((1 - hyper["decay"]) * gradient.square())
    parameter.sub_(hyper["lr"] * gradient / square.sqrt().add_(hyper["eps"]))


def _two_means(parameter: Tensor) -> Memory:
    return {"step": torch.zeros((), device=parameter.device), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}


def _adapt(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """Adam (Kingma and Ba 2015), with the weight decay in the gradient."""
    _adaptive_step(parameter, _decayed(parameter, gradient, hyper), memory, hyper)


def _adapt_decoupled(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """AdamW (Loshchilov and Hutter 2019): the decay shrinks the weights themselves."""
    if isinstance(hyper["weight_decay"], Tensor) or hyper["weight_decay"]:
        parameter.mul_(1 - hyper["lr"] * hyper["weight_decay"])
    _adaptive_step(parameter, gradient, memory, hyper)


def _adaptive_step(parameter: Tensor, gradient: Tensor, memory: Memory, hyper: Hyper) -> None:
    """m = b1 * m + (1 - b1) * g, s = b2 * s + (1 - b2) * g^2, both corrected for their start at 0; w -= lr * m / (sqrt(s) + eps)."""
    count = memory["step"].add_(1)
    mean = memory["mean"].mul_(hyper["beta1"]).add_((1 - hyper["beta1"]) * gradient)
    square = memory["square"].mul_(hyper["beta2"]).add_((1 - hyper["beta2"]) * gradient.square())
    root = (square / (1 - hyper["beta2"] ** count)).sqrt_().add_(hyper["eps"])
    parameter.sub_(hyper["lr"] / (1 - hyper["beta1"] ** count) * mean / root)


def _decayed(parameter: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    """Return the gradient with that of the L2 penalty."""
    decay = hyper["weight_decay"]
    return gradient + decay * parameter if isinstance(decay, Tensor) or decay else gradient


RULES: dict[str, Rule] = {
    "sgd": Rule(_nothing, _descend, ("lr", "weight_decay")),
    "momentum": Rule(_velocity, _roll, ("lr", "momentum", "weight_decay")),
    "nesterov": Rule(_velocity, _look_ahead, ("lr", "momentum", "weight_decay")),
    "rmsprop": Rule(_square, _scale, ("lr", "decay", "eps", "weight_decay")),
    "adam": Rule(_two_means, _adapt, ("lr", "beta1", "beta2", "eps", "weight_decay")),
    "adamw": Rule(_two_means, _adapt_decoupled, ("lr", "beta1", "beta2", "eps", "weight_decay")),
}
"""The rules by name."""
