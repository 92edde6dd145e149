"""Eight ways to corrupt images, each with a strength in natural units, and all of them together as one recipe.

A recipe says the strength of some terms, such as {"rotation": 15.0, "noise": 0.1}. Whatever the order of its terms, geometry comes first
(turned, then sheared, scaled and moved, in one interpolation), then blur, contrast, inversion, noise. Reading order: TERMS, corrupt.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from firstlight.data.augment import LUMA


@dataclass(frozen=True)
class Term:
    """One number of a recipe.

    neutral: the strength that changes nothing. drawn: each image gets a strength of its own, even between plus and minus this one
    about the neutral one.
    """

    kind: str
    unit: str
    neutral: float = 0.0
    drawn: bool = False


TERMS: Mapping[str, Term] = {
    "rotation": Term("rotation", "degrees counter-clockwise"),
    "rotation_drawn": Term("rotation", "degrees", drawn=True),
    "shear_x": Term("shear", "to the right per unit of height"),
    "shear_y": Term("shear", "upwards per unit of width"),
    "shear_x_drawn": Term("shear", "sideways per unit of height", drawn=True),
    "scale": Term("scale", "times as large", 1.0),
    "scale_drawn": Term("scale", "times as large", 1.0, drawn=True),
    "move_x": Term("translation", "pixels to the right"),
    "move_y": Term("translation", "pixels downwards"),
    "move_drawn": Term("translation", "pixels either way", drawn=True),
    "bilinear": Term("", "share of bilinear interpolation in a warp, beside cubic splines"),
    "blur": Term("blur", "pixels (sigma)"),
    "contrast": Term("contrast", "times, about each image's mean", 1.0),
    "contrast_middle": Term("contrast", "times, about middle grey", 1.0),
    "contrast_black": Term("contrast", "times, about black", 1.0),
    "inversion": Term("inversion", ""),
    "noise": Term("noise", "standard deviation of pixels in [0, 1]"),
}
"""Every term of a recipe. All lengths are in pixels of the images as they are given; pixel values lie in [0, 1]."""

KINDS = tuple(dict.fromkeys(term.kind for term in TERMS.values() if term.kind))
"""The eight kinds that can be named."""
LEAST_BLUR = 0.1
"""Pixels; a narrower Gaussian changes nothing."""
FINENESS = 3
"""Cubic splines are evaluated at so many places for a pixel in each direction; odd, so that the pixels are among them."""


@dataclass(frozen=True)
class Originals:
    """Images that are corrupted again and again, with what is made and drawn once, so that a figure is a smooth function of the strengths.

    images: float32 [N, C, H, W] in [0, 1]; fine: their cubic splines at FINENESS times as many rows and columns; signs: float32 [N, 5] in
    [-1, 1] for rotation, shear, scale and the two moves; normal: float32 [N, C, H, W].
    """

    images: Tensor
    fine: Tensor
    signs: Tensor
    normal: Tensor

    @classmethod
    def of(cls, images: Tensor, seed: int) -> "Originals":
        """Prepare images [N, C, H, W]."""
        generator = torch.Generator().manual_seed(seed)
        down, right = (_spline(length) for length in images.shape[2:])
        fine = (down @ images @ right.T).clamp_(0, 1)
        signs = torch.rand(len(images), 5, generator=generator) * 2 - 1
        return cls(images, fine, signs, torch.randn(images.shape, generator=generator))

    def first(self, num: int) -> "Originals":
        """Return the first images alone."""
        return Originals(self.images[:num], self.fine[:num], self.signs[:num], self.normal[:num])


def corrupt(originals: Originals, recipe: Mapping[str, float]) -> Tensor:
    """Return the images with every term of the recipe done to them, float32 [N, C, H, W] in [0, 1].

    Beyond their edges images are black. Pixels are cut to [0, 1] at the end. How pixels are interpolated shows more than a small
    turn does, so it is a term of its own: `bilinear` 0 is a cubic spline, 1 is bilinear.
    """
    strength = {name: term.neutral for name, term in TERMS.items()} | dict(recipe)
    assert strength.keys() == TERMS.keys(), f"no such term: {strength.keys() - TERMS.keys()}"
    images = originals.images
    if any(strength[name] != TERMS[name].neutral for name in GEOMETRY):
        grid = _grid(images.shape, *_affine(strength, originals.signs))
        warped = _sampled(originals.fine, grid)
        images = warped.lerp(_sampled(images, grid), strength["bilinear"]) if strength["bilinear"] else warped
    if strength["blur"] > LEAST_BLUR:
        images = gaussian_blur(images, strength["blur"])
    for name, pivot in (("contrast", None), ("contrast_middle", 0.5), ("contrast_black", 0.0)):
        if strength[name] != 1:
            about = images.mean((1, 2, 3), keepdim=True) if pivot is None else pivot
            images = (images - about) * strength[name] + about
    if strength["inversion"]:
        images = 1 - images
    if strength["noise"] > 0:
        images = images + strength["noise"] * originals.normal
    return images.clamp(0, 1)


GEOMETRY = tuple(name for name, term in TERMS.items() if term.kind in ("rotation", "shear", "scale", "translation"))


def _affine(strength: Mapping[str, float], signs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maps from the old place of a pixel (right, down, in pixels from the middle) to the new: [N, 2, 2] and shifts [N, 2]."""
    angle = torch.deg2rad(strength["rotation"] + strength["rotation_drawn"] * signs[:, 0])
    cosine, sine, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    turn = _matrix(cosine, sine, -sine, cosine)
    lean = _matrix(one, -(strength["shear_x"] + strength["shear_x_drawn"] * signs[:, 1]), zero, one)
    rise = _matrix(one, zero, zero - strength["shear_y"], one)
    size = (strength["scale"] * (1 + (strength["scale_drawn"] - 1) * signs[:, 2])).clamp(min=0.05)
    moved = torch.stack(
        (strength["move_x"] + strength["move_drawn"] * signs[:, 3], strength["move_y"] + strength["move_drawn"] * signs[:, 4]), 1
    )
    return size[:, None, None] * (rise @ lean @ turn), moved


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack((torch.stack((a, b), 1), torch.stack((c, d), 1)), 1)


