"""A trial, its row, and where it is trained: what the leader of a study and its workers tell each other. Needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.studies.space import Point

Row = dict[str, Any]
"""A trial that ended: trial (name), number, seed, point, state (finished, pruned, diverged, failed), objective, figures, seconds, why.
objective: of the best epoch, None where the trial did not finish; curve: by epoch, where the study compares epochs."""


MAX_SEEDS = 10_000
"""Trainings of one point."""


@dataclass(frozen=True)
class Trial:
    """One training of a study: a point of the space with a seed. `number` counts points; trials of one point share it."""

    number: int
    point: Point
    seed: int
    pause_after: int | None = None
    """Epoch behind which it waits for a decision; None trains to the end."""

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.number:04d}-s{self.seed}"


@dataclass(frozen=True)
class Place:
    """Where and how the trials of a study are trained; plain values, so that it can be sent to another process."""

    study: str
    """The study's folder."""
    data_dir: str
    objective: str
    better: str = "max"
    """Which end of the objective is the good one, `max` or `min`."""
    keeps_curve: bool = False
    """Whether rows hold the objective of every epoch."""
    prunes: bool = False
    """Whether a trial ends behind an epoch at which it is worse than the median of the others."""
    one_thread: bool = False
    """Whether trials use one thread whatever their config says, because others run beside them."""

    one_writer: bool = False
    """Whether the leader alone writes rows: on a network file system, where several who append could overwrite each other."""

    @property
    def path(self) -> Path:
        """The study's folder."""
        return Path(self.study)

    @property
    def data_dir_path(self) -> Path:
        """The folder of data sets."""
        return Path(self.data_dir)


def head(trial: Trial) -> Row:
    """Return what names a trial in its row."""
    return {"trial": trial.name, "number": trial.number, "seed": trial.seed, "point": trial.point}


def failed(trial: Trial, why: str, *, state: str = "failed", seconds: float = 0.0) -> Row:
    """Return the row of a trial that ended without a figure."""
    return {**head(trial), "state": state, "objective": None, "figures": {}, "seconds": round(seconds, 3), "why": why}


def key_of(row: Mapping[str, Any]) -> str:
    """Return what makes two rows or trials the same: the point and the seed, whatever number the point had."""
    return json.dumps([row["point"], row["seed"]], sort_keys=True)


def point_key(point: Point) -> str:
    """Return what makes two points the same."""
    return json.dumps(point, sort_keys=True)
