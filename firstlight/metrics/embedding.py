"""How well points of several classes lie apart, and their principal components; float64 on the CPU, in blocks that keep memory flat."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 500
"""Points whose distances to all others are there at once."""


class Components(NamedTuple):
    """points: float64 [N, M], along the M directions of largest variance; shares: float64 [M], of the variance that each explains."""

    points: Tensor
    shares: Tensor


def principal_components(features: Tensor, num: int = 2) -> Components:
    """Return the points in their first principal components (Pearson 1901); where there are fewer, the rest are zero.

    features: [N, D]. Signs are such that the largest weight of each direction is positive, as in scikit-learn.
    """
    centred = features.double() - features.double().mean(0)
    wide = centred.shape[1] > centred.shape[0]
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    values, vectors = values.flip(0)[:num].clamp(min=0), vectors.flip(1)[:, :num]
    directions = centred.T @ vectors if wide else vectors
    directions = directions / torch.linalg.vector_norm(directions, dim=0).clamp(min=1e-300)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    points = centred @ (directions * largest.sign())
    shares = values / centred.square().sum().clamp(min=1e-300)
    missing = num - points.shape[1]
    return Components(torch.nn.functional.pad(points, (0, missing)), torch.nn.functional.pad(shares, (0, missing)))


def neighbour_accuracy(points: Tensor, labels: Tensor, *, k: int = 5) -> float:
    """Return the share of points whose class is the most frequent among their k nearest other points (the smallest label of ties).

    points: [N, D]; labels: int64 [N].
    """
    k = min(k, len(points) - 1)
    if k < 1:
        return 0.0
    hits, num_classes = 0, int(labels.max()) + 1
    for start, distances in _distances(points):
        rows = torch.arange(len(distances))
        distances[rows, start + rows] = torch.inf
        nearest = labels[distances.topk(k, largest=False).indices]
        votes = torch.nn.functional.one_hot(nearest, num_classes).sum(1)
        hits += int((votes.argmax(1) == labels[start : start + len(distances)]).sum())
    return hits / len(points)


def silhouette(points: Tensor, labels: Tensor) -> float | None:
    """Return the mean silhouette coefficient, from -1 (in another class's midst) to 1 (classes far apart) (Rousseeuw 1987).

    points: [N, D]; labels: int64 [N]. A class of one point counts 0; None where there are fewer than two classes.
    """
    _, own, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    members = torch.nn.functional.one_hot(own, len(counts)).double()
    total = 0.0
    for start, distances in _distances(points):
        sums, mine = distances @ members, own[start : start + len(distances)][:, None]
        within = sums.gather(1, mine).squeeze(1) / (counts[mine.squeeze(1)] - 1).clamp(min=1)
        others = (sums / counts).scatter(1, mine, torch.inf).amin(1)
        alone = counts[mine.squeeze(1)] == 1
        widths = (others - within) / torch.maximum(others, within).clamp(min=1e-300)
        total += float(torch.where(alone, 0.0, widths).sum())
    return total / len(points)


def _distances(points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the Euclidean distances float64 [B, N] of a block of points to all, with the place of the first."""
    exact = points.double()
    for start in range(0, len(exact), BLOCK):
        distances = torch.cdist(exact[start : start + BLOCK], exact, compute_mode="use_mm_for_euclid_dist")
        rows = torch.arange(len(distances))
        distances[rows, start + rows] = 0  # rounding leaves 1e-8
        yield start, distances
