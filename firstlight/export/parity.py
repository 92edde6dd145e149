"""Whether a file answers as its run does: logits, probabilities and classes on the same images, at several sizes of a batch."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FirstlightError
from firstlight.export.reader import Exported, softmax

TOLERANCE = 1e-5
"""Largest difference of a probability, and of a logit as a share of the largest one: float32 has 1e-7 at one step, and a network many."""
BATCHES = (1, 37)
"""Images of the first batches; the rest come in one."""


@dataclass(frozen=True)
class Parity:
    """How far a file is from its run on `num_images`, at most: its logits (as a share of the largest one), probabilities and classes."""

    num_images: int
    max_logit_difference: float
    max_probability_difference: float
    num_other_classes: int

    @property
    def holds(self) -> bool:
        """Whether the file may be written. NaN is no parity."""
        differences = (self.max_logit_difference, self.max_probability_difference)
        return self.num_other_classes == 0 and all(difference <= TOLERANCE for difference in differences)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def compare(logits: NDArray[np.float32], wanted: NDArray[np.float32]) -> Parity:
    """Return how far logits [N, K] are from those of the run."""
    scale = max(1.0, float(np.abs(wanted).max()))
    return Parity(
        num_images=len(wanted),
        max_logit_difference=float(np.abs(logits - wanted).max()) / scale,
        max_probability_difference=float(np.abs(softmax(logits) - softmax(wanted)).max()),
        num_other_classes=int((logits.argmax(1) != wanted.argmax(1)).sum()),
    )


def logits_by_batches(exported: Exported, images: NDArray[Any]) -> NDArray[np.float32]:
    """Return the logits of images [N, C, H, W], asked for in batches of other sizes than the graph was made with."""
    ends = np.minimum(np.cumsum([0, *BATCHES, len(images)]), len(images)).tolist()
    parts = [exported.logits(images[first:last]) for first, last in pairwise(ends) if last > first]
    return np.concatenate(parts)


def check_parity(name: str, exported: Exported, images: NDArray[Any], wanted: NDArray[np.float32], what: str) -> Parity:
    """Return how close a file is to its run. Raises FirstlightError with the figures where that is not close enough."""
    found = compare(logits_by_batches(exported, images), wanted)
    if not found.holds:
        raise FirstlightError(
            f"{name}: the file does not answer as the run does on {found.num_images} {what}: logits differ by "
            f"{found.max_logit_difference:.1e} of the largest, probabilities by {found.max_probability_difference:.1e} "
            f"(allowed {TOLERANCE:g}), classes of {found.num_other_classes} images; choose another --format"
        )
    return found
