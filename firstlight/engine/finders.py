"""Two settings found by trying: the learning rate, by a range test on a copy of the network; the largest batch, in child processes.

Neither leaves a trace: the network, its optimizer and the caller's random numbers stay as they were, and no run folder is made.
Reading order: tune_lr, find_lr, LrRange; tune_batch, find_batch_size, Probe. The child's side is engine/batch_probe.py.
"""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firstlight.data.loader import Batch
from firstlight.engine.children import OUT_OF_MEMORY, Child
from firstlight.engine.memory import keep_freed_memory, out_of_memory, smaller_batch
from firstlight.engine.places import data_dir_of
from firstlight.engine.seeding import private_randomness, seed_batch
from firstlight.engine.sources import load_config
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import train_step
from firstlight.engine.train import prepare
from firstlight.errors import ConfigError, FirstlightError, OutOfMemoryError
from firstlight.files import write_figure
from firstlight.tracking.console import Console

EXPLODED = 4.0
"""Times the smallest loss so far (smoothed) at which the range test stops."""
MOST_ON_CPU = 4096
"""Largest batch that is tried on a CPU where nothing is said; memory seldom ends there, patience does."""
NEAR = 16
"""The largest batch is found to one part in so many."""


@dataclass(frozen=True)
class LrRange:
    """What a range test saw: the loss of each step (nats, before it), at a learning rate that grew by the same factor each time.

    smoothed: the mean of each loss and its neighbours; steepest: the learning rate at which the loss fell fastest; largest: the one behind
    which it rose again. Both None where it never fell. exploded: whether the test stopped before its last step.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float | None
    largest: float | None
    exploded: bool

    def sentence(self) -> str:
        """Return what it suggests."""
        if not self.lrs:
            return "no loss was a number, not even at the first learning rate; begin lower, or look at the network"
        if self.steepest is None or self.largest is None:
            return f"the loss never fell between lr {self.lrs[0]:.2g} and {self.lrs[-1]:.2g}; begin lower, or look at the network"
        rises = self.exploded or self.largest < self.lrs[-1]
        beyond = "beyond it the loss rises" if rises else "the loss was still falling there: go on higher with --high"
        return f"try lr {self.steepest:.2g}, where the loss falls fastest; the largest that trains is {self.largest:.2g} ({beyond})"


def find_lr(state: TrainState, setup: Setup, *, low: float = 1e-6, high: float = 10.0, num_steps: int = 100) -> LrRange:
    """Train a copy of a network for some steps at a learning rate that grows from `low` to `high`, and return the losses (Smith 2017).

    `state` stays as it is. The test stops when the smoothed loss is four times its smallest value, or no number.
    Raises ConfigError for a range without a way up.
    """
    if not (0 < low < high < math.inf) or num_steps < 10:
        raise ConfigError(f"a range test from lr {low:g} to {high:g} in {num_steps} steps goes nowhere; take 0 < low < high and 10 steps")
    trial, lrs, losses, window = deepcopy(state), [], [], _window(num_steps)
    trial.ema = None
    trial.model.train()
    least, exploded = math.inf, False
    with private_randomness(setup.arithmetic.device):
        for step, parts in zip(range(num_steps), endless_steps(setup), strict=False):
            lr = low * (high / low) ** (step / (num_steps - 1))
            loss = step_on(trial, setup, parts, lr=lr)
            if not math.isfinite(loss):
                exploded = True
                break
            lrs.append(lr)
            losses.append(loss)
            recent = sum(losses[-window:]) / len(losses[-window:])
            least = min(least, recent)
            if len(losses) > window and recent > EXPLODED * least:
                exploded = True
                break
    return _judge(lrs, losses, window, exploded=exploded)


def step_on(state: TrainState, setup: Setup, parts: list[tuple[int, int, Batch]], *, lr: float) -> float:
    """Take one optimizer step on the batches of `endless_steps`, and return their mean loss (nats)."""
    loss = 0.0
    for place, (epoch, number, batch) in enumerate(parts):
        seed_batch(setup.order_seed, epoch, number, device=setup.arithmetic.device)
        share = len(batch.labels) / sum(len(part.labels) for _, _, part in parts)
        result = train_step(state, batch, setup, share=share, lr=lr if place == len(parts) - 1 else None)
        loss += float(result.loss) * share
    return loss


def _window(num_steps: int) -> int:
    """Return over how many steps losses are averaged: a twentieth, an odd number, so that the mean has a middle."""
    return max(3, num_steps // 20 | 1)


def _judge(lrs: list[float], losses: list[float], window: int, *, exploded: bool) -> LrRange:
    """Find where the smoothed loss falls fastest over the logarithm of the learning rate, and where it is smallest."""
    half = window // 2
    smoothed = [sum(part) / len(part) for part in (losses[max(place - half, 0) : place + half + 1] for place in range(len(losses)))]
    bottom = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    falls = [smoothed[place + half] - smoothed[place - half] for place in range(half, max(bottom - half + 1, half))]
    if not falls or min(falls) >= 0:
        return LrRange(tuple(lrs), tuple(losses), tuple(smoothed), None, None, exploded)
    steepest = half + min(range(len(falls)), key=falls.__getitem__)
    return LrRange(tuple(lrs), tuple(losses), tuple(smoothed), lrs[steepest], lrs[bottom], exploded)


def endless_steps(setup: Setup) -> Iterator[list[tuple[int, int, Batch]]]:
    """Yield the batches of each optimizer step with their epoch and number, epoch after epoch."""
    epoch = 0
    while True:
        parts: list[tuple[int, int, Batch]] = []
        for number, batch in enumerate(setup.train_loader.batches(epoch)):
            parts.append((epoch, number, batch))
            if len(parts) == setup.train.accumulate or number == setup.train_loader.num_batches - 1:
                yield parts
                parts = []
        epoch += 1


def tune_lr(
    source: str | Path,
    *overrides: str,
    low: float = 1e-6,
    high: float = 10.0,
    num_steps: int = 100,
    out: Path = Path("lr-range.png"),
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Run a range test on an experiment, draw it into `out`, and return its figures as plain data."""
    from firstlight.plotting.finders import plot_lr_range

    config = load_config(source, *overrides)
    with out_of_memory("building the network", "try a smaller one (its settings stand under `model`)"):
        prepared = prepare(config, data_dir_of(data_dir))
    smaller = smaller_batch(config.train.batch_size, config.train.accumulate, prepared.data.num_train)
    with prepared.setup.arithmetic.on_threads(), keep_freed_memory(), out_of_memory("looking for a learning rate", smaller):
        found = find_lr(prepared.state, prepared.setup, low=low, high=high, num_steps=num_steps)
    marks = {"steepest": found.steepest, "largest": found.largest}
    write_figure(out, plot_lr_range(found.lrs, found.losses, found.smoothed, **marks, title=f"{config.name}: {found.sentence()}"))
    return {"experiment": config.name, "optimizer": config.optim.name, **asdict(found), "says": found.sentence(), "files": [str(out)]}