def _grid(shape: torch.Size, matrices: Tensor, moved: Tensor) -> Tensor:
    """Return where each pixel of images of a shape comes from, as grid_sample wants it."""
    height, width = shape[2:]
    back = torch.linalg.inv(matrices)
    half = torch.tensor([width / 2, height / 2])
    # grid_sample measures places in half widths and half heights, and wants where each new pixel comes from
    linear = back * (half[None, None, :] / half[None, :, None])
    shift = -(back @ moved[:, :, None]) / half[None, :, None]
    return F.affine_grid(torch.cat((linear, shift), 2), list(shape), align_corners=False)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Return what lies at the places of a grid, between the nearest four pixels, black beyond the edges."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _spline(length: int) -> Tensor:
    """Return the matrix from pixels in a row to the cubic spline through them at FINENESS places a pixel, [FINENESS * length, length]."""
    places = (torch.arange(FINENESS * length, dtype=torch.float64) + 0.5) / FINENESS - 0.5
    at_pixels = _basis(torch.arange(length, dtype=torch.float64), length)
    matrix: Tensor = (_basis(places, length) @ torch.linalg.inv(at_pixels)).float()
    return matrix


def _basis(places: Tensor, length: int) -> Tensor:
    """Return the cubic B-spline of each pixel at each place, [places, length]; pixels are mirrored at the outer ones."""
    basis = torch.zeros(len(places), length, dtype=torch.float64)
    for knot in range(-2, length + 2):
        gap = (places - knot).abs()
        value = torch.where(gap < 1, 2 / 3 - gap**2 + gap**3 / 2, (2 - gap).clamp(min=0) ** 3 / 6)
        mirrored = abs(knot) if length == 1 else abs((knot + length - 1) % (2 * length - 2) - (length - 1))
        basis[:, min(mirrored, length - 1)] += value
    return basis


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Return float images [N, C, H, W] blurred by a Gaussian of this many pixels, cut at four sigma; edges are reflected."""
    for dim in (2, 3):
        radius = min(max(1, int(4 * sigma + 0.5)), images.shape[dim] - 1)
        places = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (places / sigma) ** 2)
        shape = [1, 1, 1, 1]
        shape[dim] = len(kernel)
        padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        flat = F.pad(images.flatten(0, 1)[:, None], padding, mode="reflect")
        images = F.conv2d(flat, (kernel / kernel.sum()).view(shape)).view(images.shape)
    return images


def grey(images: Tensor) -> Tensor:
    """Return float images [N, C, H, W] as grey ones [N, H, W]; colours are weighted as the eye does."""
    if images.shape[1] != 3:
        return images.mean(1)
    return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA))
