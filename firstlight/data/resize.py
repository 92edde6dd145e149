"""Images at another size: those of a data set, once, or those of a batch."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from firstlight.data.dataset import Dataset

_CHUNK = 512
"""Images resized at once: bounds the float32 copies to some 30 MiB at 70x70x3."""


def resize(dataset: Dataset, size: int) -> Dataset:
    """Return the data set with images of `size` x `size` pixels (bilinear, antialiased), in the dtype they have."""
    num_images, channels, height, width = dataset.images.shape
    if (height, width) == (size, size):
        return dataset
    resized = torch.empty(num_images, channels, size, size, dtype=dataset.images.dtype)
    for target, source in zip(resized.split(_CHUNK), dataset.images.split(_CHUNK), strict=True):
        pixels = resize_images(source.float(), size)
        target.copy_(pixels if dataset.images.is_floating_point() else pixels.round().clamp(0, 255))
    return replace(dataset, images=resized)


def resize_images(images: Tensor, size: int) -> Tensor:
    """Return float images [B, C, H, W] as [B, C, size, size], bilinear and antialiased."""
    return interpolate(images, (size, size), mode="bilinear", antialias=True)
