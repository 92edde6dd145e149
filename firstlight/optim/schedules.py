"""Learning-rate schedules as pure functions: the factor on the base lr follows from the step and, for `plateau`, a small explicit state.

Epochs may be fractions of a step's worth; the state is numbers alone, so that `dataclasses.asdict` makes JSON of it.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from firstlight.limits import Fraction, NonNegative, Positive, PositiveInt, Probability


@dataclass(frozen=True)
class ScheduleState:
    """What a schedule remembers of the epochs so far; only `plateau` ever changes it."""

    scale: float = 1.0
    """What the lr is multiplied by."""
    best: float | None = None
    """Lowest validation loss so far."""
    num_bad: int = 0
    """Epochs since then."""


START = ScheduleState()


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The base lr throughout, and what every schedule has: a warm-up, and an interface for the engine.

    warmup_epochs: over so many epochs the lr grows linearly; step i of n warm-up steps has (i + 1) / n of it.
    """

    warmup_epochs: NonNegative = 0.0

    def factor(self, step: int, *, total_steps: int, steps_per_epoch: int, state: ScheduleState = START) -> float:
        """Return what the base lr is multiplied by at this step (the first is 0)."""
        warmup_steps = min(round(self.warmup_epochs * steps_per_epoch), total_steps)
        rise = (step + 1) / warmup_steps if step < warmup_steps else 1.0
        return rise * state.scale * self._shape(step, warmup_steps, total_steps, steps_per_epoch)

    def start(self) -> ScheduleState:
        """Return the state before the first epoch."""
        return START

    def update(self, state: ScheduleState, val_loss: float) -> ScheduleState:
        """Return the state after an epoch."""
        return state

    def _shape(self, step: int, warmup_steps: int, total_steps: int, steps_per_epoch: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Step(Constant):
    """The lr is multiplied by `gamma` at given epochs.

    warmup_epochs: over so many epochs the lr grows linearly; they count among the epochs below.
    every_epochs: epochs between two drops.
    milestones: epochs after which it drops, in place of `every_epochs`.
    gamma: factor of one drop.
    """

    every_epochs: PositiveInt = 30
    milestones: tuple[PositiveInt, ...] = ()
    gamma: Positive = 0.1

    def _shape(self, step: int, warmup_steps: int, total_steps: int, steps_per_epoch: int) -> float:
        epoch = step // steps_per_epoch
        drops = sum(epoch >= milestone for milestone in self.milestones) if self.milestones else epoch // self.every_epochs
        return float(self.gamma**drops)


@dataclass(frozen=True, kw_only=True)
class Linear(Constant):
    """The lr falls on a straight line from the base lr to `final` of it.

    warmup_epochs: over so many epochs the lr grows linearly; the fall takes the steps that are left.
    final: share of the base lr at the end.
    """

    final: Probability = 0.0

    def _shape(self, step: int, warmup_steps: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.final + (1 - self.final) * (1 - _progress(step, warmup_steps, total_steps))


@dataclass(frozen=True, kw_only=True)
class Cosine(Constant):
    """The lr falls along half a cosine from the base lr to `final` of it (Loshchilov and Hutter 2017).

    warmup_epochs: over so many epochs the lr grows linearly; the fall takes the steps that are left.
    final: share of the base lr at the end.
    """

    final: Probability = 0.0

    def _shape(self, step: int, warmup_steps: int, total_steps: int, steps_per_epoch: int) -> float:
        return _between(1.0, self.final, _progress(step, warmup_steps, total_steps), "cosine")


@dataclass(frozen=True, kw_only=True)
class OneCycle(Constant):
    """The lr climbs from `initial` of the base lr to all of it, and falls to `final` (Smith and Topin 2018).

    warmup_epochs: a warm-up on top of the climb, which is one already.
    peak: share of the training at which the base lr is reached.
    initial: share of the base lr at the first step.
    final: share of the base lr at the last step.
    shape: form of climb and fall.
    """

    peak: Fraction = 0.3
    initial: Probability = 0.04
    final: Probability = 4e-6
    shape: Literal["cosine", "linear"] = "cosine"

    def _shape(self, step: int, warmup_steps: int, total_steps: int, steps_per_epoch: int) -> float:
        top, last = max(self.peak * total_steps - 1, 0.0), total_steps - 1
        if step < top:
            return _between(self.initial, 1.0, step / top, self.shape)
        return _between(1.0, self.final, (step - top) / (last - top) if last > top else 0.0, self.shape)


@dataclass(frozen=True, kw_only=True)
class Plateau(Constant):
    """The lr is multiplied by `gamma` when the validation loss has stopped falling.

    warmup_epochs: over so many epochs the lr grows linearly.
    gamma: factor of one drop.
    patience: epochs without a better loss that are borne before a drop.
    threshold: a loss is better when it is lower than (1 - threshold) times the best so far.
    least: share of the base lr below which it never drops.
    """

    gamma: Fraction = 0.1
    patience: PositiveInt = 10
    threshold: Fraction = 1e-4
    least: Probability = 0.0

    def update(self, state: ScheduleState, val_loss: float) -> ScheduleState:
        """Return the state after an epoch that ended with this validation loss; a loss that is not a number is no better."""
        if val_loss < (math.inf if state.best is None else state.best * (1 - self.threshold)):
            return replace(state, best=val_loss, num_bad=0)
        if state.num_bad + 1 <= self.patience:
            return replace(state, num_bad=state.num_bad + 1)
        return replace(state, scale=max(state.scale * self.gamma, self.least), num_bad=0)


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the share of the steps behind the warm-up that is done: 0 at its end, 1 one step past the last."""
    return min(max(step - warmup_steps, 0) / max(total_steps - warmup_steps, 1), 1.0)


def _between(start: float, end: float, progress: float, shape: Literal["cosine", "linear"]) -> float:
    share = (1 - math.cos(math.pi * progress)) / 2 if shape == "cosine" else progress
    return start + (end - start) * share
