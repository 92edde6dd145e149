"""A study on disk: study.json says what it is, trials.jsonl has a row for each trial that ended, the run folders hold the rest.

runs/<study>/  study.json    the study, its base experiment resolved
               trials.jsonl  one row a trial that ended: number, point, seed, state, figures, seconds
               0007-s2/      the run folder of a trial: point 7 with seed 2
               study.lock    held by the process that leads the study
The rows and the run folders are the truth; tables and pictures are made from them and can be deleted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError, RunNotFoundError, StorageError
from firstlight.files import Appender, make_dir, write_json
from firstlight.studies.study import Study, Trial
from firstlight.tracking.run import Run

Row = dict[str, Any]
"""A trial that ended: trial (name), number, seed, point, state (finished, diverged, failed), objective, figures, seconds, why."""

SAME = ("base", "set", "config", "objective")
"""What may not change while a study stands: its rows would no longer compare."""


@dataclass(frozen=True)
class Store:
    """The folder of a study."""

    path: Path

    def open(self, study: Study) -> None:
        """Write study.json, or hold it against the one that stands there. Raises ConfigError where the rows would not compare."""
        wanted, place = json.loads(json.dumps(study.to_json())), self.path / "study.json"
        if place.is_file():
            known = self.definition()
            for key in SAME:
                if known.get(key) != wanted[key]:
                    what, before, now = _difference(key, known.get(key), wanted[key])
                    raise ConfigError(
                        f"study {self.path} was begun with {what} {before}, now it is {now}; its trials would not compare, "
                        "so choose another --name"
                    )
        elif (self.path / "run.json").exists():
            raise StorageError(f"a run stands at {self.path}; choose another --name for the study")
        make_dir(self.path)
        write_json(place, wanted)

    def definition(self) -> dict[str, Any]:
        """Return what study.json says. Raises RunNotFoundError where there is none that can be read."""
        try:
            found: dict[str, Any] = json.loads((self.path / "study.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunNotFoundError(f"no study at {self.path} ({type(error).__name__}); `firstlight sweep STUDY` makes one") from error
        return found

    def rows(self) -> list[Row]:
        """Return the rows of all trials that ended, in that order; of several about one trial the last counts."""
        path = self.path / "trials.jsonl"
        found: dict[str, Row] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # torn by a kill: the run folder still knows
                if isinstance(row, dict) and isinstance(row.get("trial"), str):
                    found[row["trial"]] = row
        return list(found.values())

    def run_path(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.path / trial.name

    def appender(self) -> Appender:
        """Return the open end of trials.jsonl."""
        return Appender(self.path / "trials.jsonl")


def row_of(trial: Trial, run: Run, objective: str) -> Row:
    """Return the row of a trial whose run is finished."""
    best = next((row for row in run.epochs if row.get("epoch") == run.summary["best_epoch"]), {})
    figures = {
        key: run.summary[key] for key in ("best_epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy") if key in run.summary
    }
    value = best.get(objective, run.summary.get(objective))
    return {**head(trial), "state": "finished", "objective": value, "figures": figures, "seconds": run.summary.get("seconds", 0.0)}


def head(trial: Trial) -> Row:
    """Return what names a trial in its row."""
    return {"trial": trial.name, "number": trial.number, "seed": trial.seed, "point": trial.point}


def key_of(row: Mapping[str, Any]) -> str:
    """Return what makes two rows or trials the same: the point and the seed, whatever number the point had."""
    return json.dumps([row["point"], row["seed"]], sort_keys=True)


def _difference(key: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the first place in which two values differ, and both values there."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            if before.get(name) != now.get(name):
                return _difference(f"{key}.{name}", before.get(name), now.get(name))
    return key, before, now
