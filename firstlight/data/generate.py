"""A made-up data set in Medium ImageNet's layout: textured shapes on coloured ground, with classes that a small network can learn.

A class is a colour, a texture's direction and a shape; place, size, phase, light and noise are drawn for each image, block by block.
"""

import colorsys
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firstlight.data.hdf5_write import FilePlan, PartToWrite, Progress, write_hdf5
from firstlight.data.stored import Pixels, Rows

COLOURS = ("red", "orange", "yellow", "lime", "green", "teal", "sky", "blue", "violet", "pink")
TEXTURES = ("level", "rising", "upright", "falling", "checked")
SHAPES = ("disc", "ring", "square", "cross")
BLOCK = 64
HELD_OUT = 10
"""One image to validate and one to test for so many to train on."""
VERSION = 1

Values = NDArray[np.float32]


def class_names(num_classes: int) -> tuple[str, ...]:
    """Return the names of the classes: teal-rising-ring; the texture is finer every 200 classes."""
    names = []
    for label in range(num_classes):
        colour, texture, shape, fine = _traits(np.array([label]))
        suffix = f"-{fine[0] + 1}" if num_classes > len(COLOURS) * len(TEXTURES) * len(SHAPES) else ""
        names.append(f"{COLOURS[colour[0]]}-{TEXTURES[texture[0]]}-{SHAPES[shape[0]]}{suffix}")
    return tuple(names)


def generate_hdf5(
    path: Path,
    progress: Progress,
    *,
    num_images: int = 20_000,
    size: int = 96,
    num_classes: int = 200,
    seed: int = 0,
    order: str = "nhwc",
    chunked: bool = False,
    sorted_by_class: bool = False,
) -> Path:
    """Write `num_images` to train on, and a tenth of that each to validate and, without labels, to predict; return the path.

    sorted_by_class: training images lie class by class, as a careless converter leaves them. Memory does not grow with the file.
    """
    parts, held_out = {}, -(-num_images // HELD_OUT)
    for number, (name, num) in enumerate((("train", num_images), ("val", held_out), ("test", held_out))):
        labels = np.arange(num, dtype=np.int64) % num_classes
        labels = np.sort(labels) if sorted_by_class else np.random.default_rng([seed, number]).permutation(labels)

        def produce(done: int, labels: NDArray[np.int64] = labels, number: int = number) -> Iterator[tuple[Rows, Pixels]]:
            for first in range(done - done % BLOCK, len(labels), BLOCK):
                rows = np.arange(first, min(first + BLOCK, len(labels)))
                yield rows[max(done - first, 0) :], draw(labels[rows], size, (seed, number, first))[max(done - first, 0) :]

        parts[name] = PartToWrite(num_images=num, labels=None if name == "test" else labels, produce=produce)
    made_from = f"firstlight data generate {json.dumps([VERSION, num_images, size, num_classes, seed, sorted_by_class])}"
    plan = FilePlan(
        parts=parts, class_names=class_names(num_classes), image_shape=(size, size, 3), order=order, made_from=made_from, chunked=chunked
    )
    return write_hdf5(path, plan, progress)


def draw(labels: NDArray[np.int64], size: int, seed: tuple[int, ...]) -> Pixels:
    """Return an image of each label, uint8 [N, size, size, 3]; the same labels and seed give the same pixels."""
    random = np.random.default_rng(seed)
    colour, texture, shape, fine = _traits(labels)
    num = len(labels)

    def drawn(low: float, high: float) -> Values:
        return random.uniform(low, high, (num, 1, 1)).astype(np.float32)

    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j].astype(np.float32)[:, None]
    phase, light, centre_y, centre_x, radius = drawn(0, 6.3), drawn(0.7, 1.1), drawn(0.35, 0.65), drawn(0.35, 0.65), drawn(0.18, 0.32)
    frequency = (2 * np.pi * (4 + 3 * fine))[:, None, None].astype(np.float32) * drawn(0.9, 1.1)
    angle = (np.minimum(texture, 3) * (np.pi / 4))[:, None, None].astype(np.float32) + drawn(-0.15, 0.15)
    along, across = np.sin(angle) * x + np.cos(angle) * y, np.cos(angle) * x - np.sin(angle) * y
    waves = np.sin(frequency * along + phase)
    is_checked = (texture == 4)[:, None, None]
    ground = 0.5 + 0.3 * np.where(is_checked, np.sign(waves) * np.sign(np.sin(frequency * across + phase)), waves)
    inside = _inside(shape, (y - centre_y) / radius, (x - centre_x) / radius)
    hues = np.array([colorsys.hsv_to_rgb(hue / len(COLOURS), 0.75, 1.0) for hue in range(len(COLOURS))], np.float32)[colour]
    pixels = (ground * light)[..., None] * hues[:, None, None, :]
    pixels = np.where(inside[..., None], (0.15 + 0.75 * (1 - hues))[:, None, None, :] * light[..., None], pixels)
    pixels += random.standard_normal(pixels.shape, np.float32) * 0.06
    return (pixels.clip(0, 1) * 255).astype(np.uint8)


def _inside(shape: NDArray[np.int64], y: Values, x: Values) -> NDArray[np.bool_]:
    """Tell which pixels lie in the shape of their image, bool [N, H, W]; y, x: from its middle, in its radius."""
    distance, reach = np.hypot(y, x), np.maximum(np.abs(y), np.abs(x))
    cross = (np.minimum(np.abs(y), np.abs(x)) < 0.35) & (reach < 1.1)
    masks = (distance < 1, (distance < 1.1) & (distance > 0.6), reach < 0.85, cross)
    return np.select([(shape == number)[:, None, None] for number in range(4)], masks)


def _traits(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return colour, texture, shape and fineness of classes, as numbers."""
    rest, colour = np.divmod(labels, len(COLOURS))
    rest, texture = np.divmod(rest, len(TEXTURES))
    fine, shape = np.divmod(rest, len(SHAPES))
    return colour, texture, shape, fine
