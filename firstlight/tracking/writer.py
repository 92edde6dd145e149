"""The writing side of a run folder: one process, one lock, rows that only grow."""

import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

from firstlight.errors import ConfigError, InterruptedRunError, StorageError
from firstlight.files import (
    Appender,
    Lock,
    WriteBatch,
    Writing,
    carry_out,
    clean,
    finite,
    make_dir,
    replacing,
    to_json,
    write_json,
    write_text,
)
from firstlight.tracking.run import FORMAT, Run, load_run, read_rows

MAX_NAME = 200
"""Longest name of a run; file systems allow 255 bytes a name, and ours get a prefix."""

MAX_TAG = 50
"""Longest tag of a run."""


class RunWriter:
    """Writes a run folder while it holds its lock; use it in a `with` block.

    On leaving, run.json says `finished`, `interrupted` or `failed`, whichever is true. entries: what run.json of a new run says beside
    the usual, such as the trial of a study that the run is.
    """

    def __init__(self, path: Path, *, resume: bool = False, entries: Mapping[str, Any] | None = None) -> None:
        check_name(path.name)
        if not resume:
            check_free(path)
        self.path = make_dir(path)
        self._resume = resume
        self._info: dict[str, Any] = dict(entries or {})
        self._taken_up = self._is_left = False
        self._state = "finished"
        self.seconds_before = 0.0
        """Seconds of work before this process took the run up."""

    def __enter__(self) -> "RunWriter":
        with ExitStack() as stack:
            stack.enter_context(Lock(self.path / "run.lock", f"run {self.path}"))
            if not self._resume:
                refuse_taken(self.path)  # a run may have been made here since __init__
            else:
                self._info = dict(load_run(self.path).info)
                self.seconds_before = float(self._info.get("seconds", 0.0))
            self._began = time.monotonic()
            self.metrics = Appender(self.path / "metrics.jsonl")
            stack.callback(lambda: self.metrics.close())
            self.log = Appender(self.path / "log.txt")
            stack.callback(self.log.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            if not self._taken_up or self._is_left:
                return  # refused before anything was changed, or all is said
            if error is None:
                carry_out(self.leaving())
            else:
                with suppress(StorageError):  # the error that ended the run counts; a run without a process reads as interrupted
                    self.update(state=_state_after(error), seconds=round(self.seconds, 3))

    @property
    def seconds(self) -> float:
        """Seconds of work so far, those before a resume included."""
        return self.seconds_before + time.monotonic() - self._began

    @property
    def info(self) -> dict[str, Any]:
        """What run.json holds."""
        return self._info

    def start(self, config_yaml: str, **info: Any) -> None:
        """Write config.yaml and run.json; from here on the folder is a run."""
        carry_out(self.starting(config_yaml, **info))

    def starting(self, config_yaml: str, **info: Any) -> Writing[None]:
        """Do what `start` does, beside other runs."""
        yield from replacing(self.path / "config.yaml", config_yaml.encode(errors="backslashreplace"))
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        base = {"format": FORMAT, "name": self.path.name, "started": started, "notes": [], "test_openings": [], "summary": {}}
        yield from self._taking_up({**base, **info})

    def take_up(self, **info: Any) -> None:
        """Say in run.json that this process trains the run now."""
        carry_out(self._taking_up(info))

    def _taking_up(self, info: Mapping[str, Any]) -> Writing[None]:
        self._taken_up = True
        for folder in (self.path, self.path / "checkpoints"):
            clean(folder)  # what a killed writer left; nobody else writes here now
        yield from self._changing({**info, "state": "running"})

    def leaving(self) -> Writing[None]:
        """Do what the end of the `with` block does where all went well, beside other runs; nothing is left for the end then."""
        with WriteBatch() as rows:
            rows.append(self.metrics)
            yield rows
        yield from self._changing({"state": self._state, "seconds": round(self.seconds, 3)})
        self._is_left = True

    def pause(self) -> None:
        """Leave the run as one that is to be resumed, though nothing went wrong."""
        self._state = "interrupted"

    def fail(self) -> None:
        """Leave the run as failed, though what is written beside it goes on."""
        self._state = "failed"

    def update(self, **changes: Any) -> None:
        """Change entries of run.json, on disk too."""
        carry_out(self._changing(changes))

    def note(self, **changes: Any) -> None:
        """Change entries of run.json that the next `update` writes, or leaving at the latest."""
        self._info |= changes

    def _changing(self, changes: Mapping[str, Any]) -> Writing[None]:
        self._info |= changes
        return replacing(self.path / "run.json", to_json(self._info))

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to metrics.jsonl in one write; numbers that are not finite become null."""
        self.metrics.write_lines([_as_line(row) for row in rows])

    def append_numbers(self, kind: str, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Append rows of one kind that hold a number for each name, as `append` would, in 0.56 of the time."""
        template = "{" + ", ".join([f'"kind": "{kind}"', *(f'"{name}": %r' for name in names)]) + "}"
        if all(map(math.isfinite, chain.from_iterable(rows))):
            self.metrics.write_lines([template % tuple(row) for row in rows])
        else:
            self.append([{"kind": kind, **dict(zip(names, row, strict=True))} for row in rows])

    def sync(self) -> None:
        """Bring all rows to the disk. Raises StorageError."""
        self.metrics.sync()

    def cut_rows_after(self, step: int, epoch: int) -> int:
        """Drop the rows past an optimizer step and an epoch, so that a resumed run writes each row once; return how many are missing.

        None is missing but where the file was damaged.
        """
        path = self.path / "metrics.jsonl"
        limits = {"step": step, "epoch": epoch}
        numbers: dict[str, set[int]] = {kind: set() for kind in limits}
        kept = []
        for row in read_rows(path):
            kind = str(row.get("kind"))
            number = row.get(kind) if kind in limits else None
            if isinstance(number, int) and number <= limits[kind] and number not in numbers[kind]:
                numbers[kind].add(number)
                kept.append(json.dumps(row) + "\n")
        self.metrics.close()
        write_text(path, "".join(kept))
        self.metrics = Appender(path)
        return sum(limit - len(numbers[kind]) for kind, limit in limits.items())


def add_note(run: Run, text: str) -> None:
    """Add a note to a finished or interrupted run."""
    _add(run, "notes", text)


def add_warning(run: Run, text: str) -> None:
    """Keep with a finished or interrupted run that something beside the training went wrong."""
    _add(run, "warnings", {"kind": "tracking", "says": text})


def change_tags(run: Run, tags: Sequence[str], *, remove: bool = False) -> list[str]:
    """Give a finished or interrupted run these tags, or take them from it; return those it has now. Raises ConfigError for a bad tag."""
    for tag in tags:
        if not tag.isprintable() or not tag.strip() or len(tag) > MAX_TAG:
            raise ConfigError(f"{tag!r} is no tag; a tag has 1 to {MAX_TAG} characters on one line, such as final")
    with Lock(run.path / "run.lock", f"run {run.path}"):
        info = load_run(run.path).info
        before = info.get("tags", [])
        after = [tag for tag in before if tag not in tags] if remove else list(dict.fromkeys([*before, *tags]))
        write_json(run.path / "run.json", {**info, "tags": after})
    return after


def record_test_opening(run: Run, opening: dict[str, Any]) -> None:
    """Write into run.json that the sealed test set was opened: when, by which command, with which result."""
    _add(run, "test_openings", {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **opening})


def _add(run: Run, key: str, entry: Any) -> None:
    with Lock(run.path / "run.lock", f"run {run.path}"):
        info = load_run(run.path).info
        write_json(run.path / "run.json", {**info, key: [*info.get(key, []), entry]})


def _as_line(row: dict[str, Any]) -> str:
    try:
        return _to_json(row)
    except ValueError:  # NaN or an infinity
        return _to_json(finite(row))


_to_json = json.JSONEncoder(check_circular=False, allow_nan=False).encode
"""json.dumps without its checks: it halves the price of a row."""


def _state_after(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt | InterruptedRunError) else "failed"


def check_free(path: Path) -> None:
    """Raise RunBusyError where a process writes a run at `path`, StorageError where a finished or interrupted one stands there."""
    if (path / "run.json").exists():
        with Lock(path / "run.lock", f"run {path}"):
            refuse_taken(path)
    refuse_taken(path)


def refuse_taken(path: Path) -> None:
    """Raise StorageError where a run stands, or the checkpoints or rows of one."""
    if (path / "run.json").exists():
        line = shlex.join(["firstlight", "train", "--resume", str(path)])
        raise StorageError(f"a run stands at {path}; choose another --name, or go on with `{line}`")
    rows = path / "metrics.jsonl"
    if any(path.glob("checkpoints/step-*")) or (rows.exists() and rows.stat().st_size):
        raise StorageError(f"{path} holds checkpoints or rows of a run whose run.json is gone; choose another --name, or move them away")


def check_name(name: str) -> None:
    """Raise ConfigError for a name that no run folder should have."""
    if not name.isprintable() or name.startswith((".", "-")) or not 1 <= len(name.encode()) <= MAX_NAME or "/" in name or "\\" in name:
        raise ConfigError(
            f"a run cannot be called {name!r}; a name has 1 to {MAX_NAME} bytes, no slash, no control character, no leading dot or dash"
        )
