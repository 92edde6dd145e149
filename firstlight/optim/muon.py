"""Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before the step. Filters count as rows [out, in*k*k]."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from firstlight.limits import Fraction, NonNegative, Positive, PositiveInt
from firstlight.optim.eager import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a*x + b*x^3 + c*x^5, which drives any x in (0, 1] to about 0.7..1.2 in 5 steps (Jordan et al. 2024)."""

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Of the AdamW that trains what has no matrix."""
OTHER_MOMENTUM = 0.85
"""Of the SGD that can take its place (Jordan 2024)."""


def newton_schulz(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """Return the matrix [rows, columns] with its singular values driven towards 1, so nearly U V^T of its decomposition.

    Computes in the matrix's own dtype.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if matrix.shape[0] <= matrix.shape[1] else x.T
    return result


class Muon(Optimizer):
    """Muon for weights of two and more dimensions (or filters alone), AdamW or SGD for the rest (biases, normalisation).

    lr: size of a step for the matrices, whose update has singular values near 1 (times sqrt(rows / columns) where rows are more).
    momentum: share of the old mean gradient that is kept at each step.
    nesterov: look ahead along the momentum.
    steps: Newton-Schulz iterations.
    matrices: what Muon trains: `all` weights of two and more dimensions, or `filters` of convolutions alone.
    normalize: scale each matrix to the norm sqrt(rows) before its step; then lr is the share of a matrix that a step exchanges.
    others: what trains the other parameters, AdamW or SGD with Nesterov momentum.
    other_lr_scale: lr of the other parameters as a multiple of `lr`.
    bias_lr_scale: lr of those with one dimension as a multiple of that; with SGD, biases bear a far larger one than weights.
    weight_decay: each step scales the weights by 1 - lr * weight_decay.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: Positive = 0.02,
        momentum: Fraction = 0.95,
        nesterov: bool = True,
        steps: PositiveInt = 5,
        matrices: Literal["all", "filters"] = "all",
        normalize: bool = False,
        others: Literal["adamw", "sgd"] = "adamw",
        other_lr_scale: Positive = 0.15,
        bias_lr_scale: Positive = 1.0,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "steps": steps, "matrices": matrices, "normalize": normalize,
            "others": others, "other_lr_scale": other_lr_scale, "bias_lr_scale": bias_lr_scale, "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            least_dimensions = 2 if group["matrices"] == "all" else 3
            other_step = _adamw_step if group["others"] == "adamw" else _sgd_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = _muon_step if parameter.ndim >= least_dimensions else other_step
                    update(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _muon_step(weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state["momentum_buffer"] = torch.zeros_like(weight)
    buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
    direction = gradient.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
    matrix = direction.reshape(len(weight), -1)
    if matrix.is_cuda:
        matrix = matrix.bfloat16()  # the iteration bears the rounding, and tensor cores are many times faster
    update = newton_schulz(matrix, steps=group["steps"]).to(weight.dtype)
    rows, columns = matrix.shape
    if group["normalize"]:
        weight.mul_(math.sqrt(len(weight)) / weight.norm().clamp(min=1e-7))
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    _move(weight, update.reshape(weight.shape), group["lr"] * math.sqrt(max(1, rows / columns)))


def _adamw_step(values: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(values), exp_avg_sq=torch.zeros_like(values))
    if values.is_cuda and not state["step"].is_cuda:
        state["step"] = state["step"].to(values.device)  # torch makes and restores it on the CPU
    state["step"] += 1
    count = state["step"] if values.is_cuda else state["step"].item()  # a GPU is not waited for, and a CPU computes in float64
    lr = _other_lr(values, group)
    mean = state["exp_avg"].lerp_(gradient, 1 - BETA1)
    square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - BETA2)
    root = (square / (1 - BETA2**count)).sqrt_().add_(EPS)
    values.mul_(1 - lr * group["weight_decay"])
    size = lr / (1 - BETA1**count)
    if isinstance(size, Tensor):
        values.sub_(mean / root * size)
    else:
        values.addcdiv_(mean, root, value=-size)


def _sgd_step(values: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state["momentum_buffer"] = torch.zeros_like(values)
    lr, buffer = _other_lr(values, group), state["momentum_buffer"].mul_(OTHER_MOMENTUM).add_(gradient)
    values.mul_(1 - lr * group["weight_decay"])
    _move(values, gradient.add(buffer, alpha=OTHER_MOMENTUM), lr)


def _move(values: Tensor, update: Tensor, lr: float | Tensor) -> None:
    """Subtract lr times the update; a captured step finds its lr on the device."""
    if isinstance(lr, Tensor):
        values.sub_(update * lr)
    else:
        values.sub_(update, alpha=lr)


def _other_lr(values: Tensor, group: dict[str, Any]) -> float | Tensor:
    lr: float | Tensor = group["lr"] * group["other_lr_scale"] * (group["bias_lr_scale"] if values.ndim < 2 else 1.0)
    return lr
