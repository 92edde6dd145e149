"""Figures of the pixels of a data set, taken in blocks: by class, by image, and the mean image of each class."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.normalize import pixel_scale

_BLOCK_VALUES = 2_000_000
"""Pixel values that are converted to floats together: 16 MB in float64."""


@dataclass(frozen=True)
class ImageFigures:
    """Of each image its mean, least and greatest pixel in [0, 1], float32 [N], and whether it has one colour, bool [N]."""

    mean: Tensor
    least: Tensor
    greatest: Tensor
    constant: Tensor


def image_figures(images: Tensor) -> ImageFigures:
    """Return the figures of uint8 or float images [N, C, H, W]."""
    parts = [_figures(pixels) for _, pixels in _blocks(images)]
    return ImageFigures(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _figures(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    least, greatest = torch.aminmax(pixels.flatten(2), dim=2)  # of each channel
    return pixels.mean((1, 2, 3)), least.amin(1), greatest.amax(1), (least == greatest).all(1)


def class_images(dataset: Dataset, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Return the mean image of each class and the deviation of each of its pixels, float64 [classes, C, H, W]; NaN for an empty class."""
    assert dataset.labels is not None
    places = torch.full((dataset.num_classes,), -1)
    places[torch.tensor(classes)] = torch.arange(len(classes))
    sums = torch.zeros(len(classes), *dataset.image_shape, dtype=torch.float64)
    squares, counts = torch.zeros_like(sums), torch.zeros(len(classes), dtype=torch.float64)
    for rows, pixels in _blocks(dataset.images):
        place = places[dataset.labels[rows]]
        chosen = place >= 0
        some = pixels[chosen].double()
        sums.index_add_(0, place[chosen], some)
        squares.index_add_(0, place[chosen], some.square())
        counts.index_add_(0, place[chosen], torch.ones(int(chosen.sum()), dtype=torch.float64))
    num = counts[:, None, None, None]
    mean = sums / num
    return mean, (squares / num - mean.square()).clamp(min=0).sqrt()


def histogram(images: Tensor, bins: int = 50) -> Tensor:
    """Return the share of all pixel values in even bins of [0, 1], float64 [bins]."""
    total = torch.zeros(bins, dtype=torch.float64)
    for _, pixels in _blocks(images):
        total += torch.histc(pixels, bins, 0, 1).double()
    return total / images.numel()


def _blocks(images: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield which rows, and their pixels in [0, 1], float32."""
    size, scale = max(1, _BLOCK_VALUES // images[0].numel()), pixel_scale(images)
    for begin in range(0, len(images), size):
        rows = slice(begin, begin + size)
        yield rows, images[rows].float() / scale
