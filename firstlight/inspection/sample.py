"""Samples of two sets of images that can be compared: as many of each class, of a size that is quick to compute with."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from firstlight.data.normalize import pixel_scale
from firstlight.errors import DataError
from firstlight.inspection.corruptions import grey

MAX_IMAGES = 1000
"""Images of each set in a sample."""
MAX_VALUES = 3_000_000
"""Pixel values of a sample: 244 colour images of 64 x 64."""
MAX_CLASSES = 50
"""Classes in a sample; of more, those with the most images."""
LEAST_IMAGES = 10
"""Images that a class must have in each set to be compared by itself; one with few would leave few of the others in the sample."""
MAX_SIDE = 64
"""Pixels; larger images are averaged over squares of 2, 3, ... pixels until they are no larger."""
PAIR_IMAGES = 300
SURE = 6.0
"""Standard errors by which images at one place must be more alike than others of their class, to be the same images."""


@dataclass(frozen=True)
class Sample:
    """Images of two sets to compare, the classes taking turns: float32 [N, C, H, W] in [0, 1], labels int64 [N].

    other: further images of the first set, which say how far apart two draws are; None where the two sets hold the same images.
    shrunk: how many pixels of the sets make one pixel of the sample, in each direction. num_classes: those compared one by one; 0 where
    no class has enough images, so that all count as one.
    """

    first: Tensor
    second: Tensor
    labels: Tensor
    other: Tensor | None
    shrunk: int = 1
    num_classes: int = 0


def draw_sample(first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor, *, seed: int = 0) -> Sample:
    """Return a sample of two labelled sets, uint8 or float images [N, C, H, W] of one shape, labels int64 [N] that mean the same.

    Images with the label -1 are left out. Raises DataError where the shapes differ, or a set has too few images.
    """
    if first.shape[1:] != second.shape[1:]:
        raise DataError(f"the images are {_size(first)} in the one set and {_size(second)} in the other; compare sets of one size")
    fewest = min(int((labels >= 0).sum()) for labels in (first_labels, second_labels))
    if fewest < 2 * LEAST_IMAGES:
        raise DataError(f"{fewest} images are too few to compare; give sets of {2 * LEAST_IMAGES} images or more")
    paired = _are_pairs(first, first_labels, second, second_labels, seed)
    generator = torch.Generator().manual_seed(seed)
    classes = _common_classes(first_labels, second_labels, share=1 if paired else 2)
    num_classes = len(classes)
    if not classes:
        first_labels, second_labels, classes = first_labels.clamp(max=0), second_labels.clamp(max=0), [0]
    mine, theirs = ([_shuffled(labels, label, generator) for label in classes] for labels in (first_labels, second_labels))
    if paired:
        theirs = mine
    shrunk = -(-max(first.shape[2:]) // MAX_SIDE)
    most = min(MAX_IMAGES, MAX_VALUES * shrunk**2 // first[0].numel())
    num = min(max(most // len(classes), 1), *(min(len(a) // (1 if paired else 2), len(b)) for a, b in zip(mine, theirs, strict=True)))
    turns = torch.stack([places[:num] for places in mine], 1).flatten()
    further = None if paired else torch.stack([places[num : 2 * num] for places in mine], 1).flatten()
    partners = torch.stack([places[:num] for places in theirs], 1).flatten()
    labels = torch.tensor(classes).repeat(num)
    other = None if further is None else _floats(first[further], shrunk)
    return Sample(_floats(first[turns], shrunk), _floats(second[partners], shrunk), labels, other, shrunk, num_classes)


def _floats(images: Tensor, shrunk: int) -> Tensor:
    pixels = images.float() / pixel_scale(images)
    return pixels if shrunk == 1 else F.avg_pool2d(pixels, shrunk)


def _common_classes(first: Tensor, second: Tensor, share: int) -> list[int]:
    """Return the classes that both sets have enough images of: LEAST_IMAGES, and not far fewer than other classes have."""
    num = max(int(first.max()), int(second.max())) + 1
    mine, theirs = (torch.bincount(labels[labels >= 0], minlength=num) for labels in (first, second))
    counts = (mine // share).minimum(theirs)
    order = counts.argsort(descending=True, stable=True)[:MAX_CLASSES]
    enough = max(LEAST_IMAGES, int(counts[counts > 0].median()) // 4 if counts.any() else 0)
    return sorted(int(label) for label in order if counts[label] >= enough)


def _shuffled(labels: Tensor, label: int, generator: torch.Generator) -> Tensor:
    places = (labels == label).nonzero().flatten()
    return places[torch.randperm(len(places), generator=generator)]


def _are_pairs(first: Tensor, first_labels: Tensor, second: Tensor, second_labels: Tensor, seed: int) -> bool:
    """Tell whether the sets hold the same images in the same order: those at one place are more alike than others of their class."""
    if len(first) != len(second) or not torch.equal(first_labels, second_labels):
        return False
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(first), generator=generator)[:PAIR_IMAGES].tolist()
    others = [_another(first_labels, row, generator) for row in rows]
    rows, others = [row for row, other in zip(rows, others, strict=True) if other is not None], [row for row in others if row is not None]
    if len(rows) < LEAST_IMAGES:
        return False
    alike, unlike = (_likeness(first[rows], second[places]) for places in (rows, others))
    gaps = alike - unlike
    return bool(gaps.mean() > SURE * gaps.std() / len(gaps) ** 0.5 or (gaps.std() == 0 and gaps.mean() > 0))


def _another(labels: Tensor, row: int, generator: torch.Generator) -> int | None:
    """Return the place of another image of the same class."""
    places = (labels == labels[row]).nonzero().flatten()
    places = places[places != row]
    return int(places[torch.randint(len(places), (), generator=generator)]) if len(places) else None


def _likeness(one: Tensor, other: Tensor) -> Tensor:
    """Return the size of the correlation of two images, as thumbnails of 12 x 12, for each pair."""
    thumbnails = [F.adaptive_avg_pool2d(grey(_floats(images, 1))[:, None], 12).flatten(1) for images in (one, other)]
    first, second = (values - values.mean(1, keepdim=True) for values in thumbnails)
    found: Tensor = ((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1)).clamp(min=1e-6)).abs()
    return found


def _size(images: Tensor) -> str:
    return " x ".join(str(size) for size in images.shape[1:])
