"""What a network answers to each image of a set: logits, and the figures of each image that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.engine.evaluate import logits_of
from firstlight.errors import ConfigError, did_you_mean
from firstlight.inspection.opened import Opened
from firstlight.metrics.calibration import BLOCK, log_softmax
from firstlight.metrics.evaluation import Evaluation
from firstlight.metrics.totals import Totals

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to N images: all that is kept of them is [N, K].

    logits: float32 [N, K]; labels: int64 [N], the true classes.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the largest logit, int64 [N]."""
        guesses: NDArray[np.int64] = self.logits.argmax(axis=1)
        return guesses

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is recognised, bool [N]."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    def probabilities(self, indices: Sequence[int] | NDArray[np.int64]) -> Array:
        """Return the probabilities of all classes for some images, float64 [M, K]."""
        return np.exp(log_softmax(self.logits[np.asarray(indices, dtype=np.int64)]))

    @cached_property
    def figures(self) -> dict[str, Array]:
        """What is known of each image, float64 [N] each.

        probability: of the predicted class; label_probability: of the true class; loss: -log of that, in nats; margin: the largest
        probability minus the next one; entropy: of all probabilities, in nats.
        """
        blocks = [self._figures(slice(start, start + BLOCK)) for start in range(0, len(self), BLOCK)]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _figures(self, rows: slice) -> dict[str, Array]:
        logs = log_softmax(self.logits[rows])
        probabilities = np.exp(logs)
        of_label = logs[np.arange(len(logs)), self.labels[rows]]
        ordered = np.partition(probabilities, -2, axis=1)[:, -2:] if logs.shape[1] > 1 else np.pad(probabilities, ((0, 0), (1, 0)))
        return {
            "probability": ordered[:, 1],
            "label_probability": np.exp(of_label),
            "loss": -of_label,
            "margin": ordered[:, 1] - ordered[:, 0],
            "entropy": -(probabilities * np.maximum(logs, -1e30)).sum(axis=1),  # 0 times minus infinity is 0 here
        }

    def evaluation(self) -> Evaluation:
        """Return accuracy, loss, confusion matrix and per-class figures of these answers."""
        totals = Totals.zeros(len(self.class_names), top_k=min(5, len(self.class_names)))
        for start in range(0, len(self), BLOCK):
            rows = slice(start, start + BLOCK)
            totals.add(
                torch.from_numpy(self.logits[rows]), torch.from_numpy(self.labels[rows]), torch.from_numpy(self.figures["loss"][rows])
            )
        return totals.result()

    def row(self, index: int) -> dict[str, Any]:
        """Return what is known of one image, classes by name."""
        label, guess = int(self.labels[index]), int(self.predicted[index])
        figures = {name: float(values[index]) for name, values in self.figures.items()}
        return {
            "index": int(index),
            "label": self.class_names[label],
            "predicted": self.class_names[guess],
            "right": label == guess,
            **figures,
        }


def answers_of(o: Opened, *, dataset: Any = None) -> Answers:
    """Return the answers of an opened run to the images of its split, or to other labelled ones, as `evaluate` counts them."""
    images = o.dataset if dataset is None else dataset
    assert images.labels is not None
    logits = torch.empty(len(images), images.num_classes)
    for some, batch in logits_of(o.model, o.loader(images), o.arithmetic, o.config.evaluation):
        logits[batch.indices.cpu()] = some.cpu()
    o.refuse_nonfinite(logits)
    return Answers(logits.numpy(), images.labels.numpy(), images.class_names)


def parse_classes(text: str, class_names: Sequence[str], *, option: str = "--classes") -> list[int]:
    """Return the labels of the classes in a text such as `4,9` or `cat,dog`. Raises ConfigError for a name that is none."""
    if text in class_names:
        return [class_names.index(text)]
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in class_names:
            raise ConfigError(f"{option} {text}: there is no class {word!r}{did_you_mean(word, class_names)}")
    return [class_names.index(word) for word in words]


def share(part: int, whole: int) -> str:
    """Return `37 of 1,000 (3.7 %)`."""
    return f"{part:,} of {whole:,} ({part / whole:.1%})"
