"""The training images that a network sees as most like a given one: nearest by the angle between their features."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each of M images the nearest ones of a set, nearest first.

    indices: int64 [M, n], places in the set; similarity: float32 [M, n], cosine of the angle between the features.
    """

    indices: Tensor
    similarity: Tensor


def nearest(queries: Tensor, blocks: Iterable[tuple[Tensor, Tensor]], *, num: int, left_out: Tensor | None = None) -> Neighbours:
    """Return the `num` nearest of a set that comes in blocks, each with its best so far; fewer where the set has fewer.

    queries: features float32 [M, D]; blocks: features float32 [B, D] with their places in the set, int64 [B].
    left_out: int64 [M], the place of each query in the set, where it is one of it. Of equally near images the first one counts.
    """
    wanted = normalize(queries, dim=1)
    found = Neighbours(torch.empty(len(queries), 0, dtype=torch.int64), torch.empty(len(queries), 0))
    for features, places in blocks:
        near = wanted.to(features.device) @ normalize(features, dim=1).T
        if left_out is not None:
            near[left_out.to(places.device)[:, None] == places[None, :]] = -torch.inf
        found = _merged(found, near.cpu(), places.cpu(), num)
    return found


def _merged(found: Neighbours, near: Tensor, places: Tensor, num: int) -> Neighbours:
    similarity = torch.cat((found.similarity, near), dim=1)
    indices = torch.cat((found.indices, places.expand(len(near), -1)), dim=1)
    order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :num]
    kept = Neighbours(indices.gather(1, order), similarity.gather(1, order))
    there = int(torch.isfinite(kept.similarity).sum(dim=1).min()) if len(near) else 0
    return Neighbours(kept.indices[:, :there], kept.similarity[:, :there])
