"""Sixteen bytes for each image that stand for its pixels: equal images are found by them, and nothing else of an image is kept."""

import hashlib
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MAX_DIGESTS = 4_000_000
"""Images of a part that are hashed: 64 MB. Of more, the first ones, and then it is said."""
_BLOCK_VALUES = 4_000_000
"""Pixel values that are read together."""

Digests = NDArray[np.uint64]
"""uint64 [N, 2]."""


def digests_of(images: Tensor) -> Digests:
    """Return digests (BLAKE2b, 128 bits) of images [N, ...] in memory, which are the same for the same values alone."""
    rows = images.detach().cpu().contiguous().flatten(1).numpy()
    words = bytearray().join(hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.frombuffer(words, np.uint64).reshape(-1, 2) if words else np.empty((0, 2), np.uint64)


def all_digests(images: Tensor) -> Digests:
    """Return the digests of the first MAX_DIGESTS images [N, ...] at most; those that are streamed are read once, in blocks."""
    found = np.empty((min(len(images), MAX_DIGESTS), 2), np.uint64)
    done = 0
    for block in images.split(max(1, _BLOCK_VALUES // max(1, prod(images.shape[1:])))):
        if done == len(found):
            break
        some = digests_of(block[: len(found) - done])
        found[done : done + len(some)] = some
        done += len(some)
    return found


def are_among(asked: Digests, known: Digests) -> NDArray[np.bool_]:
    """Tell which of `asked` [M, 2] are among `known` [N, 2], bool [M]."""
    both = np.concatenate((known, asked))
    order = np.lexsort((both[:, 1], both[:, 0]))  # stable: what is known comes before what is asked
    is_first = np.append(True, (both[order[1:]] != both[order[:-1]]).any(1))
    first = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    found = np.empty(len(both), bool)
    found[order] = first < len(known)
    return found[len(known) :]


def num_distinct(digests: Digests) -> int:
    """Return how many differ."""
    return len(np.unique(digests, axis=0))
