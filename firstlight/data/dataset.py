"""A data set as one value: images, labels, class names, and where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.data.stored import StoredImages
from firstlight.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, whole in memory; or the pixels still in their file, where they are too many.

    images: uint8 [N, C, H, W], or float32 in [0, 1] where the values are not whole 255ths. A data set that is streamed has a StoredImages
    here, which has the shape, the indexing and the `split` of such a tensor, and says so to whoever wants more of it.
    labels: int64 [N], or None for images whose labels nobody has (a competition's test set).
    source: one line for people, such as "MNIST (60,000 training images)".
    warnings: what a run should say about the images, a line each.
    names: where each image comes from, such as `train/cat/0001.jpg`, where it was a file of its own; None elsewhere.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    source: str
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """How many classes the labels can name."""
        return len(self.class_names)

    def subset(self, indices: Tensor) -> "Dataset":
        """Return a copy of the images at `indices` (int64 [M]), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        names = None if self.names is None else tuple(self.names[index] for index in indices.tolist())
        images = self.images.at(indices) if isinstance(self.images, StoredImages) else self.images[indices]
        return replace(self, images=images, labels=labels, names=names)

    def settled(self) -> "Dataset":
        """Return the data set as a training takes it: streamed images whole in memory after all, where they are few enough."""
        return replace(self, images=self.images.settled()) if isinstance(self.images, StoredImages) else self

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image to look at, uint8 [H, W] where it is grey, else [H, W, C]."""
        image = self.images[index].permute(1, 2, 0)
        shown = (image * 255).round().to(torch.uint8) if image.is_floating_point() else image
        return shown.squeeze(2).numpy() if shown.shape[2] == 1 else shown.numpy()


def make_dataset(images: Tensor, labels: Tensor | None, class_names: Sequence[str], source: str) -> Dataset:
    """Check and tidy what a reader found, and return it as a Dataset.

    images: [N, H, W] or [N, C, H, W]; uint8, or float in [0, 1]. Floats that are exactly k/255 become uint8, so that
    both forms of the same pictures train to the same bits.
    labels: integers [N] in 0..len(class_names)-1, or None.
    Raises DataError that names the first wrong row.
    """
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if images.ndim != 4 or min(images.shape) == 0:
        raise DataError(f"{source}: images have shape {list(images.shape)}; expected [N, H, W] or [N, C, H, W] with at least one image")
    if labels is not None:
        labels = checked_labels(labels, len(images), len(class_names), source)
    return Dataset(_tidy_images(images, source), labels, tuple(class_names), source)


def checked_labels(labels: Tensor, num_images: int, num_classes: int, source: str) -> Tensor:
    """Return whole numbers in 0..num_classes-1 as int64 [N]. Raises DataError that names the first wrong row."""
    if labels.shape != (num_images,):
        raise DataError(f"{source}: {num_images} images but labels of shape {list(labels.shape)}; expected one label an image")
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        row = int((labels != labels.round()).nonzero()[0])
        raise DataError(
            f"{source}: row {row} of labels: {labels[row].item():g}, allowed are whole numbers 0..{num_classes - 1}; correct it"
        )
    labels = labels if labels.is_floating_point() else labels.to(torch.int64)  # torch cannot compare uint16
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{source}: row {row} of labels: {labels[row].item():g}, allowed 0..{num_classes - 1} ({len(wrong)} such rows); correct them"
        )
    return labels.to(torch.int64)


def _tidy_images(images: Tensor, source: str) -> Tensor:
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise DataError(f"{source}: images are {images.dtype}; expected uint8 in 0..255 or float in 0..1")
    images = images.to(torch.float32)
    low, high = torch.aminmax(images)
    if not (low >= 0 and high <= 1):
        raise DataError(f"{source}: pixel values run from {low:.3g} to {high:.3g}; floats must lie in 0..1 (or store uint8 in 0..255)")
    whole = (images * 255).round()
    return whole.to(torch.uint8) if torch.equal(whole / 255, images) else images.contiguous()
