"""Initial weights by name, on plain tensors: the same functions fill the layers of torch.nn and the raw tensors of scratch.py.

Each draws from torch's default generator, weight first, so that two networks of the same shapes get the same weights from a seed.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

InitName = Literal["zeros", "uniform", "normal_small", "xavier_uniform", "kaiming_uniform", "kaiming_normal", "torch_default"]


def zeros(weight: Tensor) -> None:
    """Fill with 0: every hidden unit then gets the same gradient and stays a copy of its neighbours."""
    weight.zero_()


def uniform(weight: Tensor) -> None:
    """Fill from U(-0.01, 0.01)."""
    weight.uniform_(-0.01, 0.01)


def normal_small(weight: Tensor) -> None:
    """Fill from N(0, 0.01^2)."""
    weight.normal_(0.0, 0.01)


def xavier_uniform(weight: Tensor) -> None:
    """Fill from U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    fan_in, fan_out = _fans(weight)
    _fill_uniform(weight, math.sqrt(6 / (fan_in + fan_out)))


def kaiming_uniform(weight: Tensor) -> None:
    """Fill from U(-a, a), a = sqrt(6 / fan_in), which keeps the variance behind ReLU (He et al. 2015)."""
    _fill_uniform(weight, math.sqrt(6 / _fans(weight)[0]))


def kaiming_normal(weight: Tensor) -> None:
    """Fill from N(0, 2 / fan_in) (He et al. 2015)."""
    weight.normal_(0.0, math.sqrt(2 / _fans(weight)[0]))


def torch_default(weight: Tensor) -> None:
    """Fill from U(-a, a), a = 1 / sqrt(fan_in), as torch.nn.Linear and Conv2d do (LeCun et al. 1998)."""
    _fill_uniform(weight, 1 / math.sqrt(_fans(weight)[0]))


INITS: dict[InitName, Callable[[Tensor], None]] = {
    "zeros": zeros,
    "uniform": uniform,
    "normal_small": normal_small,
    "xavier_uniform": xavier_uniform,
    "kaiming_uniform": kaiming_uniform,
    "kaiming_normal": kaiming_normal,
    "torch_default": torch_default,
}


@torch.no_grad()
def init_layer(weight: Tensor, bias: Tensor, init: InitName, *, scale: float = 1.0) -> None:
    """Fill one layer in place: weight [out, in, ...] by name, times `scale`; bias [out] with 0 (torch_default: its own uniform draw)."""
    INITS[init](weight)
    weight *= scale
    bias.zero_()
    if init == "torch_default":
        _fill_uniform(bias, 1 / math.sqrt(_fans(weight)[0]))


def _fans(weight: Tensor) -> tuple[int, int]:
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


def _fill_uniform(values: Tensor, bound: float) -> None:
    values.uniform_(-bound, bound)
