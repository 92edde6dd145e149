"""What training writes down: a row a step, a row an epoch, checkpoints, the progress bar. Losses are fetched in groups."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import mul
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from firstlight.engine.checkpoint import drop_after, name_of, newest_whole, prune, restore_state, saving_checkpoint, step_folders
from firstlight.engine.divergence import broken_tensors, nan_report
from firstlight.engine.health import Watch, weight_norms
from firstlight.engine.memory import peak_memory_mib
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import StepResult
from firstlight.errors import DivergedError, InterruptedRunError, StorageError
from firstlight.files import Writing, carry_out, write_json
from firstlight.tracking.console import Bar, Console
from firstlight.tracking.run import read_rows
from firstlight.tracking.trackers import Trackers
from firstlight.tracking.writer import RunWriter

MAX_FAILED_SAVES = 3
"""Checkpoints in a row that the disk may refuse before training ends."""
MAX_ROLLBACKS = 3
"""Times that a training goes back and halves its learning rate before it gives up."""


class _Step(NamedTuple):
    """An optimizer step whose figures are still on the device; sizes: images in each of its batches."""

    step: int
    epoch: int
    lr: float
    sizes: Sequence[int]
    num_norms: int


class StepRow(NamedTuple):
    """What metrics.jsonl says of an optimizer step, by these names."""

    step: int
    epoch: int
    lr: float
    loss: float
    grad_norm: float


class Recorder:
    """Collects what a training says about itself and hands it to the run folder and the console.

    facts: figures of the network that stand in every epoch's row (parameters, FLOPs); config: the settings as plain data, kept
    with each checkpoint; resume_line: the command that goes on; trackers: looked after once an epoch.
    """

    def __init__(
        self,
        writer: RunWriter,
        console: Console,
        *,
        facts: dict[str, Any],
        config: dict[str, Any],
        resume_line: str,
        trackers: Trackers | None = None,
    ) -> None:
        self.writer = writer
        self.console = console
        self.facts = facts
        self.config = config
        self.resume_line = resume_line
        self.trackers = trackers
        self.checkpoints = writer.path / "checkpoints"
        self._bar = Bar(None, None)
        self._steps: list[_Step] = []
        self._sizes: list[int] = []
        self._scalars: list[Tensor] = []
        self._hits: list[Tensor] = []
        self._epoch_began = 0.0
        self._failed_saves = 0
        self._watch: Watch | None = None
        self._first_norms: dict[str, Tensor] = {}

    @contextmanager
    def progress(self, state: TrainState, setup: Setup) -> Iterator[None]:
        """Show a bar over all optimizer steps while the block runs."""
        self._epoch_began = self.writer.seconds
        self._first_norms = weight_norms(state.model) if state.step == 0 else {}
        with self.console.progress("training", setup.total_steps, done=state.step) as self._bar:
            yield

    def note_batch(self, result: StepResult, num_images: int) -> None:
        """Remember what came of a batch of so many images, without fetching it."""
        self._sizes.append(num_images)
        self._hits.append(result.hits)
        self._scalars.append(result.loss)

    def close_step(self, state: TrainState, lr: float, grad_norms: Sequence[Tensor]) -> None:
        """End an optimizer step that was made at `lr` from the batches noted since the last one, with gradients of these norms."""
        self._steps.append(_Step(state.step, state.epoch + 1, lr, self._sizes, len(grad_norms)))
        self._scalars += grad_norms
        self._sizes = []

    def fetch(self, state: TrainState, setup: Setup) -> None:
        """Bring the figures of the pending steps over in one transfer, write their rows, move the bar. Raises DivergedError."""
        if not self._steps:
            return
        num_correct = torch.cat(self._hits).sum().float()
        *values, num_correct_now = self._fetched(torch.stack([*self._scalars, num_correct]))
        rows, total_loss = _rows(self._steps, iter(values), state.running[0])
        state.running = total_loss, state.running[1] + num_correct_now
        self._forget()
        self.watch_norms(setup, [row.grad_norm for row in rows])
        with self._rows_may_wait():
            self.writer.append_numbers("step", StepRow._fields, rows)
        for row in rows:
            for what, value in (("loss", row.loss), ("gradient", row.grad_norm)):
                if not math.isfinite(value):
                    raise self.diverged(state, setup, f"the {what} became {value}", row)
        seen = min(state.batch * setup.train.batch_size, setup.train_loader.num_images)
        loss, accuracy = (total / max(seen, 1) for total in state.running)
        self._bar.update(state.step, f"epoch {min(state.epoch + 1, setup.train.epochs)}  loss {loss:.4f}  accuracy {accuracy:.4f}")

    def watch_norms(self, setup: Setup, norms: list[float]) -> None:
        """Let the norms of gradients be looked at when the epoch ends; call it before their rows are written."""
        self._watch_of(setup).norms += norms

    def close_epoch(self, state: TrainState, setup: Setup, row: dict[str, float], *, is_best: bool) -> None:
        """Write the epoch's row and its line, and warn of what the epochs so far show."""
        now = self.writer.seconds
        seconds, self._epoch_began = now - self._epoch_began, now
        lr = state.optimizer.param_groups[0]["lr"]
        watch = self._watch_of(setup)
        full = {"kind": "epoch", "epoch": state.epoch, "step": state.step, "lr": lr, **row, "best": is_best, "seconds": round(seconds, 3)}
        with self._rows_may_wait():
            self.writer.append([{**full, "memory_mib": peak_memory_mib(), **self.facts}])
        self.console.line(epoch_line(full))
        self._warn(watch.close_epoch(full, self._unmoved(state)), state.epoch)
        if self.trackers is not None:
            self.trackers.look()

    def save(self, state: TrainState, setup: Setup, *, keep: bool = False, must: bool = False, scheduled: bool = True) -> bool:
        """Save a checkpoint of the state; tell whether the disk took it.

        A disk that refuses costs the checkpoint and not the training; StorageError ends it after MAX_FAILED_SAVES in a row, or at once
        where it `must` be saved. Raises DivergedError for a state that is not finite: the last good checkpoint stays.
        """
        return carry_out(self.saving(state, setup, keep=keep, must=must, scheduled=scheduled))

    def saving(self, state: TrainState, setup: Setup, *, keep: bool = False, must: bool = False, scheduled: bool = True) -> Writing[bool]:
        """Do what `save` does, beside other runs."""
        if broken := broken_tensors(state):
            raise self.diverged(state, setup, f"{', '.join(broken[:3])}{', ...' if broken[3:] else ''} became not finite")
        try:
            facts = {"config": self.config, "seconds": self.writer.seconds}
            yield from saving_checkpoint(self.checkpoints, state, [self.writer.metrics], keep=keep, scheduled=scheduled, facts=facts)
        except StorageError as error:
            self._failed_saves += 1
            if must or self._failed_saves == MAX_FAILED_SAVES:
                raise StorageError(f"{error}; {self.kept()}; go on with: {self.resume_line}") from error
            self.console.warn(f"{error}; {self.kept()}, training goes on, failed save {self._failed_saves} of {MAX_FAILED_SAVES}")
            return False
        self._failed_saves = 0
        try:
            prune(self.checkpoints, setup.checkpoint.keep_last)
        except StorageError as error:  # the new checkpoint is safe; the old one only takes space
            self.console.warn(str(error))
        return True

    def save_and_stop(self, state: TrainState, setup: Setup, exit_code: int) -> NoReturn:
        """Save the state, if it is not saved yet, and raise InterruptedRunError."""
        saved = carry_out(self.saving_once(state, setup))
        raise InterruptedRunError(self.how_to_resume("saved" if saved else "not saved"), exit_code=exit_code)

    def saving_once(self, state: TrainState, setup: Setup) -> Writing[bool]:
        """Save the state, if it is not saved yet; tell whether it is now."""
        return self._is_saved(state) or (yield from self.saving(state, setup, scheduled=False))

    def _is_saved(self, state: TrainState) -> bool:
        return (self.checkpoints / name_of(state)).is_dir()

    @property
    def has_checkpoint(self) -> bool:
        """Whether anything was saved."""
        return bool(step_folders(self.checkpoints))

    def roll_back(self, state: TrainState, setup: Setup, error: DivergedError) -> None:
        """Go back to the last scheduled checkpoint and halve the learning rate, where the config says so; otherwise raise the error."""
        stop = setup.train.on_divergence == "stop"
        checkpoint = None if stop else newest_whole(self.checkpoints, self.console.warn, scheduled=True)
        if checkpoint is None:
            raise error
        if state.rollbacks == MAX_ROLLBACKS:
            raise DivergedError(f"{error}; it went back {MAX_ROLLBACKS} times, down to lr x {state.lr_scale:.3g}, in vain") from error
        lr_scale, rollbacks = state.lr_scale / 2, state.rollbacks + 1
        restore_state(checkpoint, state)
        drop_after(self.checkpoints, checkpoint)  # training comes by there again
        state.lr_scale, state.rollbacks = lr_scale, rollbacks
        state.optimizer.zero_grad(set_to_none=True)
        self._forget()
        self._watch = None  # it looks at the rows that are left
        self.writer.cut_rows_after(state.step, state.epoch)
        entry = {"step": state.step, "lr_scale": lr_scale, "why": str(error)}
        try:
            self.writer.update(rollbacks=[*self.writer.info.get("rollbacks", []), entry])
        except StorageError as full:
            self.console.warn(f"{full}; training goes on")
        self.console.warn(
            f"{error}; went back to step {state.step:,}, lr x {lr_scale:.3g} from here ({rollbacks} of {MAX_ROLLBACKS} tries)"
        )

    def kept(self) -> str:
        """Say which checkpoint is safe."""
        saved = step_folders(self.checkpoints)
        return f"checkpoint {saved[-1].name} is kept" if saved else "nothing was saved yet"

    def how_to_resume(self, what: str) -> str:
        """Return the line that an interrupted run ends with."""
        return f"interrupted, {what}; {self.kept()}; go on with: {self.resume_line}"

    def diverged(self, state: TrainState, setup: Setup, what: str, row: StepRow | None = None) -> DivergedError:
        """Write nan_report.json and return the error. row: of the step that broke; without it that is the last one."""
        step, facts = state.step, {"lr": state.optimizer.param_groups[0]["lr"]}
        if row is not None:
            step, facts = row.step, {"lr": row.lr, "loss": row.loss, "grad_norm": row.grad_norm}
        report = nan_report(state, setup, step, {"what": what, **facts})
        where = f"step {report['step']} (epoch {report['epoch']}, batch {report['batches'][0]}, lr {report['lr']:.3g})"
        path = self.writer.path / "nan_report.json"
        try:
            write_json(path, report)
            more = f", {path} says more"
        except StorageError as error:
            more = f" ({error})"
        remedy = "try a smaller optim.lr" + (", or train.on_divergence=rollback" if setup.train.on_divergence == "stop" else "")
        return DivergedError(f"{what} at {where}; {self.kept()}{more}; {remedy}")

    def _watch_of(self, setup: Setup) -> Watch:
        """Return what looks at the rows; made when it is first asked for, from the rows that are there."""
        if self._watch is None:
            said = [entry.get("kind", "") for entry in self.writer.info.get("warnings", [])]
            rows = read_rows(self.writer.path / "metrics.jsonl")
            self._watch = Watch(rows, said, num_classes=setup.num_classes, clipped=setup.train.clip_norm is not None)
        return self._watch

    def _unmoved(self, state: TrainState) -> list[str]:
        """Return the weights that the first epoch did not move, in one transfer."""
        if state.epoch != 1 or not self._first_norms:
            return []
        now = torch.stack(list(weight_norms(state.model).values()))
        same = (now == torch.stack(list(self._first_norms.values()))).tolist()
        return [name for name, still in zip(self._first_norms, same, strict=True) if still]

    def _warn(self, found: dict[str, str], epoch: int) -> None:
        """Say what was found, and keep it in run.json."""
        for text in found.values():
            self.console.warn(text)
        if found:
            entries = [{"epoch": epoch, "kind": kind, "says": text} for kind, text in found.items()]
            try:
                self.writer.update(warnings=[*self.writer.info.get("warnings", []), *entries])
            except StorageError as error:
                self.console.warn(f"{error}; training goes on")

    def _fetched(self, values: Tensor) -> list[float]:
        """Bring figures over from the device."""
        return values.tolist()

    def _forget(self) -> None:
        self._steps, self._sizes, self._scalars, self._hits = [], [], [], []

    @contextmanager
    def _rows_may_wait(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            self.console.warn(f"{error}; the rows wait, training goes on")


def _rows(steps: Sequence[_Step], values: Iterator[float], total_loss: float) -> tuple[list[StepRow], float]:
    """Return a row for each step, and `total_loss` with the summed loss of their images added.

    values: the losses of a step's batches and then the norms of its gradients, one step after the other. The total grows batch by
    batch in float64, so that its bits do not depend on how many steps are fetched at a time.
    """
    rows = []
    for step, epoch, lr, sizes, num_norms in steps:
        losses = list(islice(values, len(sizes)))
        for loss, size in zip(losses, sizes, strict=True):
            total_loss += loss * size
        mean = losses[0] if len(sizes) == 1 else sum(map(mul, losses, sizes)) / sum(sizes)
        grad_norm = math.hypot(*islice(values, num_norms))
        rows.append(StepRow(step, epoch, lr, mean, grad_norm))
    return rows, total_loss


def epoch_line(row: dict[str, Any]) -> str:
    """Return one line about an epoch."""
    val = f"   val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.4f}" if "val_loss" in row else ""
    mark = "  * best" if row["best"] and val else ""
    train = f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}"
    return f"epoch {row['epoch']:>3}   {train}{val}   lr {row['lr']:.3g}   {row['seconds']:.1f} s{mark}"
