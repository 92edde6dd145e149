"""The 5-layer CNN of Nakkiran et al. 2019, "Deep Double Descent"."""

import math
from collections.abc import Iterator
from typing import Annotated

from torch import Tensor, nn

from firstlight.limits import Positive, Range, Size
from firstlight.models.convolution import Conv2d
from firstlight.models.init import InitName
from firstlight.models.layers import BatchNorm2d, init_layers

Depth = Annotated[int, Range(least=1, most=64)]


class CNN5(nn.Module):
    """Four 3x3 convolutions and a linear layer: images [B, C, H, W] -> logits [B, num_classes].

    At width 64, 10 classes and 3 colours: 1,558,026 parameters with normalisation, 1,556,106 without.
    width: channels of the first convolution; each further one doubles them, up to 8 times the width.
    depth: number of convolutions; the paper has 4.
    norm: batch normalisation between each convolution and its ReLU.
    init, init_scale: how the weights start, by the names of models/init.py, and by what they are multiplied then.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        width: Size = 64,
        depth: Depth = 4,
        norm: bool = True,
        init: InitName = "torch_default",
        init_scale: Positive = 1.0,
    ) -> None:
        super().__init__()
        channels = [image_shape[0], *(width * min(2**i, 8) for i in range(depth))]
        pools = _pool_sizes(image_shape, depth)
        blocks = zip(channels[:-1], channels[1:], pools, strict=True)
        self.features = nn.Sequential(*(layer for block in blocks for layer in _block(*block, norm)))
        self.head = nn.Linear(channels[-1], num_classes)
        init_layers(self, init, scale=init_scale)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.features(images)
        return self.head(features.flatten(start_dim=1))  # type: ignore[no-any-return]


def _block(num_inputs: int, num_outputs: int, pool: tuple[int, int], norm: bool) -> Iterator[nn.Module]:
    yield Conv2d(num_inputs, num_outputs, kernel_size=3, padding=1)
    if norm:
        yield BatchNorm2d(num_outputs)
    yield nn.ReLU()
    if pool != (1, 1):
        yield nn.MaxPool2d(pool, ceil_mode=True)


def _pool_sizes(image_shape: tuple[int, int, int], depth: int) -> list[tuple[int, int]]:
    """Return the pool behind each convolution: none, then halves, then all that is left (1, 2, 2, 8 at 32 pixels and depth 4)."""
    _, height, width = image_shape
    sizes = []
    for number in range(1, depth):
        pool = (1, 1) if number == 1 else (min(2, height), min(2, width))
        height, width = math.ceil(height / pool[0]), math.ceil(width / pool[1])
        sizes.append(pool)
    return [*sizes, (height, width)]
