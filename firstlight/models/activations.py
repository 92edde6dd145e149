"""Activations with their slopes as plain functions, for code that writes its gradients out by hand."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LEAK = 0.01
"""Slope of the leaky ReLU below 0, as torch has it."""
_aten = torch.ops.aten


class Activation(NamedTuple):
    """value: what stands before it -> what stands behind; slope: (slope of the loss behind it, what stands before it) -> slope before."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


PLAIN_ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda slope, before: _aten.threshold_backward(slope, before, 0)),
    "leaky_relu": Activation(
        lambda before: F.leaky_relu(before, LEAK), lambda slope, before: _aten.leaky_relu_backward(slope, before, LEAK, False)
    ),
    "gelu": Activation(F.gelu, lambda slope, before: _aten.gelu_backward(slope, before)),
    "silu": Activation(F.silu, lambda slope, before: _aten.silu_backward(slope, before)),
    "sigmoid": Activation(torch.sigmoid, lambda slope, before: _aten.sigmoid_backward(slope, torch.sigmoid(before))),
    "tanh": Activation(torch.tanh, lambda slope, before: _aten.tanh_backward(slope, torch.tanh(before))),
    "identity": Activation(lambda before: before, lambda slope, before: slope),
}
"""Those of models/layers.py by name, with the kernels that autograd calls."""
