"""Strokes on a pad become what MNIST holds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import firstlight as fl
from firstlight.dashboard.strokes import BOX, PAD, SIZE, Stroke, as_mnist, draw, stroke_width

ZERO: list[Stroke] = [[(0.5 + 0.2 * float(np.sin(angle)), 0.5 - 0.35 * float(np.cos(angle))) for angle in np.linspace(0, 6.3, 40)]]
SEVEN: list[Stroke] = [[(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]]
FOUR: list[Stroke] = [[(0.4, 0.1), (0.2, 0.55), (0.75, 0.55)], [(0.6, 0.3), (0.6, 0.9)]]


def moved(strokes: list[Stroke], scale: float, x: float, y: float) -> list[Stroke]:
    return [[(x + scale * a, y + scale * b) for a, b in stroke] for stroke in strokes]


@pytest.mark.parametrize("strokes", [ZERO, SEVEN, FOUR])
@pytest.mark.parametrize(("scale", "x", "y"), [(0.3, 0.65, 0.65), (0.25, 0.02, 0.1), (1.0, -0.1, 0.1), (0.1, 0.9, 0.0), (0.6, 0.0, 0.4)])
def test_place_and_size_do_not_matter(strokes: list[Stroke], scale: float, x: float, y: float) -> None:
    """E13: digits drawn off-centre, small and large become nearly the same image."""
    here, there = (as_mnist(draw(some)).astype(float) for some in (strokes, moved(strokes, scale, x, y)))
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.98


def test_an_image_of_mnist_stays_what_it_is() -> None:
    """The way MNIST was made, applied to MNIST: on average nothing moves, and most pixels keep their value."""
    images = np.stack([np.asarray(image) for image in mnist_like()])
    again = np.stack([as_mnist(image) for image in images])
    rows = np.arange(SIZE)
    for found in (images, again):
        mass = (found.sum(2) * rows).sum(1) / found.sum((1, 2))
        assert abs(float(mass.mean()) - 14) < 0.5
    assert np.corrcoef(images.ravel().astype(float), again.ravel().astype(float))[0, 1] > 0.9


def mnist_like() -> torch.Tensor:
    """Real digits [60, 28, 28] made as MNIST was: the package's 8 x 8 digits enlarged into 20 x 20, centred by mass."""
    digits = fl.load_data("digits").images[:60, 0]
    large = torch.nn.functional.interpolate(digits[:, None].float(), (BOX, BOX), mode="bicubic").clamp(0, 255)[:, 0]
    placed = torch.zeros(60, SIZE, SIZE)
    placed[:, 4:24, 4:24] = large
    return torch.stack([torch.from_numpy(as_mnist(image.numpy()).copy()) for image in placed])


@pytest.mark.parametrize("width", [2, 6, 14, 30])
@pytest.mark.parametrize("make", [lambda w: (slice(40, 240), slice(100, 100 + w)), lambda w: (slice(100, 100 + w), slice(40, 240))])
def test_the_width_of_a_bar(width: int, make: Callable[[int], tuple[slice, slice]]) -> None:
    ink = np.zeros((PAD, PAD))
    ink[make(width)] = 1
    assert stroke_width(ink) == pytest.approx(width, rel=0.15)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.4, 5.0])
def test_thin_and_thick_strokes_get_the_width_of_mnist(width: float) -> None:
    """Issue 8: thick and thin digits are read. A ring whose stroke is `width` pixels of the 20 x 20 box wide comes out at 1.3 to 4."""
    y, x = np.mgrid[:PAD, :PAD]
    radius = np.hypot(x - 140, y - 140)
    outer = 120
    ring = ((radius < outer) & (radius > outer - width * 2 * outer / BOX)).astype(np.uint8)
    assert 1.3 < stroke_width(as_mnist(ring) / 255) < 4


def test_every_drawing_has_an_image() -> None:
    """A dot, a line along the edge, a stroke beyond it, a full pad, an empty one: always uint8 28 x 28, bright unless empty."""
    for strokes in (
        [[(0.5, 0.5)]],
        [[(0.0, 0.0), (1.0, 0.0)]],
        [[(-0.2, -0.2), (1.2, 1.2)]],
        [[(0.0, y / 50), (1.0, y / 50)] for y in range(51)],
    ):
        image = as_mnist(draw(strokes))
        assert image.shape == (SIZE, SIZE) and image.dtype == np.uint8 and image.max() == 255
    assert not as_mnist(draw([])).any() and not as_mnist(draw([]), centre=False).any()
