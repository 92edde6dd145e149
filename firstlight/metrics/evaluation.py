"""The result of an evaluation: a few numbers, and all that follows from the confusion matrix."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model did on one part of the data.

    loss: mean over images. accuracy, top_k_accuracy: shares of images. confusion: rows are true classes, columns predicted.
    """

    loss: float
    accuracy: float
    top_k: int
    top_k_accuracy: float
    num_images: int
    confusion: tuple[tuple[int, ...], ...]

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        """The confusion matrix int64 [K, K]."""
        return np.array(self.confusion, dtype=np.int64)

    @property
    def support(self) -> npt.NDArray[np.int64]:
        """Images of each class, int64 [K]."""
        return np.array([sum(row) for row in self.confusion], dtype=np.int64)

    @property
    def precision(self) -> Array:
        """Of the images taken for a class, the share that are of it, float64 [K]; 0 for a class that nothing was taken for."""
        return _ratio(self.matrix.diagonal(), self.matrix.sum(axis=0))

    @property
    def recall(self) -> Array:
        """Of the images of a class, the share that were found, float64 [K]; 0 for a class without images."""
        return _ratio(self.matrix.diagonal(), self.support)

    @property
    def f1(self) -> Array:
        """Harmonic mean of precision and recall, float64 [K]; 0 where both are."""
        return _ratio(2 * self.matrix.diagonal(), self.support + self.matrix.sum(axis=0))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur as a label or as a prediction."""
        occurs = self.support + self.matrix.sum(axis=0) > 0
        return float(self.f1[occurs].mean())

    def accuracy_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval that holds the true accuracy with this confidence (Wilson 1927)."""
        return wilson_interval(round(self.accuracy * self.num_images), self.num_images, confidence)

    def to_json(self, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return everything as numbers, texts and lists, with a row a class under `classes`."""
        names = class_names or [str(number) for number in range(len(self.confusion))]
        columns = (self.support, self.precision, self.recall, self.f1)
        rows = zip(names, *(column.tolist() for column in columns), strict=True)
        classes = [dict(zip(("class", "images", "precision", "recall", "f1"), row, strict=True)) for row in rows]
        interval = list(self.accuracy_interval())
        return {**asdict(self), "accuracy_interval": interval, "macro_f1": self.macro_f1, "classes": classes}


def wilson_interval(num_correct: int, num_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share; it stays within [0, 1] and is sensible near both ends."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = num_correct / num_images, 1 + z * z / num_images
    center = (share + z * z / (2 * num_images)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / num_images + z * z / (4 * num_images**2))
    return max(center - half, 0.0), min(center + half, 1.0)


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
