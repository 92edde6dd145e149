"""Images that are there twice: the same to the last pixel, or nearly the same, within a part of the data and across parts.

Nearly the same: the correlation of their grey thumbnails (at most 32 pixels square) is NEAR or more. No pair is missed: thumbnails are
turned onto a few orthonormal directions, where no distance grows, and the pairs that are close there are measured in full. All pairs are
looked at in blocks, so that memory does not grow with their number. Images that are streamed are read once, in their order, and what is
kept of them is bounded. Reading order: find_duplicates, _read, _same, _nearly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from firstlight.data.normalize import pixel_scale
from firstlight.inspection.corruptions import grey
from firstlight.inspection.digests import MAX_DIGESTS, Digests, digests_of

NEAR = 0.99
"""Correlation of two thumbnails from which images count as nearly the same."""
MAX_IMAGES = 100_000
"""Images of each part among which near-duplicates are looked for; of more, a seeded sample."""
MAX_PAIRS = 10_000
"""Near-duplicates that are kept; there may be more, and then it is said."""
MAX_COPIES = 100_000
"""Exact copies that are kept; there may be more, and then it is said."""
MAX_SIDE = 32
DIRECTIONS = 64
_BLOCK = 2048
"""Images whose pairs are looked at together: 16 MB of correlations."""
_BLOCK_VALUES = 4_000_000
"""Pixel values of the images that are made thumbnails together."""


@dataclass(frozen=True, slots=True)
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

    exact: for each image that has an earlier twin, the pair of both. near: other pairs, the most alike first. num_hashed, num_sampled:
    images of each part among which exact copies and near-duplicates were looked for. complete: False where more near-duplicates are
    there than are kept; all_exact: the same of the exact copies.
    """

    exact: list[Pair]
    near: list[Pair]
    num_hashed: dict[str, int]
    num_sampled: dict[str, int]
    complete: bool
    all_exact: bool

    def num(self, *, exact: bool) -> dict[tuple[str, str], int]:
        """Return how many pairs join each two parts, train with itself first."""
        counts: dict[tuple[str, str], int] = {}
        parts = list(self.num_sampled)
        for place, part in enumerate(parts):
            counts |= dict.fromkeys(((part, other) for other in parts[place:]), 0)
        for pair in self.exact if exact else self.near:
            counts[pair.first_part, pair.second_part] += 1
        return counts


@dataclass(frozen=True)
class _Homes:
    """The part of each of some images, by number, and its place there: int64 [N] both, part after part."""

    parts: tuple[str, ...]
    part: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, places: Mapping[str, NDArray[np.int64]]) -> "_Homes":
        return cls(tuple(places), np.repeat(np.arange(len(places)), [*map(len, places.values())]), np.concatenate([*places.values()]))

    def pair(self, first: int, second: int, correlation: float, *, exact: bool) -> Pair:
        homes = [(self.parts[self.part[image]], int(self.place[image])) for image in (first, second)]
        return Pair(*homes[0], *homes[1], correlation, exact)

    def num(self) -> dict[str, int]:
        return {part: int((self.part == number).sum()) for number, part in enumerate(self.parts)}


def find_duplicates(parts: Mapping[str, Tensor], *, seed: int = 0) -> Duplicates:
    """Return the duplicates within and across parts, images uint8 or float [N, C, H, W] (in memory or streamed) by name of the part.

    Exact copies are looked for among the first MAX_DIGESTS images of each part, near-duplicates among MAX_IMAGES of each.
    60,000 images of 28 x 28 take some ten seconds of one core.
    """
    sampled = _Homes.of({part: _sampled(len(images), seed) for part, images in parts.items()})
    hashed = _Homes.of({part: np.arange(min(len(images), MAX_DIGESTS)) for part, images in parts.items()})
    digests, thumbnails = _read(parts, sampled)
    originals, copies = _same(digests)
    exact = [
        hashed.pair(*pair, 1.0, exact=True) for pair in zip(originals[:MAX_COPIES].tolist(), copies[:MAX_COPIES].tolist(), strict=True)
    ]
    twin = np.isin(_numbers(sampled), _numbers(hashed)[copies])
    near: list[Pair] = []
    complete = True
    for first, second, correlation in _nearly(thumbnails, seed):
        if twin[first] or twin[second]:
            continue
        if len(near) >= MAX_PAIRS:
            complete = False
            break
        near.append(sampled.pair(first, second, correlation, exact=False))
    near.sort(key=lambda pair: -pair.correlation)
    return Duplicates(exact, near, hashed.num(), sampled.num(), complete, all_exact=len(copies) <= MAX_COPIES)


def _numbers(homes: _Homes) -> NDArray[np.int64]:
    """Return one number for part and place of each image."""
    return homes.part << 48 | homes.place


def _read(parts: Mapping[str, Tensor], sampled: _Homes) -> tuple[Digests, Tensor]:
    """Return the digests of the first images of each part, and the thumbnails of those sampled; every image is read once, in its order."""
    digests = []
    thumbnails = torch.zeros(len(sampled.part), max(_thumbnail_size(images) for images in parts.values()))
    done = 0
    for number, images in enumerate(parts.values()):
        wanted = sampled.place[sampled.part == number]
        begin = num_hashed = 0
        for block in images.split(max(1, _BLOCK_VALUES // prod(images.shape[1:]))):
            if num_hashed < MAX_DIGESTS:
                digests.append(digests_of(block[: MAX_DIGESTS - num_hashed]))
                num_hashed += len(digests[-1])
            first, last = np.searchsorted(wanted, (begin, begin + len(block)))
            if first < last:
                rows = _thumbnails(block[torch.from_numpy(wanted[first:last] - begin)])
                thumbnails[done : done + len(rows), : rows.shape[1]] = rows
                done += len(rows)
            begin += len(block)
    return np.concatenate(digests), thumbnails


def _same(digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each image that equals an earlier one, by number, behind the first that it equals; sorted by that."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: the first of equal ones comes first
    is_copy = np.append(False, (digests[order[1:]] == digests[order[:-1]]).all(1))[: len(order)]
    first = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(order))))
    originals, copies = order[first[is_copy]], order[is_copy]
    by_original = np.lexsort((copies, originals))
    return originals[by_original], copies[by_original]


def _sampled(num: int, seed: int) -> NDArray[np.int64]:
    """Return the places of the images that near-duplicates are looked for in, rising."""
    if num <= MAX_IMAGES:
        return np.arange(num)
    chosen: NDArray[np.int64] = torch.randperm(num, generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES].sort().values.numpy()
    return chosen


def _thumbnail_size(images: Tensor) -> int:
    """Return the pixels of a thumbnail."""
    return min(images.shape[2], MAX_SIDE) * min(images.shape[3], MAX_SIDE)


def _thumbnails(images: Tensor) -> Tensor:
    """Return grey thumbnails with mean 0 and length 1, float32 [N, pixels]; those of images of one colour are 0, and like nothing."""
    pixels = grey(images.float() / pixel_scale(images))
    if max(pixels.shape[1:]) > MAX_SIDE:
        pixels = F.adaptive_avg_pool2d(pixels, (min(pixels.shape[1], MAX_SIDE), min(pixels.shape[2], MAX_SIDE)))
    flat = pixels.flatten(1) - pixels.flatten(1).mean(1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3, flat / length.clamp(min=1e-3), 0.0)


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
