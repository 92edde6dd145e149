"""Images that are there twice: the same to the last pixel, or nearly the same, within a part of the data and across parts.

Nearly the same: the correlation of their grey thumbnails (at most 32 pixels square) is NEAR or more. No pair is missed: thumbnails are
turned onto a few orthonormal directions, where no distance grows, and the pairs that are close there are measured in full. All pairs are
looked at in blocks, so that memory does not grow with their number. Reading order: find_duplicates, _same, _nearly.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from firstlight.data.normalize import pixel_scale
from firstlight.data.training_data import fingerprints
from firstlight.inspection.corruptions import grey

NEAR = 0.99
"""Correlation of two thumbnails from which images count as nearly the same."""
MAX_IMAGES = 100_000
"""Images of each part among which near-duplicates are looked for; of more, a seeded sample."""
MAX_PAIRS = 10_000
"""Near-duplicates that are kept; there may be more, and then it is said."""
MAX_SIDE = 32
DIRECTIONS = 64
_BLOCK = 2048
"""Images whose pairs are looked at together: 16 MB of correlations."""
_BLOCK_VALUES = 4_000_000
"""Pixel values of the images that are made thumbnails together."""


@dataclass(frozen=True)
class Pair:
    """Two images by part and place; correlation: 1 for equal pixels."""

    first_part: str
    first: int
    second_part: str
    second: int
    correlation: float
    exact: bool


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    exact: for each image that has an earlier twin, the pair of both. near: other pairs, the most alike first. num_exact, num_near: how many
    of them join each two parts, such as ("train", "val"). num_sampled: images of each part that near-duplicates were looked for in.
    complete: False where more near-duplicates are there than are kept.
    """

    exact: list[Pair]
    near: list[Pair]
    num_sampled: dict[str, int]
    complete: bool

    def num(self, *, exact: bool) -> dict[tuple[str, str], int]:
        """Return how many pairs join each two parts, train with itself first."""
        counts: dict[tuple[str, str], int] = {}
        parts = list(self.num_sampled)
        for place, part in enumerate(parts):
            counts |= dict.fromkeys(((part, other) for other in parts[place:]), 0)
        for pair in self.exact if exact else self.near:
            counts[pair.first_part, pair.second_part] += 1
        return counts


def find_duplicates(parts: Mapping[str, Tensor], *, seed: int = 0) -> Duplicates:
    """Return the duplicates within and across parts, images uint8 or float [N, C, H, W] by name of the part.

    60,000 images of 28 x 28 take some ten seconds of one core.
    """
    exact = _same(parts)
    chosen = {part: _sampled(len(images), seed) for part, images in parts.items()}
    thumbnails = torch.cat([_thumbnails(parts[part], places) for part, places in chosen.items()])
    names = [part for part, places in chosen.items() for _ in range(len(places))]
    places = torch.cat(list(chosen.values())).tolist()
    twins = {(pair.second_part, pair.second) for pair in exact}
    near: list[Pair] = []
    complete = True
    for first, second, correlation in _nearly(thumbnails, seed):
        if (names[first], places[first]) in twins or (names[second], places[second]) in twins:
            continue
        if len(near) >= MAX_PAIRS:
            complete = False
            break
        near.append(Pair(names[first], places[first], names[second], places[second], correlation, exact=False))
    near.sort(key=lambda pair: -pair.correlation)
    return Duplicates(exact, near, {part: len(places) for part, places in chosen.items()}, complete)


def _same(parts: Mapping[str, Tensor]) -> list[Pair]:
    """Return each image that equals an earlier one to the last bit, with the first that it equals; parts come in their order.

    Fingerprints name the candidates, and their pixels decide.
    """
    numbers = np.concatenate([fingerprints(images) for images in parts.values()])
    homes = [(part, place) for part, images in parts.items() for place in range(len(images))]
    groups: dict[int, list[int]] = defaultdict(list)
    for place in _repeated(numbers):
        groups[int(numbers[place])].append(int(place))
    pairs = []
    for group in groups.values():
        originals: list[int] = []
        for place in group:
            part, row = homes[place]
            twin = next((other for other in originals if torch.equal(_at(parts, homes[other]), parts[part][row])), None)
            if twin is None:
                originals.append(place)
            else:
                pairs.append(Pair(*homes[twin], part, row, 1.0, exact=True))
    return sorted(pairs, key=lambda pair: (pair.first_part, pair.first, pair.second))


def _repeated(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the places of all numbers that are there more than once, rising."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse] > 1)


def _at(parts: Mapping[str, Tensor], home: tuple[str, int]) -> Tensor:
    return parts[home[0]][home[1]]


def _sampled(num: int, seed: int) -> Tensor:
    if num <= MAX_IMAGES:
        return torch.arange(num)
    return torch.randperm(num, generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES].sort().values


def _thumbnails(images: Tensor, places: Tensor) -> Tensor:
    """Return grey thumbnails with mean 0 and length 1, float32 [N, pixels]; those of images of one colour are 0, and like nothing."""
    rows = []
    for chosen in places.split(max(1, _BLOCK_VALUES // images[0].numel())):
        pixels = grey(images[chosen].float() / pixel_scale(images))
        if max(pixels.shape[1:]) > MAX_SIDE:
            pixels = F.adaptive_avg_pool2d(pixels, (min(pixels.shape[1], MAX_SIDE), min(pixels.shape[2], MAX_SIDE)))
        flat = pixels.flatten(1) - pixels.flatten(1).mean(1, keepdim=True)
        length = flat.norm(dim=1, keepdim=True)
        rows.append(torch.where(length > 1e-3, flat / length.clamp(min=1e-3), 0.0))
    return torch.cat(rows)


def _nearly(thumbnails: Tensor, seed: int) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of rows whose correlation is NEAR or more, and that."""
    short = thumbnails @ _directions(thumbnails, seed)
    # |a - b|^2 = 2 - 2 <a, b> for rows of length 1, and on the directions it is less: |a'|^2 + |b'|^2 - 2 <a', b'>
    squares = short.square().sum(1)
    limit = 2 - 2 * NEAR + 1e-4
    for begin in range(0, len(short), _BLOCK):
        block, own = short[begin : begin + _BLOCK], squares[begin : begin + _BLOCK, None]
        for other in range(begin, len(short), _BLOCK):
            gaps = torch.addmm(own + squares[None, other : other + _BLOCK], block, short[other : other + _BLOCK].T, alpha=-2)
            close = (gaps <= limit).nonzero()
            first, second = close[:, 0] + begin, close[:, 1] + other
            first, second = first[first < second], second[first < second]
            for some, others in zip(first.split(_BLOCK), second.split(_BLOCK), strict=True):
                found = (thumbnails[some] * thumbnails[others]).sum(1)
                for place in (found >= NEAR).nonzero().flatten().tolist():
                    yield int(some[place]), int(others[place]), min(float(found[place]), 1.0)


def _directions(thumbnails: Tensor, seed: int) -> Tensor:
    """Return at most DIRECTIONS orthonormal columns along which thumbnails differ most, by a sample of them."""
    generator = torch.Generator().manual_seed(seed)
    sample = thumbnails[torch.randperm(len(thumbnails), generator=generator)[: 2 * _BLOCK]]
    directions: Tensor = torch.linalg.eigh(sample.T @ sample).eigenvectors
    return directions[:, -DIRECTIONS:]
