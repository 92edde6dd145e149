"""All images of a data set at another size, resized once."""

from dataclasses import replace

import torch
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
        pixels = interpolate(source.float(), (size, size), mode="bilinear", antialias=True)
        target.copy_(pixels if dataset.images.is_floating_point() else pixels.round().clamp(0, 255))
    return replace(dataset, images=resized)
