"""The images of a data set at another size."""

from dataclasses import replace

import torch

from firstlight.data.dataset import Dataset
from firstlight.data.interpolation import resize_pixels
from firstlight.data.stored import StoredImages

_CHUNK = 512
"""Images resized at once: bounds the float32 copies to some 30 MiB at 70x70x3."""


def resize(dataset: Dataset, size: int) -> Dataset:
    """Return the data set with images of `size` x `size` pixels (bilinear, antialiased), in the dtype they have; streamed ones later."""
    if isinstance(dataset.images, StoredImages):
        return replace(dataset, images=dataset.images.resized(size))
    num_images, channels, height, width = dataset.images.shape
    if (height, width) == (size, size):
        return dataset
    resized = torch.empty(num_images, channels, size, size, dtype=dataset.images.dtype)
    for target, source in zip(resized.split(_CHUNK), dataset.images.split(_CHUNK), strict=True):
        target.copy_(resize_pixels(source, size))
    return replace(dataset, images=resized)
