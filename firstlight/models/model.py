"""What the engine asks of a network: the part of torch.nn.Module that it uses, so that raw tensors can stand in for one."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Model(Protocol):
    """A network: images float32 [B, C, H, W] -> logits [B, num_classes]."""

    training: bool

    @property
    def __call__(self) -> Any:
        """Compute the logits of a batch."""

    def parameters(self) -> Iterator[Tensor]:
        """Yield the tensors that are trained."""

    def buffers(self) -> Iterator[Tensor]:
        """Yield the tensors that are kept but not trained."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training."""

    def eval(self) -> Any:
        """Switch to evaluation."""

    def state_dict(self) -> dict[str, Any]:
        """Return every tensor by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Copy tensors in by name."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
        """Move the tensors in place."""
