"""The network of the airbench speed records (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU")."""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor, nn

from firstlight.limits import Range, Size
from firstlight.models.convolution import Conv2d
from firstlight.models.layers import ACTIVATIONS, ActivationName, BatchNorm2d, require_size

Convolutions = Annotated[int, Range(least=1, most=8)]

NORM_MOMENTUM = 0.4
"""Share of a new batch in the running statistics: a training of a few hundred steps cannot wait for the usual 0.1."""


class Airbench(nn.Module):
    """Three groups of 3x3 convolutions, each halving the image once, and a linear layer: images [B, C, H, W] -> logits [B, num_classes].

    It is meant to stand behind a whitening layer (input.whiten=2), with frozen normalisation scales (train.freeze_norm_scale).
    widths: channels of the three groups; the record's own network has (64, 256, 256).
    convolutions: 3x3 convolutions in each group; the image is halved behind the first one, before normalisation and activation.
    activation: behind each normalisation.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        widths: tuple[Size, Size, Size] = (64, 256, 256),
        convolutions: tuple[Convolutions, Convolutions, Convolutions] = (2, 2, 2),
        activation: ActivationName = "gelu",
    ) -> None:
        super().__init__()
        require_size("airbench", image_shape, least=8)
        channels = (image_shape[0], *widths[:-1])
        groups = zip(channels, widths, convolutions, strict=True)
        self.features = nn.Sequential(*(layer for group in groups for layer in _group(*group, activation)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[-1])  # nearly all classes alike at first

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.features(images)
        return self.head(features.amax(dim=(2, 3)))  # type: ignore[no-any-return]


def _group(num_inputs: int, width: int, num_convolutions: int, activation: ActivationName) -> Iterator[nn.Module]:
    for number in range(num_convolutions):
        yield _dirac_convolution(num_inputs if number == 0 else width, width)
        if number == 0:
            yield nn.MaxPool2d(2)  # before normalisation and activation, which then have a quarter of the values to go over
        yield BatchNorm2d(width, momentum=NORM_MOMENTUM)
        yield ACTIVATIONS[activation]()


def _dirac_convolution(num_inputs: int, num_outputs: int) -> Conv2d:
    """Return a 3x3 convolution whose first filters hand their inputs on unchanged, so that a deep network begins as a shallow one."""
    convolution = Conv2d(num_inputs, num_outputs, kernel_size=3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[: min(num_inputs, num_outputs)])
    return convolution
