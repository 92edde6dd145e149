"""What a training in several processes writes down: figures over all ranks, by rank 0 alone; and one state for all of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.engine.checkpoint import Checkpoint, flatten_state, restore_state
from firstlight.engine.distributed import Ranks
from firstlight.engine.divergence import broken_tensors
from firstlight.engine.health import Watch
from firstlight.engine.record import Recorder, StepRow
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import StepResult
from firstlight.errors import DivergedError
from firstlight.files import Writing, tensors_from_bytes


def share_state(state: TrainState, ranks: Ranks) -> None:
    """Give all ranks the state of rank 0: weights, averages, the optimizer's memory, the place in the training."""
    contents, plain = flatten_state(state) if ranks.leads else ({}, {})
    plain = json.loads(ranks.told(json.dumps({**plain, "files": list(contents)}).encode() if ranks.leads else None))
    files = {name: ranks.told(b"".join(contents[name]) if ranks.leads else None) for name in plain["files"]}
    if not ranks.leads:
        here = Path("the state of rank 0")
        restore_state(Checkpoint(here, plain, {name: tensors_from_bytes(content, here) for name, content in files.items()}), state)


class RankedRecorder(Recorder):
    """The recorder of each rank: all add up their figures and go the same way, rank 0 alone reads and writes the run folder."""

    def __init__(self, writer: Any, console: Any, *, ranks: Ranks, **facts: Any) -> None:
        super().__init__(writer, console, **facts)
        self._ranks = ranks

    def note_batch(self, result: StepResult, num_images: int) -> None:
        """Remember what came of our part of a batch of so many images."""
        ours = len(result.hits)
        loss = result.loss * (ours / num_images) if ours else torch.zeros_like(result.loss)
        super().note_batch(result._replace(loss=loss), num_images)

    def close_step(self, state: TrainState, lr: float, grad_norms: Sequence[Tensor]) -> None:
        """End an optimizer step; the norms, which are the same on all ranks, are rank 0's to give."""
        super().close_step(state, lr, grad_norms if self._ranks.leads else [torch.zeros_like(norm) for norm in grad_norms])

    def _fetched(self, values: Tensor) -> list[float]:
        return self._ranks.sums(values)

    def _watch_of(self, setup: Setup) -> Watch:
        if self._watch is None and not self._ranks.leads:  # which sees the same, and nobody hears it
            self._watch = Watch([], [], num_classes=setup.num_classes, clipped=setup.train.clip_norm is not None)
        return super()._watch_of(setup)

    def _warn(self, found: dict[str, str], epoch: int) -> None:
        if self._ranks.leads:
            super()._warn(found, epoch)

    def saving(self, state: TrainState, setup: Setup, **how: bool) -> Writing[bool]:
        """Save on rank 0; tell on all whether the disk took it. Raises DivergedError on all, since all hold the same."""
        if self._ranks.leads:
            return self._leader_says((yield from super().saving(state, setup, **how)))
        if broken := broken_tensors(state):
            raise self.diverged(state, setup, f"{', '.join(broken[:3])} became not finite")
        return self._leader_says(False)

    def saving_once(self, state: TrainState, setup: Setup) -> Writing[bool]:
        """Save the state, if it is not saved yet; tell whether it is now."""
        is_saved = self._leader_says(self._ranks.leads and self._is_saved(state))
        return is_saved or (yield from self.saving(state, setup, scheduled=False))

    @property
    def has_checkpoint(self) -> bool:
        """Whether anything was saved."""
        return self._leader_says(self._ranks.leads and super().has_checkpoint)

    def roll_back(self, state: TrainState, setup: Setup, error: DivergedError) -> None:
        """Go back to the last scheduled checkpoint on rank 0, and to its state on all, where the config says so."""
        if self._ranks.leads:
            super().roll_back(state, setup, error)
        elif setup.train.on_divergence == "stop":
            raise error
        share_state(state, self._ranks)
        if not self._ranks.leads:
            state.optimizer.zero_grad(set_to_none=True)
            self._forget()

    def kept(self) -> str:
        """Say which checkpoint is safe."""
        return super().kept() if self._ranks.leads else "the checkpoints are kept"

    def diverged(self, state: TrainState, setup: Setup, what: str, row: StepRow | None = None) -> DivergedError:
        """Write nan_report.json on rank 0 and return the error."""
        return super().diverged(state, setup, what, row) if self._ranks.leads else DivergedError(f"{what}; try a smaller optim.lr")

    def _leader_says(self, flag: bool) -> bool:
        return self._ranks.told(bytes([flag]) if self._ranks.leads else None) == b"\x01"


class NoWriter:
    """Stands for the writer of a run folder on the ranks that write none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Leave the rows to rank 0."""

    def append_numbers(self, kind: str, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Leave the rows to rank 0."""
