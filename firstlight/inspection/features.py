"""What an image looks like in some ninety numbers, and how far apart two sets of images are by them.

Reading order: features, Reference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from firstlight.inspection.corruptions import grey

THRESHOLDS = tuple((2 * step + 1) / 14 for step in range(7))
"""Grey values; of each image the share of pixels above each one is a feature."""
SIDE = 7
"""The image in so few pixels square."""
NUM_BANDS = 8
NUM_SECTORS = 6
NUM_QUANTILES = 16
GROUPS = {"values": len(THRESHOLDS), "places": SIDE * SIDE, "moments": 5, "bands": NUM_BANDS, "sectors": NUM_SECTORS}
"""The features of an image: how many there are of each group, in this order."""
LEAST_SPREAD = {"values": 0.02, "places": 0.03, "moments": 0.1, "bands": 0.1, "sectors": 0.02}
"""A feature that hardly varies within a class is measured against this much, not against its own spread."""


def features(images: Tensor) -> Tensor:
    """Return the features of float32 images [N, C, H, W] in [0, 1], float32 [N, 75], in the order of GROUPS."""
    pixels = grey(images)
    values = torch.stack([(pixels > threshold).float().mean((1, 2)) for threshold in THRESHOLDS], 1)
    places = F.adaptive_avg_pool2d(pixels[:, None], SIDE).flatten(1)
    return torch.cat((values, places, moments(pixels), *_spectrum(pixels)), 1)


def moments(pixels: Tensor) -> Tensor:
    """Return of grey images [N, H, W] the middle of the foreground (right, down), its root mean square width and height, and its slant.

    Foreground is how far a pixel is from the median of the border, in pixels of length; the slant is the mean product of the
    deviations to the right and upwards over the mean square deviation upwards: 0.2 leans to the right by 0.2 a row. Float32 [N, 5].
    """
    height, width = pixels.shape[1:]
    border = torch.cat((pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]), 1).median(1).values
    weight = (pixels - border[:, None, None]).abs() + 1e-6
    weight = weight / weight.sum((1, 2), keepdim=True)
    right, down = torch.arange(width) - (width - 1) / 2, torch.arange(height) - (height - 1) / 2
    columns, rows = weight.sum(1), weight.sum(2)
    x, y = columns @ right, rows @ down
    wide = (columns * (right - x[:, None]).square()).sum(1)
    tall = (rows * (down - y[:, None]).square()).sum(1)
    mixed = torch.einsum("nhw,h,w->n", weight, down, right) - x * y
    return torch.stack((x, y, wide.sqrt(), tall.sqrt(), -mixed / tall.clamp(min=1e-3)), 1)


def radial_power(pixels: Tensor) -> Tensor:
    """Return the mean power of grey images [N, H, W] at 0, 1, 2, ... cycles an image (rounded), float32 [N, min(H, W) // 2 + 1]."""
    power, radius, _ = _power(pixels)
    place = radius.round().long().clamp(max=min(pixels.shape[1:]) // 2 + 1)
    num = int(place.max()) + 1
    sums = torch.zeros(len(pixels), num).index_add_(1, place.flatten(), power.flatten(1))
    counts = torch.zeros(num).index_add_(0, place.flatten(), torch.ones(place.numel()))
    return (sums / counts)[:, : min(pixels.shape[1:]) // 2 + 1]


def _power(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the power of each wave with its cycles an image and its direction in half turns (0 to 1)."""
    height, width = pixels.shape[1:]
    waves = torch.fft.rfft2(pixels - pixels.mean((1, 2), keepdim=True), norm="ortho")
    down, right = torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width)[None, :] * width
    scale = min(height, width)
    radius = torch.sqrt((down * scale / height) ** 2 + (right * scale / width) ** 2)
    return waves.abs().square(), radius, torch.atan2(down, right).remainder(math.pi) / math.pi


def _spectrum(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the power in rings, and the share of it in each direction."""
    power, radius, direction = _power(pixels)
    half = min(pixels.shape[1:]) / 2
    ring = (radius / half * NUM_BANDS).long().clamp(max=NUM_BANDS - 1)
    rings = _collect(power, ring, NUM_BANDS, radius > 0)
    inner = (radius > 0) & (radius <= half)
    sector = (direction * NUM_SECTORS).round().long() % NUM_SECTORS
    sectors = _collect(power.sqrt(), sector, NUM_SECTORS, inner)
    return (rings + 1e-5).log10(), sectors / sectors.sum(1, keepdim=True).clamp(min=1e-6)


def _collect(power: Tensor, place: Tensor, num: int, chosen: Tensor) -> Tensor:
    """Return the mean over the chosen waves of each place, [N, num]."""
    weights = F.one_hot(place, num).float() * chosen[..., None]
    return power.flatten(1) @ (weights.view(-1, num) / weights.view(-1, num).sum(0).clamp(min=1))


@dataclass(frozen=True)
class Profile:
    """The features of a set of images as quantiles within each class.

    quantiles: float32 [classes, features, NUM_QUANTILES]; variances: within the classes, float32 [features].
    """

    quantiles: Tensor
    variances: Tensor

    @classmethod
    def of(cls, found: Tensor, places: Sequence[Tensor]) -> "Profile":
        """Describe features [N, features] of images; places: which of them belong to each class."""
        columns = found.T.contiguous()
        rows = [columns[:, chosen] for chosen in places]
        return cls(torch.stack([_quantiles(row) for row in rows]), torch.stack([row.var(1, correction=0) for row in rows]).mean(0))


def _quantiles(rows: Tensor) -> Tensor:
    """Return evenly spread quantiles of each row, between the sorted values, [features, NUM_QUANTILES]."""
    ordered, last = rows.sort(1).values, rows.shape[1] - 1
    at = (torch.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES * last
    below = at.long()
    return ordered[:, below].lerp(ordered[:, (below + 1).clamp(max=last)], at - below)


def weights(one: Profile, other: Profile) -> Tensor:
    """Return what a unit of each feature counts in a distance between two such sets, float32 [features]; every group counts the same."""
    spread = ((one.variances + other.variances) / 2).sqrt()
    least = torch.cat([torch.full((num,), LEAST_SPREAD[group]) for group, num in GROUPS.items()])
    share = torch.cat([torch.full((num,), 1 / num / len(GROUPS)) for num in GROUPS.values()])
    return share / spread.maximum(least)


def distance(one: Profile, other: Profile, weight: Tensor) -> float:
    """Return how far apart two sets are: the Wasserstein distance of each feature within each class over its spread, averaged.

    0 is the same; two draws of the same images are a little apart.
    """
    return float(((one.quantiles - other.quantiles).abs().mean((0, 2)) * weight).sum())
