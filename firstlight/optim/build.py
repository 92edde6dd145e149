"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from firstlight.config.schema import Kind
from firstlight.errors import ConfigError, did_you_mean
from firstlight.optim.muon import Muon
from firstlight.optim.optimizers import adam, adamw, rmsprop, sgd
from firstlight.optim.schedules import Constant, Cosine, Linear, OneCycle, Plateau, Step

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "rmsprop": rmsprop, "adam": adam, "adamw": adamw, "muon": Muon}

SCHEDULES: dict[str, Callable[..., Constant]] = {
    "constant": Constant,
    "step": Step,
    "linear": Linear,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "plateau": Plateau,
}


class HasParameters(Protocol):
    """Anything with tensors to train."""

    def parameters(self) -> Iterator[Tensor]:
        """Yield them."""


def build_optimizer(kind: Kind, model: HasParameters) -> Optimizer:
    """Return an optimizer of all parameters of a model that are trained; the model must be on its device already."""
    if kind.name not in OPTIMIZERS:
        raise ConfigError(f"optim: unknown name {kind.name!r}{did_you_mean(kind.name, OPTIMIZERS)}")
    optimizer = OPTIMIZERS[kind.name]([parameter for parameter in model.parameters() if parameter.requires_grad], **kind.options)
    optimizer.register_load_state_dict_post_hook(_lay_out_like_parameters)
    return optimizer


def _lay_out_like_parameters(optimizer: Optimizer) -> None:
    """Store restored state in the memory order of its parameter (channels_last or not).

    torch's fused kernels walk both in memory order without comparing them, and so mix up elements where they differ (torch 2.13).
    """
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                entries[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def build_schedule(kind: Kind) -> Constant:
    """Return a schedule; its `factor` multiplies the optimizer's lr."""
    if kind.name not in SCHEDULES:
        raise ConfigError(f"schedule: unknown name {kind.name!r}{did_you_mean(kind.name, SCHEDULES)}")
    return SCHEDULES[kind.name](**kind.options)
