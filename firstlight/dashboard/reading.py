"""What the lock reads on four pads, and how sure it is: a small network by onnxruntime, without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.dashboard.strokes import SIZE, Stroke, as_mnist, draw
from firstlight.errors import ConfigError
from firstlight.export.reader import SHIPPED_READER, Reader

CLASSES = tuple("0123456789")
UNSURE = 0.5
"""Below this probability a digit counts as not readable, and the code as not tried."""


@dataclass(frozen=True)
class ReadDigit:
    """A digit as it was read. image: uint8 values, row by row of 28 x 28, as the network saw it."""

    digit: int
    probability: float
    second: int
    second_probability: float
    image: tuple[int, ...]

    @property
    def is_sure(self) -> bool:
        """Whether it is readable."""
        return self.probability >= UNSURE

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a page."""
        return {**vars(self), "image": list(self.image), "is_sure": self.is_sure}


def open_reader(path: Path | None = None) -> Reader:
    """Return the network that reads: the one of the package, or an exported run. Raises ConfigError for one that reads no digits."""
    reader = Reader(path or SHIPPED_READER)
    if reader.class_names != CLASSES or reader.image_shape != (1, SIZE, SIZE):
        shape = " x ".join(map(str, reader.image_shape))
        raise ConfigError(
            f"{reader.path} takes images of {shape} and has {len(reader.class_names)} classes; name a run on MNIST, exported as ONNX"
        )
    return reader


def read_pads(reader: Reader, pads: list[list[Stroke]]) -> list[ReadDigit]:
    """Return what is read on each pad."""
    images = np.stack([as_mnist(draw(strokes)) for strokes in pads])
    found = []
    for image, row in zip(images, reader.probabilities(images[:, None]), strict=True):
        first, second = (int(place) for place in np.argsort(-row)[:2])
        found.append(ReadDigit(first, float(row[first]), second, float(row[second]), tuple(image.ravel().tolist())))
    return found
