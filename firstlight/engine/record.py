"""What training writes down: a row a step, a row an epoch, checkpoints, the progress bar. Losses are fetched in groups."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from firstlight.engine.checkpoint import save_checkpoint
from firstlight.engine.state import Setup, TrainState
from firstlight.errors import DivergedError
from firstlight.tracking.console import Bar, Console
from firstlight.tracking.writer import RunWriter


class Recorder:
    """Collects what a training says about itself and hands it to the run folder and the console."""

    def __init__(self, writer: RunWriter, console: Console, *, facts: dict[str, Any]) -> None:
        self.writer = writer
        self.console = console
        self.facts = facts
        """Figures of the network that stand in every epoch's row: parameters, FLOPs."""
        self._bar = Bar(None, None)
        self._pending: list[tuple[int, int, float, Tensor]] = []
        self._losses: list[Tensor] = []
        self._epoch_began = 0.0

    @contextmanager
    def progress(self, state: TrainState, setup: Setup) -> Iterator[None]:
        """Show a bar over all optimizer steps while the block runs."""
        self._epoch_began = self.writer.seconds
        with self.console.progress("training", setup.total_steps, done=state.step) as self._bar:
            yield

    def note_loss(self, loss: Tensor) -> None:
        """Remember the loss of one batch of a step (already weighted by its share), without fetching it."""
        self._losses.append(loss)

    def close_step(self, state: TrainState, lr: float) -> None:
        """End an optimizer step that was made at `lr`."""
        loss = self._losses[0] if len(self._losses) == 1 else torch.stack(self._losses).sum()
        self._losses = []
        self._pending.append((state.step, state.epoch + 1, lr, loss))

    def fetch(self, state: TrainState, setup: Setup) -> None:
        """Bring the pending losses over in one transfer, write their rows, move the bar. Raises DivergedError."""
        if not self._pending:
            return
        losses = torch.stack([loss for *_, loss in self._pending]).tolist()
        rows = [
            {"kind": "step", "step": step, "epoch": epoch, "lr": lr, "loss": loss}
            for (step, epoch, lr, _), loss in zip(self._pending, losses, strict=True)
        ]
        self._pending = []
        self.writer.append(rows)
        self._refuse_divergence(rows)
        seen = min(state.batch * setup.train.batch_size, setup.train_loader.num_images)
        loss, accuracy = (state.running / max(seen, 1)).tolist()
        self._bar.update(state.step, f"epoch {min(state.epoch + 1, setup.train.epochs)}  loss {loss:.4f}  accuracy {accuracy:.4f}")

    def close_epoch(self, state: TrainState, row: dict[str, float], *, is_best: bool) -> None:
        """Write the epoch's row and its line."""
        now = self.writer.seconds
        seconds, self._epoch_began = now - self._epoch_began, now
        lr = state.optimizer.param_groups[0]["lr"]
        full = {"kind": "epoch", "epoch": state.epoch, "step": state.step, "lr": lr, **row, "best": is_best, "seconds": round(seconds, 3)}
        self.writer.append([{**full, "memory_mib": peak_memory_mib(), **self.facts}])
        self.console.line(epoch_line(full))

    def save(self, state: TrainState, *, best: bool, keep: bool) -> None:
        """Save a checkpoint of the state."""
        save_checkpoint(self.writer.path / "checkpoints", state, best=best, keep=keep)

    def how_to_resume(self) -> str:
        """Return the line that an interrupted run ends with."""
        return f"interrupted; the state is saved, go on with: firstlight train --resume {self.writer.path}"

    def _refuse_divergence(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if not math.isfinite(row["loss"]):
                where = f"step {row['step']} (epoch {row['epoch']}, lr {row['lr']:.3g})"
                kept = (
                    "the last checkpoint is kept" if (self.writer.path / "checkpoints" / "last.json").is_file() else "nothing was saved yet"
                )
                raise DivergedError(f"the loss became {row['loss']} at {where}; {kept}; try a smaller optim.lr")


def epoch_line(row: dict[str, Any]) -> str:
    """Return one line about an epoch."""
    val = f"   val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.4f}" if "val_loss" in row else ""
    mark = "  * best" if row["best"] and val else ""
    train = f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}"
    return f"epoch {row['epoch']:>3}   {train}{val}   lr {row['lr']:.3g}   {row['seconds']:.1f} s{mark}"


def peak_memory_mib() -> float:
    """Return the largest memory this process has used, in MiB: of the GPU where torch allocated there, else of the host."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
