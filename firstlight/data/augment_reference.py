"""The augmentation of one image in plain loops: slow, and what the fast path is tested against."""

import math

import torch
from torch import Tensor

from firstlight.data.augment import LUMA, Augment, Draws
from firstlight.data.normalize import Normalize, pixel_scale


def reference_augment(image: Tensor, index: int, *, epoch: int, seed: int, augment: Augment, normalize: Normalize) -> Tensor:
    """Return one image as the network sees it in this epoch; [C, H, W] uint8 or float in [0, 1] -> float32 [C, H, W]."""
    draws, indices, white = Draws(augment, seed, epoch), torch.tensor([index]), pixel_scale(image)
    if augment.crop:
        top, left = (int(place) for place in draws.corners(indices))
        image = _crop(image, augment.crop, top, left)
    if augment.flip and draws.mirrored(indices):
        image = image[:, :, torch.arange(image.shape[2] - 1, -1, -1)]
    if augment.rotation:
        image = _rotate(image.float(), float(draws.angles(indices)))
    if augment.color_jitter:
        image = _jitter(image.double(), draws.color_factors(indices)[:, 0].tolist(), white)
    image = normalize.apply(image.float() / white) if augment.rotation or augment.color_jitter else normalize.apply(image)
    if augment.cutout:
        row, column = (int(place) for place in draws.cutout_centres(indices, *image.shape[1:]))
        top, left = row - augment.cutout // 2, column - augment.cutout // 2
        image[:, max(top, 0) : max(top + augment.cutout, 0), max(left, 0) : max(left + augment.cutout, 0)] = 0
    return image


def _crop(image: Tensor, border: int, top: int, left: int) -> Tensor:
    height, width = image.shape[1:]
    window = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            window[:, row, column] = image[:, _reflect(row + top - border, height), _reflect(column + left - border, width)]
    return window


def _reflect(place: int, length: int) -> int:
    """Return the place inside 0..length-1 that a mirror at the outer pixels shows at `place`."""
    place = abs(place)
    return place if place < length else 2 * (length - 1) - place


def _rotate(image: Tensor, degrees: float) -> Tensor:
    height, width = image.shape[1:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row - (height - 1) / 2, column - (width - 1) / 2
            from_y = sine * x + cosine * y + (height - 1) / 2
            from_x = cosine * x - sine * y + (width - 1) / 2
            turned[:, row, column] = _blend(image, from_y, from_x)
    return turned


def _blend(image: Tensor, y: float, x: float) -> Tensor:
    """Return the colour at a place between pixels, from the four around it."""
    height, width = image.shape[1:]
    top, left = math.floor(y), math.floor(x)
    colour = torch.zeros_like(image[:, 0, 0])
    for row, row_share in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_share in ((left, 1 - (x - left)), (left + 1, x - left)):
            colour += image[:, _reflect(row, height), _reflect(column, width)] * row_share * column_share
    return colour


def _jitter(image: Tensor, factors: list[float], white: float) -> Tensor:
    brightness, contrast, saturation = factors
    image = (image * brightness).clamp(0, white)
    mean = _grey(image).mean()
    image = (mean + (image - mean) * contrast).clamp(0, white)
    grey = _grey(image)
    return (grey + (image - grey) * saturation).clamp(0, white)


def _grey(image: Tensor) -> Tensor:
    return sum((share * channel for share, channel in zip(LUMA, image, strict=True)), torch.zeros(1)) if len(image) == 3 else image.mean(0)
