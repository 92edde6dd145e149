"""A drawn digit as MNIST has it: strokes become ink, the ink is scaled into 20 x 20 pixels and put with its centre of mass into 28 x 28.

That is how MNIST was made (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition", III.A), so
it does not matter where on a pad a digit stands, or how large it is. A pen is thinner or thicker than those of 1995: the strokes are
widened or thinned to what MNIST's measure, unless a digit is nothing but ink then.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Stroke = Sequence[Point]

SIZE, BOX = 28, 20
PAD = 280
"""Pixels of a pad's side on which strokes are drawn, and those of a digit's longer side when its strokes are widened or thinned."""
DRAWN = 200
"""Pixels of the longer side of a drawing, without the width of the pen."""
PEN = 2.3 / BOX
"""Width of the pen, as a share of a digit's longer side: the median of MNIST."""
DOT = 0.03
"""A drawing that is smaller, as a share of a pad's side, is a dot, and is not enlarged further."""
FAINT = 0.15
"""Ink below this share of the darkest is background: what compression and smoothing leave around a stroke."""
THIN, THICK = 1.6, 3.35
"""Widths of strokes, in pixels of the 20 x 20 box, of MNIST's 5 % thinnest and thickest digits, as `stroke_width` measures them."""


def draw(strokes: Sequence[Stroke]) -> NDArray[np.uint8]:
    """Return strokes as ink, uint8 [280, 280], 255 where the pen was; points are x, y in [0, 1], from the top left corner.

    The drawing fills most of the pad, and the pen is as wide as MNIST's for a digit of that size, so that a small drawing keeps its shape.
    """
    pad = Image.new("L", (PAD, PAD))
    points = [point for stroke in strokes for point in stroke]
    if not points:
        return np.asarray(pad)
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    longest = max(float((high - low).max()), DOT)
    scale, middle = DRAWN / longest, (low + high) / 2
    pen, radius = ImageDraw.Draw(pad), DRAWN * PEN / (1 - PEN) / 2
    for stroke in strokes:
        places = [tuple(PAD / 2 + scale * (np.asarray(point) - middle)) for point in stroke]
        if len(places) > 1:
            pen.line(places, fill=255, width=round(2 * radius))
        for x, y in places:  # round joints and ends, and a dot where a stroke is a point
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(pad)


def as_mnist(ink: NDArray[Any], *, centre: bool = True) -> NDArray[np.uint8]:
    """Return uint8 [28, 28], bright on black, of ink [H, W] of any size; all zeros where there is none.

    centre: False leaves place, size and width as they are, and only scales the whole pad to 28 x 28; it is here to be compared with.
    """
    values = np.asarray(ink, np.float32)
    values = values / max(float(values.max()), 1e-9)
    if not centre:
        return _resized(values, SIZE, SIZE)
    values = np.where(values < FAINT, 0, values)
    rows, columns = np.flatnonzero(values.any(1)), np.flatnonzero(values.any(0))
    if not len(rows):
        return np.zeros((SIZE, SIZE), np.uint8)
    digit = _with_usual_width(values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    height, width = digit.shape
    scale = BOX / max(height, width)
    small = _resized(digit, max(1, round(height * scale)), max(1, round(width * scale))).astype(np.float32)
    small *= 255 / max(float(small.max()), 1e-9)
    return _by_mass(small.round().astype(np.uint8))


def stroke_width(ink: NDArray[Any]) -> float:
    """Return the mean width of the strokes in pixels: a stroke of width w and length l has the area w l and about 2 l of edge."""
    values = np.pad(np.asarray(ink, np.float32), 1)
    edge = float(np.hypot(np.diff(values, axis=0)[:, :-1], np.diff(values, axis=1)[:-1]).sum())
    return 2 * float(values.sum()) / edge if edge else 0.0


def _with_usual_width(digit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ink [H, W] in [0, 1], its longer side PAD pixels, whose strokes are neither thinner nor thicker than MNIST's."""
    longest = max(digit.shape)
    height, width = (max(1, round(side * PAD / longest)) for side in digit.shape)
    large = Image.fromarray(_resized(digit, height, width))
    unit = PAD / BOX
    found = stroke_width(np.asarray(large) / 255) / unit
    if found < THIN:
        grown = round((THIN - found) * unit / 2)
        wide = Image.new("L", (width + 2 * grown, height + 2 * grown))
        wide.paste(large, (grown, grown))
        return _as_ink(_round_filter(wide, grown, ImageFilter.MaxFilter))
    if found > THICK:
        thin = _as_ink(_round_filter(large, round((found - THICK) * unit / 2), ImageFilter.MinFilter))
        rows, columns = np.flatnonzero((thin > FAINT).any(1)), np.flatnonzero((thin > FAINT).any(0))
        if len(rows):
            return thin[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _as_ink(large)


def _as_ink(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, np.float32) / np.float32(255)


def _round_filter(image: Image.Image, radius: int, kind: Any) -> Image.Image:
    """Grow or shrink by a few pixels at a time: squares one after the other, smoothed between, come near to a disc."""
    while radius > 0:
        step = min(radius, 3)
        image = image.filter(kind(2 * step + 1))
        radius -= step
    return image


def _by_mass(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image of at most 28 x 28 in one of 28 x 28, its centre of mass at pixel 14, 14, as MNIST has it and as there is room."""
    total = max(float(small.sum()), 1e-9)
    found = np.zeros((SIZE, SIZE), np.uint8)
    corner = []
    for axis, side in enumerate(small.shape):
        mass = float((small.sum(1 - axis) * np.arange(side)).sum()) / total
        corner.append(min(max(round(SIZE / 2 - mass), 0), SIZE - side))
    top, left = corner
    found[top : top + small.shape[0], left : left + small.shape[1]] = small
    return found


def _resized(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Return values in [0, 1] as uint8 [height, width]; smaller by the mean of what a pixel covers."""
    image = Image.fromarray((values * 255).round().astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX if height < values.shape[0] else Image.Resampling.BILINEAR))
