"""How far the probabilities of a network can be trusted: reliability, scores, temperature, and what is gained by leaving images out.

Arrays in, numbers out. Reading order: scores, reliability, fit_temperature, risk_coverage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = NDArray[np.floating[Any]]

NUM_BINS = 15
"""Bins of a reliability diagram, as in Guo et al. 2017."""
BLOCK = 10_000
"""Rows that are worked on at once in float64, so that the memory does not grow with their number."""
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 100.0
"""Bounds of a fitted temperature: where every image is recognised, the best one would be 0."""


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, bin by bin; all float64 [num_bins], NaN for the means of an empty bin.

    lows, highs: the bins hold confidences above `low`, up to and with `high`.
    """

    lows: Array
    highs: Array
    counts: Labels
    confidence: Array
    accuracy: Array

    @property
    def gaps(self) -> Array:
        """Distance of accuracy and confidence in each bin; 0 in an empty one."""
        return np.where(self.counts > 0, np.abs(self.accuracy - self.confidence), 0.0)

    @property
    def ece(self) -> float:
        """Expected calibration error: the gaps, weighted by the images of each bin (Naeini et al. 2015, Guo et al. 2017)."""
        return float(self.counts @ self.gaps / self.counts.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error: the widest gap of a bin with images (Naeini et al. 2015)."""
        return float(self.gaps.max())

    @property
    def bias(self) -> float:
        """Mean confidence minus accuracy: above 0, the network is more sure than right."""
        there = self.counts > 0
        return float(self.counts[there] @ (self.confidence - self.accuracy)[there] / self.counts.sum())

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a bin; None for the means of an empty one."""
        columns = (self.lows, self.highs, self.counts, self.confidence, self.accuracy)
        keys = ("above", "up_to", "images", "confidence", "accuracy")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [{key: None if value != value else value for key, value in zip(keys, row, strict=True)} for row in rows]


def log_softmax(logits: Logits, temperature: float = 1.0) -> Array:
    """Return the logarithms of the probabilities of logits [N, K] that are divided by a temperature, float64 [N, K]."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    logs: Array = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return logs


def confidences(logits: Logits, temperature: float = 1.0) -> Array:
    """Return the largest probability of each row of logits [N, K], float64 [N]."""
    return np.concatenate([np.exp(log_softmax(rows, temperature).max(axis=1)) for rows in _blocks(logits)])


def negative_log_likelihood(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Return the mean of -log probability of the label, in nats."""
    total = sum(_of_label(log_softmax(rows, temperature), some).sum() for rows, some in zip(_blocks(logits), _blocks(labels), strict=True))
    return -float(total) / len(labels)


def brier_score(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over classes: 0 is perfect, 2 the worst (Brier 1950)."""
    total = 0.0
    for rows, some in zip(_blocks(logits), _blocks(labels), strict=True):
        probabilities = np.exp(log_softmax(rows, temperature))
        total += float((probabilities**2).sum() - 2 * _of_label(probabilities, some).sum() + len(some))
    return total / len(labels)


def reliability(confidence: Array, correct: NDArray[np.bool_], num_bins: int = NUM_BINS) -> Reliability:
    """Return confidence against accuracy in bins of equal width.

    confidence: float64 [N] in (0, 1]; correct: bool [N]. N may be 0: all bins are empty then.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    return _binned(np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1), edges, confidence, correct)


def adaptive_reliability(confidence: Array, correct: NDArray[np.bool_], num_bins: int = NUM_BINS) -> Reliability:
    """Return confidence against accuracy in bins of equally many images, as far as they can be told apart (Nguyen and O'Connor 2015).

    The gaps' weighted mean is the adaptive calibration error: no bin rests on a few images, and the crowd near 1 is looked at closely.
    """
    last = np.arange(1, num_bins) * len(confidence) // num_bins - 1  # the last image of each bin but the highest
    wanted = np.sort(confidence)[last[last >= 0]]
    edges = np.concatenate([[0.0], np.unique(wanted[wanted < confidence.max()]), [1.0]])
    return _binned(np.searchsorted(edges, confidence, side="left") - 1, edges, confidence, correct)


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature in 0.01..100 whose scaled logits give the labels the largest likelihood (Guo et al. 2017).

    The likelihood is concave in 1 / temperature, so Newton's method within shrinking bounds finds the one best value.
    """
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if _slope(logits, labels, low)[0] >= 0:
        return MOST_TEMPERATURE
    if _slope(logits, labels, high)[0] <= 0:
        return LEAST_TEMPERATURE
    scale = 1.0
    for _ in range(100):
        slope, curvature = _slope(logits, labels, scale)
        low, high = (scale, high) if slope < 0 else (low, scale)
        step = scale - slope / curvature if curvature > 0 else 0.0
        following = step if low < step < high else (low + high) / 2
        if abs(following - scale) <= 1e-12 * scale:
            break
        scale = following
    return 1 / following


def risk_coverage(confidence: Array, correct: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return coverage i/N and the risk (share of errors) among the i most confident images, i = 1..N (Geifman and El-Yaniv 2017).

    Images of equal confidence have no order: their errors are spread evenly over their places.
    """
    order = np.argsort(-confidence, kind="stable")
    errors = (~correct[order]).astype(np.float64)
    _, starts, counts = np.unique(-confidence[order], return_index=True, return_counts=True)
    errors = np.repeat(np.add.reduceat(errors, starts) / counts, counts)
    places = np.arange(1, len(errors) + 1)
    return places / len(errors), np.cumsum(errors) / places


def area_under_risk_coverage(risk: Array) -> float:
    """Return AURC, the mean risk over all coverages: 0 where there are no errors, the error rate where confidence says nothing."""
    return float(risk.mean())


def least_area(error_rate: float, num_images: int) -> float:
    """Return the AURC of a network that is less sure of every error than of every right answer."""
    places = np.arange(1, num_images + 1)
    num_right = num_images - round(error_rate * num_images)
    return float((np.maximum(places - num_right, 0) / places).mean())


def _binned(which: NDArray[np.intp], edges: Array, confidence: Array, correct: NDArray[np.bool_]) -> Reliability:
    num_bins = len(edges) - 1
    counts = np.bincount(which, minlength=num_bins)
    sums = (np.bincount(which, values, minlength=num_bins) for values in (confidence, correct.astype(np.float64)))
    means = [np.divide(total, counts, out=np.full(num_bins, np.nan), where=counts > 0) for total in sums]
    return Reliability(edges[:-1], edges[1:], counts.astype(np.int64), *means)


def _slope(logits: Logits, labels: Labels, scale: float) -> tuple[float, float]:
    """Return first and second derivative of the negative log likelihood of `scale` times the logits, by the scale, summed over rows."""
    slope = curvature = 0.0
    for rows, some in zip(_blocks(logits), _blocks(labels), strict=True):
        values = np.asarray(rows, dtype=np.float64)
        values = values - values.max(axis=1, keepdims=True)
        probabilities = np.exp(log_softmax(values, 1 / scale))
        mean = (probabilities * values).sum(axis=1)
        slope += float((mean - _of_label(values, some)).sum())
        curvature += float((probabilities * (values - mean[:, None]) ** 2).sum())
    return slope, curvature


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def _of_label(values: Array, labels: Labels) -> Array:
    return values[np.arange(len(labels)), labels]
