"""The parts that architectures share: activations and normalisation by name, Reshape, a check of the image size, a count."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from firstlight.errors import ConfigError
from firstlight.models.init import InitName, init_layer
from firstlight.models.model import Model

ActivationName = Literal["relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh", "identity"]

ACTIVATIONS: dict[ActivationName, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


class Reshape(nn.Module):
    """Give each element of a batch the shape that is asked for: [B, ...] -> [B, *shape]; the batch dimension stays.

    Raises ConfigError where the number of values does not fit; it names both shapes.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` as [B, *shape]."""
        old = tuple(values.shape[1:])
        if math.prod(old) != math.prod(self.shape):
            raise ConfigError(
                f"Reshape{self.shape}: each element has shape {old}, which holds {math.prod(old)} values; "
                f"{self.shape} needs {math.prod(self.shape)}: change the sizes given to Reshape or the layer before it"
            )
        return values.reshape(values.shape[0], *self.shape)

    def extra_repr(self) -> str:
        """Show the shape when a model is printed."""
        return ", ".join(map(str, self.shape))


class GlobalMaxPool(nn.Module):
    """The largest value of each channel: [B, C, H, W] -> [B, C]."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the maxima."""
        return values.amax(dim=(2, 3))


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of [B, C] which, in training, treats a batch of one element by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised values; same shape."""
        return _normalize_alone(self, input) if self.training and _is_alone(input) else super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of [B, C, H, W] which, in training, treats one value a channel by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised values; same shape."""
        return _normalize_alone(self, input) if self.training and _is_alone(input) else super().forward(input)


def _is_alone(values: Tensor) -> bool:
    # One value a channel has no variance; torch refuses it, and so would a last batch of one image.
    return values.numel() == values.shape[1]


def _normalize_alone(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)


def freeze_norm_scales(model: Model) -> None:
    """Leave the scales of all normalisation layers as they are, and train their biases alone. Raises ConfigError where there are none."""
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)] if isinstance(model, nn.Module) else []
    if not norms:
        raise ConfigError("train.freeze_norm_scale is true, but the network has no normalisation layer; leave it out or take another model")
    for norm in norms:
        norm.weight.requires_grad_(False)


@torch.no_grad()
def init_layers(model: nn.Module, init: InitName, *, scale: float = 1.0) -> None:
    """Fill the convolutions and linear layers anew by name, their weights times `scale`; torch_default keeps what they drew when made."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if init != "torch_default":
                assert layer.bias is not None
                init_layer(layer.weight, layer.bias, init)
            layer.weight *= scale


def count_parameters(model: Model) -> int:
    """Return how many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def require_size(model: str, image_shape: tuple[int, int, int], least: int) -> None:
    """Raise ConfigError where images are lower or narrower than the `least` pixels that this model can take."""
    _, height, width = image_shape
    if min(height, width) < least:
        raise ConfigError(
            f"model {model}: images are {height}x{width}, allowed are {least}x{least} pixels and more; "
            f"set input.image_size={least} or larger, or take another model"
        )
