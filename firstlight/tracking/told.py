"""What a tracker is told of a run: numbers by tag, hyperparameters, figures at the end, pictures. All of it from the run folder."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from firstlight.errors import StorageError
from firstlight.tracking.run import Run, rows_in

FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
"""Entries of a run's summary that are of its best epoch."""
ABOUT = ("data", "arithmetic", "machine", "network", "seeds")
"""Entries of run.json that say with what a run was made."""


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row of metrics.jsonl by tag: `loss/train`, `loss/val`, `loss/step`, `step/lr`; null is NaN."""
    kind = str(row["kind"])
    return {_tag(kind, key): math.nan if value is None else float(value) for key, value in row.items() if key not in ("kind", "step")}


def _tag(kind: str, key: str) -> str:
    """Return a tag under which what belongs together stands side by side: training, validation and steps of one figure."""
    split, _, what = key.partition("_")
    if kind == "epoch" and split in ("train", "val") and what:
        return f"{what}/{split}"
    return "loss/step" if (kind, key) == ("step", "loss") else f"{kind}/{key}"


def figures(run: Run) -> dict[str, float]:
    """Return what a run came to by tag: `best/val_accuracy`, `best/epoch`, `run/seconds`; nothing before its end."""
    found = {}
    for key, value in run.summary.items():
        if isinstance(value, int | float):
            found[f"best/{key}" if key in FIGURES else "best/epoch" if key == "best_epoch" else f"run/{key}"] = float(value)
    return found


def hyperparameters(run: Run) -> dict[str, bool | float | str]:
    """Return every setting of a run by its full key, such as `optim.lr`; lists and null as JSON; not those about tracking itself."""
    return dict(_flat({key: value for key, value in run.config.items() if key not in ("name", "tracking")}))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, bool | int | float | str) else json.dumps(value)


def about(run: Run) -> dict[str, Any]:
    """Return with what a run was made: data, arithmetic, machine, network, seeds, versions, commit."""
    environment = run.info.get("environment", {})
    made_with = {key: environment[key] for key in ("python", "packages", "platform", "git") if key in environment}
    return {"name": run.name, "started": run.info.get("started"), **{key: run.info.get(key, {}) for key in ABOUT}, **made_with}


def pictures(run: Run) -> dict[str, Path]:
    """Return the PNG pictures of a run and of its inspections by tag, such as `inspection/confusion-val`."""
    own = {f"pictures/{path.stem}": path for path in sorted(run.path.glob("*.png"))}
    return own | {f"inspection/{path.stem}": path for path in sorted((run.path / "inspection").glob("*.png"))}


def tables(run: Run) -> dict[str, list[Mapping[str, Any]]]:
    """Return the lists of records in the inspections of a run by tag, such as `inspection/confusion-val/classes`."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for path in sorted((run.path / "inspection").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        for key, value in content.items() if isinstance(content, dict) else ():
            if isinstance(value, list) and value and all(isinstance(record, dict) and record for record in value):
                found[f"inspection/{path.stem}/{key}"] = value
    return found


def title(run: Run) -> str:
    """Return what a tracker calls a run: its name, behind that of the study whose trial it is."""
    return f"{group}/{run.name}" if (group := study_of(run)) else run.name


def study_of(run: Run) -> str | None:
    """Return the name of the study whose trial a run is; None for one that is none."""
    return run.path.resolve().parent.name if isinstance(run.info.get("trial"), dict) else None


class Tail:
    """Follows metrics.jsonl: each look returns the whole rows that came since the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[bytes] | None = None
        self._whole = True

    def look(self) -> tuple[list[dict[str, Any]], bool]:
        """Return new rows, and whether they are from the start because rows had been taken back. Raises StorageError."""
        try:
            anew = self._reopen()
            if self._handle is None or not self._whole:
                return [], anew
            offset = self._handle.tell()
            new = self._handle.read()
        except OSError as error:
            raise StorageError(f"cannot read {self.path} ({error.strerror}); give yourself the permission, or put it back") from error
        whole, newline, _ = new.rpartition(b"\n")
        self._handle.seek(offset + len(whole) + len(newline))
        rows, self._whole = rows_in(whole.decode("utf-8", errors="replace").splitlines())
        return rows, anew

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()

    def _reopen(self) -> bool:
        """Open the file where it was not yet, or is another one now, which tells that rows were taken back; tell whether it is another."""
        if not self.path.is_file():
            return False
        here, first = self.path.stat(), self._handle is None
        if self._handle is not None:
            if os.fstat(self._handle.fileno()).st_ino == here.st_ino and self._handle.tell() <= here.st_size:
                return False
            self._handle.close()
        self._handle, self._whole = self.path.open("rb"), True
        return not first
