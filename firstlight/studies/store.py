"""A study on disk: study.json says what it is, trials.jsonl has a row for each trial that ended, the run folders hold the rest.

runs/<study>/  study.json    the study, its base experiment resolved
               trials.jsonl  one row a trial that ended: number, point, seed, state, figures, seconds
               0007-s2/      the run folder of a trial: point 7 with seed 2; its run.json names the trial
               study.lock    held by the process that leads the study
               claims.lock   its bytes are the claims of processes on trials
The rows and the run folders are the truth; tables and pictures are made from them and can be deleted.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstlight.errors import ConfigError, RunNotFoundError, StorageError
from firstlight.files import Appender, Claims, finite, make_dir, write_json
from firstlight.studies.trial import MAX_SEEDS, Trial, head
from firstlight.studies.trial import Row as Row
from firstlight.tracking.run import Run

if TYPE_CHECKING:
    from firstlight.studies.study import Study

SAME = ("base", "set", "config", "objective")
"""What may not change while a study stands: its rows would no longer compare."""


@dataclass(frozen=True)
class Store:
    """The folder of a study."""

    path: Path

    def open(self, study: "Study") -> None:
        """Write study.json, or hold it against the one that stands there. Raises ConfigError where the rows would not compare."""
        wanted, place = json.loads(json.dumps(study.to_json())), self.path / "study.json"
        if place.is_file():
            known = self.definition()
            if known.get("config") != wanted["config"]:
                known["config"] = _completed(known.get("config"))
            for key in SAME:
                was, now = _without_tracking(known.get(key)), _without_tracking(wanted[key])
                if was != now:
                    what, before, now = _difference(key, was, now)
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
        reader = _Reader(self.path / LOG)
        reader.read()
        return list(reader.rows.values())

    def run_path(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.path / trial.name

    def heads_without(self, rows: Mapping[str, Row]) -> list[Row]:
        """Return the heads of the trials that have a run folder but none of these rows, by number: begun, or their row is lost."""
        folders = (path.parent for path in self.path.glob("*-s*/run.json") if path.parent.name not in rows)
        heads = [{**head, "trial": folder.name} for folder in folders if (head := head_in(folder)) is not None]
        return sorted(heads, key=lambda head: (head["number"], head["seed"]))


class _Reader:
    """Follows trials.jsonl: each call of read takes in the whole lines that came since the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self.offset = 0

    def read(self) -> bool:
        """Take in what is new, and tell whether the file ends in a torn line: one that a power cut or a full disk left."""
        try:
            size = self.path.stat().st_size
            if size == self.offset:
                return False
            with self.path.open("rb") as handle:
                handle.seek(self.offset)
                new = handle.read()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"cannot read {self.path} ({error.strerror}); give yourself the permission, or put it back") from error
        whole, newline, torn = new.rpartition(b"\n")
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn: the run folder still knows
            if isinstance(row, dict) and row.keys() >= KEYS:
                self.rows[row["trial"]] = row
        self.offset += len(whole) + len(newline)
        return bool(torn)

    def skip(self, num_bytes: int, rows: Sequence[Row]) -> None:
        """Take in rows that we wrote ourselves, without reading them."""
        self.offset += num_bytes
        self.rows |= {row["trial"]: row for row in rows}


