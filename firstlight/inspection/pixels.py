"""Figures of the pixels of a data set, taken in blocks: by channel, by image, and the mean image of each class."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.normalize import pixel_scale

_BLOCK_VALUES = 200_000
"""Pixel values that are converted to floats together, 1.6 MB in float64: they stay in the cache of a core."""


@dataclass(frozen=True)
class ImageFigures:
    """Of each image its mean, least and greatest pixel in [0, 1], float32 [N], and whether it has one colour, bool [N]."""

    mean: Tensor
    least: Tensor
    greatest: Tensor
    constant: Tensor


@dataclass(frozen=True)
class Survey:
    """What one look at every image gives, pixels in [0, 1].

    mean, std: of each channel, float64 [C]. class_means, class_stds: mean image of each of some classes and deviation of each of its
    pixels, float64 [classes, C, H, W]; NaN for an empty class.
    """

    mean: Tensor
    std: Tensor
    images: ImageFigures
    class_means: Tensor
    class_stds: Tensor


def survey(dataset: Dataset, classes: list[int]) -> Survey:
    """Look at every image once, in blocks; `classes` are those whose mean image is wanted. Images that are streamed stay in their file."""
    assert dataset.labels is not None
    place_of = torch.full((dataset.num_classes,), -1)
    place_of[torch.tensor(classes)] = torch.arange(len(classes))
    scale, num = pixel_scale(dataset.images), len(dataset)
    figures = ImageFigures(torch.empty(num), torch.empty(num), torch.empty(num), torch.empty(num, dtype=torch.bool))
    total = torch.zeros(2, dataset.image_shape[0], dtype=torch.float64)
    sums = torch.zeros(2, len(classes), *dataset.image_shape, dtype=torch.float64)
    counts = torch.zeros(len(classes), dtype=torch.float64)
    for rows, block in _blocks(dataset.images):
        values = block.double()  # whole numbers add up exactly, in blocks of any size
        total += torch.stack((values.sum((0, 2, 3)), values.square().sum((0, 2, 3))))
        pixels = block.float() / scale
        for kept, found in zip(vars(figures).values(), _figures(pixels), strict=True):
            kept[rows] = found
        place = place_of[dataset.labels[rows]]
        chosen = place >= 0
        some = pixels[chosen].double()
        sums[0].index_add_(0, place[chosen], some)
        sums[1].index_add_(0, place[chosen], some.square())
        counts += torch.bincount(place[chosen], minlength=len(classes))
    mean, squares = total / (num * dataset.image_shape[1] * dataset.image_shape[2])
    class_means, class_squares = sums / counts[:, None, None, None]
    return Survey(
        mean / scale,
        (squares - mean.square()).clamp(min=0).sqrt() / scale,
        figures,
        class_means,
        (class_squares - class_means.square()).clamp(min=0).sqrt(),
    )


def _figures(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    least, greatest = torch.aminmax(pixels.flatten(2), dim=2)  # of each channel
    return pixels.mean((1, 2, 3)), least.amin(1), greatest.amax(1), (least == greatest).all(1)


def histogram(images: Tensor, bins: int = 50) -> Tensor:
    """Return the share of all pixel values in even bins of [0, 1], float64 [bins]."""
    total = torch.zeros(bins, dtype=torch.float64)
    for _, block in _blocks(images):
        total += torch.histc(block.float() / pixel_scale(images), bins, 0, 1).double()
    return total / images.numel()


def _blocks(images: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield which rows, and their pixels as they are."""
    begin = 0
    for block in images.split(max(1, _BLOCK_VALUES // prod(images.shape[1:]))):
        yield slice(begin, begin + len(block)), block
        begin += len(block)
