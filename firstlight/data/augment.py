"""Random changes of a batch of images, a draw per image; every draw is a function of (seed, epoch, index of the image).

Order: crop, flip, rotation, colour jitter on pixels, then normalisation, then cutout. Crop and flip are done while a batch is
gathered (pixel_store.py); `reference_augment` in augment_reference.py says the same for one image in plain loops.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from firstlight.data.draws import Stream, integers, uniform

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey of an image (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augment:
    """Which changes are drawn; the defaults change nothing.

    flip: draw at each epoch which images are mirrored; `alternating` draws once, and turns each image over from epoch to epoch.
    crop: pixels of reflected border of which a window of the old size is cut. rotation: largest angle in degrees.
    color_jitter: brightness, contrast and saturation are scaled by factors in [1 - x, 1 + x]. cutout: side of the blank square in pixels.
    """

    flip: bool | Literal["alternating"] = False
    crop: int = 0
    rotation: float = 0.0
    color_jitter: float = 0.0
    cutout: int = 0


class Drawn(NamedTuple):
    """Some images of an epoch and all that was drawn for them, before a pixel is touched; None where the Augment asks for no such draw.

    indices: int64 [B], places in the data set; corners: int64 [2, B]; mirrored: bool [B]; angles: float32 [B], degrees;
    color_factors: float32 [3, B]; cutout_centres: int64 [2, B].
    """

    indices: Tensor
    corners: Tensor | None
    mirrored: Tensor | None
    angles: Tensor | None
    color_factors: Tensor | None
    cutout_centres: Tensor | None

    def part(self, places: slice) -> Self:
        """Return those at some places."""
        rest = (None if drawn is None else drawn[..., places] for drawn in self[1:])
        return type(self)(self.indices[places], *rest)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch for any images, by the Augment that they are for."""

    augment: Augment
    seed: int
    epoch: int

    def corners(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return top and left of each window in the padded image, int64 [B]; the padding itself is the middle."""
        num_places = 2 * self.augment.crop + 1
        return self._integers(indices, Stream.CROP_TOP, num_places), self._integers(indices, Stream.CROP_LEFT, num_places)

    def mirrored(self, indices: Tensor) -> Tensor:
        """Return which images are mirrored left to right, bool [B]."""
        if self.augment.flip == "alternating":
            first_epoch = uniform(self.seed, 0, indices, Stream.FLIP) < 0.5
            return first_epoch if self.epoch % 2 == 0 else ~first_epoch
        return self._uniform(indices, Stream.FLIP) < 0.5

    def angles(self, indices: Tensor) -> Tensor:
        """Return by how many degrees each image is turned counter-clockwise, float32 [B]."""
        return (self._uniform(indices, Stream.ANGLE) * 2 - 1) * self.augment.rotation

    def color_factors(self, indices: Tensor) -> Tensor:
        """Return the factors of brightness, contrast and saturation, float32 [3, B]."""
        streams = (Stream.BRIGHTNESS, Stream.CONTRAST, Stream.SATURATION)
        return torch.stack([1 + (self._uniform(indices, stream) * 2 - 1) * self.augment.color_jitter for stream in streams])

    def cutout_centres(self, indices: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return row and column of the middle of each blank square, int64 [B]; it may reach over the edge of the image."""
        return self._integers(indices, Stream.CUTOUT_TOP, height), self._integers(indices, Stream.CUTOUT_LEFT, width)

    def of(self, indices: Tensor, height: int, width: int) -> Drawn:
        """Return everything that is drawn for the images at `indices`; hashing 128 of them takes as long as hashing 2,000."""
        augment = self.augment
        return Drawn(
            indices,
            torch.stack(self.corners(indices)) if augment.crop else None,
            self.mirrored(indices) if augment.flip else None,
            self.angles(indices) if augment.rotation else None,
            self.color_factors(indices) if augment.color_jitter else None,
            torch.stack(self.cutout_centres(indices, height, width)) if augment.cutout else None,
        )

    def _uniform(self, indices: Tensor, stream: Stream) -> Tensor:
        return uniform(self.seed, self.epoch, indices, stream)

    def _integers(self, indices: Tensor, stream: Stream, bound: int) -> Tensor:
        return integers(self.seed, self.epoch, indices, stream, bound)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its middle, bilinear, with its own reflection beyond the edges.

    images: float [B, C, H, W]; degrees: float [B].
    """
    height, width = images.shape[2:]
    cosine, sine = degrees.deg2rad().cos()[:, None, None], degrees.deg2rad().sin()[:, None, None]
    y = torch.arange(height, device=images.device).sub((height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device).sub((width - 1) / 2)[None, :]
    # grid_sample wants the source of each pixel, with -1 and 1 at the middles of the outer pixels.
    from_x = (cosine * x - sine * y) * (2 / max(width - 1, 1))
    from_y = (sine * x + cosine * y) * (2 / max(height - 1, 1))
    sources = torch.stack((from_x, from_y), dim=-1)
    turned: Tensor = F.grid_sample(images, sources, mode="bilinear", padding_mode="reflection", align_corners=True)
    return turned


def jitter_colors(images: Tensor, factors: Tensor, white: float) -> Tensor:
    """Scale brightness, then contrast (about the mean grey of the image), then saturation (about the grey of the pixel).

    images: float [B, C, H, W] in [0, white]; factors: float [3, B]. Each step is clamped to that range.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None]
    images = (images * brightness).clamp(0, white)
    images = images.lerp(_grey(images).mean((2, 3), keepdim=True), 1 - contrast).clamp(0, white)
    return images.lerp(_grey(images), 1 - saturation).clamp(0, white)


def cut_out(images: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Set the square of `size` pixels about each centre to 0, in place (DeVries and Taylor 2017); after normalisation 0 is the mean."""
    height, width = images.shape[2:]
    in_rows = _covered(rows, size, height)
    in_columns = _covered(columns, size, width)
    return images.masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def _covered(centres: Tensor, size: int, length: int) -> Tensor:
    """Return bool [B, length]: which places lie in the `size` places about each centre."""
    distance = torch.arange(length, device=centres.device) - centres[:, None] + size // 2
    return (distance >= 0) & (distance < size)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
    return grey
