"""A small convolutional network for digits of 8 to 28 pixels, quick on a CPU."""

from collections import OrderedDict
from collections.abc import Iterator

from torch import nn

from firstlight.limits import Fraction, Size
from firstlight.models.convolution import Conv2d
from firstlight.models.layers import BatchNorm2d, GlobalMaxPool


class SmallCNN(nn.Sequential):
    """3x3 convolutions with batch normalisation and one linear layer: images [B, C, H, W] -> logits [B, num_classes].

    widths: channels of each convolution; images are halved behind each one while they have 4 pixels or more.
    dropout: share of the features that are dropped before the linear layer.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        widths: tuple[Size, ...] = (32, 64, 128),
        dropout: Fraction = 0.1,
    ) -> None:
        channels, height, width = image_shape
        layers: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*_features(channels, (height, width), widths)))
        layers.update(pool=GlobalMaxPool(), dropout=nn.Dropout(dropout), head=nn.Linear((channels, *widths)[-1], num_classes))
        super().__init__(layers)


def _features(channels: int, size: tuple[int, int], widths: tuple[int, ...]) -> Iterator[nn.Module]:
    for width in widths:
        yield Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        yield BatchNorm2d(width)
        yield nn.ReLU()
        if min(size) >= 4:
            yield nn.MaxPool2d(2)
            size = (size[0] // 2, size[1] // 2)
        channels = width
