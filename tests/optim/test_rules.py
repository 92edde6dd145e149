"""The update rules against torch.optim, alone and with many networks side by side (E6)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from firstlight.optim.rules import RULES, Hyper

TORCH: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.95, "eps": 1e-6, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
}


def as_hyper(settings: dict[str, Any]) -> dict[str, float]:
    hyper = {"decay" if key == "alpha" else key: value for key, value in settings.items() if key not in ("betas", "nesterov")}
    return hyper | dict(zip(("beta1", "beta2"), settings.get("betas", ()), strict=False))


def gradients(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=generator) for _ in range(steps)]


def walk(name: str, start: Tensor, hyper: Hyper, slopes: list[Tensor]) -> Tensor:
    parameter, rule = start.clone(), RULES[name]
    memory = rule.start(parameter)
    for slope in slopes:
        rule.update(parameter, slope, memory, hyper)
    return parameter


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_that_of_torch(name: str) -> None:
    """E6: 20 steps, the same to 1e-6."""
    make, settings = TORCH[name]
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    theirs = start.clone().requires_grad_()
    optimizer = make([theirs], **settings)
    for slope in gradients(20):
        theirs.grad = slope.clone()
        optimizer.step()
    torch.testing.assert_close(walk(name, start, as_hyper(settings), gradients(20)), theirs.detach(), rtol=1e-6, atol=1e-6)
    assert set(RULES[name].settings) == set(as_hyper(settings))


@pytest.mark.parametrize("name", RULES)
def test_columns_step_as_if_alone(name: str) -> None:
    """F1: three networks side by side, each with settings of its own, go where each goes alone."""
    hyper = as_hyper(TORCH[name][1])
    factors = torch.tensor([0.5, 1.0, 1.05])
    many = {key: value * (factors if key in ("lr", "weight_decay", "eps") else factors.clamp(max=1.0)) for key, value in hyper.items()}
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    together = walk(name, start, many, gradients(10))
    for column in range(3):
        own = {key: float(value[column]) for key, value in many.items()}
        alone = walk(name, start[:, column : column + 1], own, [slope[:, column : column + 1] for slope in gradients(10)])
        torch.testing.assert_close(together[:, column : column + 1], alone, rtol=1e-6, atol=1e-7)
