"""Which images train and which validate: stratified by class, seeded, and named by a hash.

Both `carve` and `take` read one order of the images, in which every class appears at an even pace.
"""

import torch
from torch import Tensor

from firstlight.errors import ConfigError
from firstlight.files import sha256


def carve(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the sorted indices (int64) of the training part and of the validation part.

    labels: int64 [N]. The validation part holds round(N * fraction) images with the classes in proportion; one image of every
    class stays in the training part, and a fraction above 0 validates on one image at least where that leaves any.
    """
    order, rank, count = _stratified_order(labels, seed)
    may_leave = order[rank < count - 1]
    num_val = max(1, round(len(labels) * fraction)) if fraction > 0 else 0
    val = may_leave[:num_val]
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[val] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def take(labels: Tensor, num: int, seed: int) -> Tensor:
    """Return the sorted indices (int64 [num]) of a part with the classes in proportion.

    For one seed, a smaller part is a subset of a larger one. Every class is there where num is at least the number of classes.
    Raises ConfigError where fewer than `num` images exist.
    """
    if num > len(labels):
        raise ConfigError(
            f"split.num_train: {num:,} images asked for, but {len(labels):,} are there to train on; use {len(labels)} or less"
        )
    order, _, _ = _stratified_order(labels, seed)
    return order[:num].sort().values


def split_hash(indices: Tensor) -> str:
    """Return 16 hexadecimal digits that name these indices in this order."""
    return sha256(indices.to("cpu", torch.int64).numpy().astype("<i8").tobytes())[:16]


def _stratified_order(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all indices so that each prefix is stratified, with the rank of each within its class and the size of that class."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].sort(stable=True).indices]
    sizes = labels[by_class].unique_consecutive(return_counts=True)[1]
    count = sizes.repeat_interleave(sizes)
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    # The k-th of n images of a class belongs at k/n of the way; images at one place go by the shuffle, not by the class.
    place = torch.empty(len(labels), dtype=torch.int64)
    place[shuffled] = torch.arange(len(labels))
    by_place = place[by_class].sort().indices
    order = by_place[(rank.double() / count)[by_place].sort(stable=True).indices]
    return by_class[order], rank[order], count[order]