class Log:
    """trials.jsonl as one process uses it: what all processes wrote so far, its open end, and claims that give a trial to one of them.

    Whoever holds the claim of a trial looks for its row, trains it, writes the row, and lets go when that is on the disk. So a trial has
    one row, whichever process is killed when. Rows that come within SYNC_SECONDS share an fsync, which takes 1.7 ms on our disk.
    """

    SYNC_SECONDS = 0.05

    def __init__(self, path: Path) -> None:
        self._claims = Claims(path / "claims.lock")
        self._reader = _Reader(path / LOG)
        self._end = Appender(path / LOG)
        self._held: set[int] = set()
        self._synced = time.monotonic()

    @property
    def rows(self) -> dict[str, Row]:
        """The rows by the name of their trial, as of the last look."""
        return self._reader.rows

    def claim(self, trial: Trial) -> bool:
        """Claim a trial, and tell whether it is ours now."""
        number = _claim_of(trial)
        if self._claims.take(number):
            self._held.add(number)
        return number in self._held

    def look(self) -> None:
        """Take in what others wrote since the last look."""
        self._reader.read()

    def find(self, trial: Trial) -> Row | None:
        """Return the row of a trial if there is one by now."""
        self.look()
        return self.rows.get(trial.name)

    def write(self, rows: Sequence[Row], *, sync: bool = True) -> None:
        """Write the rows of trials whose claims we hold. sync: now, or else together with those of the next SYNC_SECONDS."""
        with self._claims.waiting_for(_WRITING):
            torn = self._reader.read()
            text = "\n".join([*([""] if torn else []), *map(as_line, rows)])
            self._end.write_lines([text])
            if not torn:
                self._reader.skip(len(text.encode()) + 1, rows)
        if sync or time.monotonic() - self._synced > self.SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring all rows to the disk, then let all claims go."""
        self._end.sync()
        self._synced = time.monotonic()
        while self._held:
            self._claims.free(self._held.pop())

    def let_go(self, trial: Trial) -> None:
        """Give up the claim of a trial that has no row yet."""
        self._held.discard(_claim_of(trial))
        self._claims.free(_claim_of(trial))

    def close(self) -> None:
        """Let go of everything. Rows that were not synced are with the operating system, and in their run folders."""
        self._end.close()
        self._claims.close()


LOG = "trials.jsonl"
KEYS = {"trial", "number", "seed", "point", "state", "objective", "figures", "seconds"}
"""What every row holds."""
_WRITING = 0
"""The claim of whoever appends to the log just now."""
_to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False).encode


def as_line(row: Row) -> str:
    """Return a row as it stands in the log."""
    try:
        return _to_json(row)
    except ValueError:  # NaN or an infinity
        return _to_json(finite(row))


def _claim_of(trial: Trial) -> int:
    return 1 + trial.number * MAX_SEEDS + trial.seed


def row_of(trial: Trial, path: Path, objective: str, *, keeps_curve: bool = False) -> Row:
    """Return the row of a trial whose run is finished."""
    summary = info_of(path)["summary"]
    figures = {key: summary[key] for key in FIGURES if key in summary}
    row = {"state": "finished", "objective": summary.get(objective), "figures": figures, "seconds": summary.get("seconds", 0.0)}
    return {**head(trial), **row, **({"curve": curve_of(path, objective)} if keeps_curve else {})}


def pruned_row(trial: Trial, path: Path, objective: str, why: str) -> Row:
    """Return the row of a trial that was ended early, with the figures of its last epoch."""
    last = Run(path).epochs[-1]
    figures = {"best_epoch": last["epoch"], **{key: last[key] for key in FIGURES if key in last}}
    row = {"state": "pruned", "objective": None, "figures": figures, "seconds": info_of(path).get("seconds", 0.0), "why": why}
    return {**head(trial), **row, "curve": curve_of(path, objective)}


def curve_of(path: Path, objective: str) -> list[float]:
    """Return the objective of a run by epoch, the first one first."""
    return [row[objective] for row in Run(path).epochs if row.get(objective) is not None]


def state_in(path: Path) -> str | None:
    """Return the state that a run folder last wrote."""
    return info_of(path).get("state")


def head_in(path: Path) -> Row | None:
    """Return which trial a run folder says it is."""
    told = info_of(path).get("trial")
    return told if isinstance(told, dict) and told.keys() >= {"number", "seed", "point"} else None


FIGURES = ("best_epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy")


def info_of(path: Path) -> dict[str, Any]:
    """Return run.json, nothing where it cannot be read. (Run.info reads the config as well, which takes 5 ms.)"""
    try:
        found = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _completed(config: Any) -> Any:
    """Return the config of an older study with the defaults of the settings that came since; loading them imports torch."""
    from firstlight.engine.sources import completed

    return json.loads(json.dumps(completed(config))) if isinstance(config, dict) else config


def _without_tracking(value: Any) -> Any:
    """Return what a study says without who is told of it, which may change."""
    return (
        {key: item for key, item in value.items() if key != "tracking" and not key.startswith("tracking.")}
        if isinstance(value, dict)
        else value
    )


def _difference(key: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the first place in which two values differ, and both values there."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            if before.get(name) != now.get(name):
                return _difference(f"{key}.{name}", before.get(name), now.get(name))
    return key, before, now
