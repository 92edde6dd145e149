"""The real training loop, timed whole and in parts: waiting for the batch, forward, backward, optimizer, and the rest.

Whole rounds and rounds in parts take turns, so that what the marks cost can be seen. Reading order: measure_parts, Training, marked.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from firstlight.data.loader import Batch, Loader
from firstlight.engine import step as engine_step
from firstlight.engine.loop import train_one_epoch
from firstlight.engine.record import Recorder
from firstlight.engine.signals import StopRequest
from firstlight.engine.step import train_step
from firstlight.engine.train import Prepared
from firstlight.tracking.console import Console
from firstlight.tracking.writer import RunWriter

PARTS = ("data wait", "forward", "backward", "optimizer", "rest")
"""In the order of a step. Forward ends behind the loss; the optimizer's part holds the gradients' norms, clipping and a moving average;
the rest is what the training writes down, and its own Python."""
NUM_ROUNDS = 5
"""Of each kind, behind one that warms up."""
ROUND_SECONDS = 0.12
MOST_SECONDS = 15.0
"""Of all rounds of a batch size together; where a step is so long, there are fewer and shorter rounds, at least two of one step."""


class Clock:
    """Notes moments and what ended at each: by the clock on a CPU, as events in the stream of a GPU, which nobody waits for."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []

    def mark(self, part: str) -> None:
        """Note that a part of the step ends here."""
        if self._device == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))
            return
        if self._device == "mps":
            torch.mps.synchronize()
        self._marks.append((part, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part since the first mark; call it where the device has nothing left to do."""
        total = dict.fromkeys(PARTS, 0.0)
        for (_, began), (part, ended) in pairwise(self._marks):
            total[part] += began.elapsed_time(ended) / 1000 if self._device == "cuda" else ended - began
        return total


class _Endless(Loader):
    """A training loader whose epochs have `num_batches` whole batches, each beginning where the last one ended.

    So the making of an epoch's order is paid as often as in training, and not once a round.
    """

    num_batches = 1  # a setting here

    def __init__(self, loader: Loader, batch_size: int) -> None:
        inner = copy(loader)
        inner.batch_size, inner.drop_last = batch_size, True
        self.__dict__.update(vars(inner))
        self._all = (batch for epoch in range(2**31) for batch in inner.batches(epoch, reuse_buffers=True))
        self.clock: Clock | None = None

    @property
    def num_images(self) -> int:
        """Images in an epoch, which may see some of them several times."""
        return self.num_batches * self.batch_size

    def batches(self, epoch: int, start: int = 0, *, reuse_buffers: bool = False) -> Iterator[Batch]:
        """Yield the next batches, and mark when they were asked for and when they were there."""
        for _ in range(self.num_batches):
            if self.clock is not None:
                self.clock.mark("rest")
            batch = next(self._all)
            if self.clock is not None:
                self.clock.mark("data wait")
            yield batch


class Training:
    """A prepared training on batches of one size, whose steps are taken a round at a time by the engine's own loop.

    The learning rate is so small that the weights stay what they are. What the loop writes down goes into a run folder at `scratch`.
    """

    def __init__(self, prepared: Prepared, batch_size: int, writer: RunWriter) -> None:
        self._state = prepared.state
        self._loader = _Endless(prepared.setup.train_loader, batch_size)
        train = replace(prepared.setup.train, batch_size=batch_size)
        self.setup = replace(prepared.setup, train=train, train_loader=self._loader, val_loader=None)
        self._recorder = Recorder(writer, Console(quiet=True), facts={}, config={}, resume_line="")
        self._late = prepared.setup.total_steps
        self._state.lr_scale = 1e-9

    def round(self, num_batches: int, clock: Clock | None = None) -> float:
        """Take steps on so many batches and return the seconds; with a clock, mark the parts of each."""
        state = self._state
        self._loader.num_batches, self._loader.clock = num_batches, clock
        state.batch, state.running = 0, (0.0, 0.0)
        state.step = self._late  # images at their full size, where training begins with smaller ones
        synchronize(self.setup.arithmetic.device)
        began = time.perf_counter()
        with marked(clock):
            train_one_epoch(state, self.setup, self._recorder, StopRequest())
            self._recorder.fetch(state, self.setup)
        synchronize(self.setup.arithmetic.device)
        return time.perf_counter() - began

    def next_batch(self) -> Batch:
        """Make a batch."""
        self._loader.num_batches, self._loader.clock = 1, None
        return next(self._loader.batches(0))

    def step_on(self, batch: Batch) -> None:
        """Take one optimizer step on a batch, and nothing else."""
        self._state.step = self._late
        train_step(self._state, batch, self.setup, share=1.0, lr=self.setup.base_lr * self._state.lr_scale)


@dataclass(frozen=True)
class Timing:
    """Steps on batches of a size.

    whole_seconds: of a step in each round; parts_seconds: of a step, by part, in each round with marks; processor_share: how much of the
    time of the rounds without marks this process was on a processor.
    """

    batch_size: int
    num_steps: int
    whole_seconds: tuple[float, ...]
    parts_seconds: tuple[dict[str, float], ...]
    processor_share: float = 1.0

    @property
    def seconds(self) -> float:
        """The median step of the rounds without marks."""
        return statistics.median(self.whole_seconds)

    @property
    def parts(self) -> dict[str, float]:
        """The median of each part over the rounds."""
        return {part: statistics.median(seconds[part] for seconds in self.parts_seconds) for part in PARTS}

    @property
    def sum_over_whole(self) -> float:
        """The sum of the parts over the step without marks: the median over pairs of neighbouring rounds."""
        pairs = zip(self.whole_seconds, self.parts_seconds, strict=True)
        return statistics.median(sum(parts.values()) / whole for whole, parts in pairs)


def measure_parts(
    training: Training, batch_size: int, between: Callable[[], None] = lambda: None, *, num_rounds: int = NUM_ROUNDS
) -> Timing:
    """Time steps whole and in parts, turn by turn; `between` is called at each turn. Long steps get fewer rounds than `num_rounds`."""
    training.round(1)
    first = training.round(2) / 2
    num_steps = min(max(round(ROUND_SECONDS / first), 2), 5000)
    if 2 * num_rounds * num_steps * first > MOST_SECONDS:
        num_steps = 1
        num_rounds = min(max(int(MOST_SECONDS / (2 * first)), 2), num_rounds)
    accumulate = training.setup.train.accumulate
    num_steps = -(-num_steps // accumulate) * accumulate
    whole, parts, spent = [], [], 0.0
    for _ in range(num_rounds):
        began = time.process_time()
        whole.append(training.round(num_steps) / num_steps)
        spent += time.process_time() - began
        clock = Clock(training.setup.arithmetic.device)
        clock.mark("rest")
        training.round(num_steps, clock)
        clock.mark("rest")
        synchronize(training.setup.arithmetic.device)
        parts.append({part: seconds / num_steps for part, seconds in clock.seconds().items()})
        between()
    return Timing(batch_size, num_steps, tuple(whole), tuple(parts), spent / (num_steps * sum(whole)))


@contextmanager
def marked(clock: Clock | None) -> Iterator[None]:
    """Let the engine's step mark where forward, backward and optimizer end, for the block; nothing happens without a clock."""
    if clock is None:
        yield
        return
    backward, apply = engine_step._run_backward, engine_step.apply_gradients

    def timed_backward(*args: Any) -> None:
        clock.mark("forward")
        backward(*args)
        clock.mark("backward")

    def timed_apply(*args: Any) -> Any:
        norms = apply(*args)
        clock.mark("optimizer")
        return norms

    with replaced("_run_backward", timed_backward), replaced("apply_gradients", timed_apply):
        yield


@contextmanager
def replaced(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put another function in the place of one of engine/step.py for the block. This process trains nothing else meanwhile."""
    before = getattr(engine_step, name)
    setattr(engine_step, name, function)
    try:
        yield
    finally:
        setattr(engine_step, name, before)


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


@contextmanager
def training_on(prepared: Prepared, batch_size: int, scratch: Path) -> Iterator[Training]:
    """Give a training that writes into a new run folder at `scratch`, which the caller throws away."""
    with RunWriter(scratch) as writer:
        prepared.state.model.train()
        yield Training(prepared, batch_size, writer)
