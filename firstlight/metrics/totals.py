"""Running totals of an evaluation: tensors on the device, added to without waiting for it, fetched once at the end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from firstlight.errors import ConfigError, DataError
from firstlight.metrics.evaluation import Evaluation


@dataclass(frozen=True, eq=False)
class Totals:
    """What is added up over batches; `add` changes the tensors in place.

    loss: float64 [1] (float32 where the device has no float64), summed over images.
    top_k_correct: int64 [1], images whose label is among the `top_k` largest logits.
    confusion: int64 [K * K], images of true class t that were taken for class p, at t * K + p.
    """

    top_k: int
    num_classes: int
    loss: Tensor
    top_k_correct: Tensor
    confusion: Tensor

    @staticmethod
    def zeros(num_classes: int, top_k: int = 5, device: torch.device | str = "cpu") -> "Totals":
        """Return totals of no images; `top_k` must lie in 1..num_classes."""
        if not 1 <= top_k <= num_classes:
            raise ConfigError(f"top_k is {top_k}; with {num_classes} classes it must be 1..{num_classes}")
        real = torch.float32 if torch.device(device).type == "mps" else torch.float64
        return Totals(
            top_k,
            num_classes,
            loss=torch.zeros(1, dtype=real, device=device),
            top_k_correct=torch.zeros(1, dtype=torch.int64, device=device),
            confusion=torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device),
        )

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch: logits [B, K], labels int64 [B], losses [B] (one an image)."""
        cells = labels * self.num_classes + logits.argmax(dim=1)
        self.confusion.scatter_add_(0, cells, torch.ones_like(cells))  # bincount would wait for the device to learn its size
        self.loss.add_(losses.sum(dtype=self.loss.dtype))
        if self.top_k > 1:
            hits = logits.topk(self.top_k, dim=1).indices == labels[:, None]
            self.top_k_correct.add_(hits.sum())

    def result(self) -> Evaluation:
        """Fetch the totals, in one transfer, and return what they say. Raises DataError when nothing was added."""
        parts = (self.loss, self.top_k_correct.to(self.loss.dtype), self.confusion.to(self.loss.dtype))
        loss, top_k_correct, *cells = torch.cat(parts).tolist()
        confusion = tuple(tuple(int(n) for n in cells[row : row + self.num_classes]) for row in range(0, len(cells), self.num_classes))
        num_images = int(sum(cells))
        if num_images == 0:
            raise DataError("nothing to evaluate: this part of the data has no images; check the split and the paths")
        correct = sum(row[index] for index, row in enumerate(confusion))
        return Evaluation(
            loss=loss / num_images,
            accuracy=correct / num_images,
            top_k=self.top_k,
            top_k_accuracy=(top_k_correct if self.top_k > 1 else correct) / num_images,
            num_images=num_images,
            confusion=confusion,
        )