@dataclass(frozen=True)
class Probe:
    """One batch size that was tried. images_per_second: of a training step; peak_mib: of its process; `why` there is neither."""

    batch_size: int
    images_per_second: float | None = None
    peak_mib: float | None = None
    why: str | None = None

    @property
    def fits(self) -> bool:
        """Whether a step ended."""
        return self.images_per_second is not None


def find_batch_size(
    source: str | Path,
    *overrides: str,
    memory_mib: float | None = None,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> list[Probe]:
    """Try growing batches of an experiment in child processes, and return what was tried in that order.

    memory_mib: what a step may take beyond data and network, else what is free now; limit: the largest batch to try, else all training
    images, on a CPU at most 4,096. A child that runs out of memory dies alone, and the next size is tried in a fresh one.
    Raises the errors of the experiment.
    """
    said = console or Console(quiet=True)
    tried: list[Probe] = []
    child = _Child(source, overrides, memory_mib, data_dir)
    try:
        most = min(child.num_images, limit or (child.num_images if child.device == "cuda" else MOST_ON_CPU))

        def attempt(size: int) -> bool:
            nonlocal child
            if not child.alive:
                child = _Child(source, overrides, memory_mib, data_dir)
            tried.append(child.try_size(size))
            said.line(show_probe(tried[-1]))
            if child.alive and not tried[-1].fits and size > 1:  # one image may be too few (batch norm); more fail only for want of memory
                raise FirstlightError(
                    f"a step on {size} images failed: {tried[-1].why}; try `firstlight train` with train.batch_size={size}"
                )
            return tried[-1].fits or (child.alive and most > 1)

        largest, failed = _doubling(attempt, most)
        while failed is not None and failed - largest > max(1, largest // NEAR):
            middle = (largest + failed) // 2
            largest, failed = (middle, failed) if attempt(middle) else (largest, middle)
    finally:
        child.close()
    return tried


def show_probe(probe: Probe) -> str:
    """Return one line about a batch size that was tried."""
    if probe.images_per_second is None:
        return f"batch {probe.batch_size:>7,}: {probe.why}"
    return f"batch {probe.batch_size:>7,}: {probe.images_per_second:>12,.0f} images/s, peak {probe.peak_mib:,.0f} MiB"


def _doubling(attempt: Callable[[int], bool], most: int) -> tuple[int, int | None]:
    """Return the largest batch of 1, 2, 4, ..., `most` that fits, 0 for none, and the first that does not."""
    size, largest = 1, 0
    while attempt(size):
        largest = size
        if size == most:
            return largest, None
        size = min(2 * size, most)
    return largest, size


class _Child(Child):
    """A process that takes training steps on batches of the sizes it is told, and may die of one."""

    def __init__(self, source: str | Path, overrides: tuple[str, ...], memory_mib: float | None, data_dir: str | Path | None) -> None:
        asked = {"source": str(source), "overrides": overrides, "memory_mib": memory_mib, "data_dir": str(data_dir_of(data_dir))}
        super().__init__("firstlight.engine.batch_probe", asked)
        self.num_images: int = self.ready["num_images"]
        self.device: str = self.ready["device"]

    def try_size(self, size: int) -> Probe:
        """Let it take steps on batches of a size; it ends where memory runs out, by itself or by the system's hand."""
        answer = self.tell(f"{size}\n".encode())
        if answer is None:
            return Probe(size, why=self.end())
        if answer.get("why") == OUT_OF_MEMORY:
            self.end()
        return Probe(size, **answer)


def tune_batch(
    source: str | Path,
    *overrides: str,
    memory_mib: float | None = None,
    limit: int | None = None,
    out: Path = Path("batch-size.png"),
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Find the largest batch of an experiment, draw images/s over the batch size into `out`, and return the figures as plain data.

    Raises OutOfMemoryError where not even one image fits.
    """
    from firstlight.plotting.finders import plot_batch_sizes

    config = load_config(source, *overrides)
    if (memory_mib is not None and memory_mib <= 0) or (limit is not None and limit < 1):
        raise ConfigError(f"memory {memory_mib} MiB and limit {limit} leave nothing to try; take numbers above 0")
    tried = find_batch_size(source, *overrides, memory_mib=memory_mib, limit=limit, data_dir=data_dir, console=console)
    fitting = sorted((probe for probe in tried if probe.fits), key=lambda probe: probe.batch_size)
    if not fitting:
        raise OutOfMemoryError(f"not even a batch of one image of {config.name} fits; try a smaller network or more memory")
    failed = [probe.batch_size for probe in tried if probe.why is not None and probe.batch_size > fitting[-1].batch_size]
    fastest = max(fitting, key=lambda probe: probe.images_per_second or 0.0)
    reasons = {probe.batch_size: probe.why for probe in tried}
    why = f"{min(failed):,}: {reasons[min(failed)]}" if failed else "larger ones were not tried"
    says = f"the largest batch that fits is {fitting[-1].batch_size:,} ({why}); the fastest was {fastest.batch_size:,}"
    speeds = [(probe.batch_size, probe.images_per_second or 0.0) for probe in fitting]
    write_figure(out, plot_batch_sizes(speeds, failed=failed, title=f"{config.name}: {says}"))
    return {
        "experiment": config.name,
        "largest": fitting[-1].batch_size,
        "fastest": fastest.batch_size,
        "tried": [asdict(probe) for probe in tried],
        "says": says,
        "files": [str(out)],
    }
