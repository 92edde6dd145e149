"""A run as it stands on disk: the reading side of a run folder. Needs no torch.

runs/<name>/  config.yaml   the resolved config
              run.json      state, versions, device, seeds, git, notes, warnings, summary, openings of the test set
              metrics.jsonl one JSON row an epoch and a step
              log.txt       what the console said
              curves.png    train and validation curves
              checkpoints/  step-N/ folders; last.json and best.json point to two of them
              nan_report.json where a number was not finite: the step, its batches and images
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from firstlight.errors import RunNotFoundError, StorageError
from firstlight.files import is_locked

FORMAT = 1
"""Version of the layout above."""


KINDS: dict[str, tuple[Any, Any]] = {
    "state": (str, None),
    "summary": (dict, None),
    "notes": (list, []),
    "tags": (list, []),
    "test_openings": (list, []),
    "resumes": (list, []),
    "rollbacks": (list, []),
    "warnings": (list, []),
    "seconds": (int | float, 0),
    **dict.fromkeys(("data", "arithmetic", "machine", "network", "seeds"), (dict, {})),
}
"""The kind of each entry of run.json, and what stands for one that is not there; None where it must be."""


@dataclass(frozen=True)
class Run:
    """A run folder. What it says is read when it is first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def info(self) -> dict[str, Any]:
        """What run.json holds; nothing where it is damaged."""
        return self._contents[0]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config as plain data; nothing where config.yaml is damaged."""
        return self._contents[1]

    @property
    def damage(self) -> str | None:
        """What is wrong with run.json or config.yaml; None where both can be read."""
        return self._contents[2]

    @cached_property
    def _contents(self) -> tuple[dict[str, Any], dict[str, Any], str | None]:
        import yaml

        found: list[dict[str, Any]] = [{}, {}]
        problems = []
        parsers: tuple[tuple[str, Callable[[str], Any]], ...] = (("run.json", json.loads), ("config.yaml", yaml.safe_load))
        for place, (name, parse) in enumerate(parsers):
            try:
                value = parse((self.path / name).read_text(encoding="utf-8"))
                found[place] = value if isinstance(value, dict) else {}
            except (ValueError, OSError, RecursionError, yaml.YAMLError) as error:
                problems.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
        info, config = found
        if not problems and not (config and all(isinstance(info.get(key, default), kind) for key, (kind, default) in KINDS.items())):
            problems.append("an entry is missing or of another kind")
        return info, config, "; ".join(problems) or None

    @property
    def state(self) -> str:
        """`running`, `finished`, `interrupted` or `failed`; a run whose process is gone is interrupted, whatever it last wrote."""
        if self.damage:
            return "damaged"
        state: str = self.info["state"]
        return "interrupted" if state == "running" and not is_locked(self.path / "run.lock") else state

    @property
    def summary(self) -> dict[str, Any]:
        """The figures that stand for the run: best epoch, validation and test accuracy, seconds, ..."""
        summary: dict[str, Any] = self.info["summary"]
        return summary

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl that close an epoch: train and validation loss and accuracy, lr, seconds, ..."""
        return [row for row in self.rows if row["kind"] == "epoch"]

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl that belong to a step: the lr that was used and the loss of its batch."""
        return [row for row in self.rows if row["kind"] == "step"]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All whole rows of metrics.jsonl in order."""
        return read_rows(self.path / "metrics.jsonl")


def load_run(path: str | Path) -> Run:
    """Return the run at `path`. Raises RunNotFoundError where no readable run folder stands."""
    run = Run(Path(path))
    if not (run.path / "run.json").is_file():
        raise RunNotFoundError(f"no run at {path}; `firstlight runs` lists the runs there are, --runs-dir says where")
    if run.damage:
        raise RunNotFoundError(f"{path} is a damaged run folder ({run.damage}); its checkpoints may still be whole")
    return run


def find_run(name: str | Path, runs_dir: Path) -> Run:
    """Return the run at the path `name`, or else the one of that name in `runs_dir`."""
    path = Path(name)
    inside = runs_dir / path
    return load_run(inside if not (path / "run.json").is_file() and (inside / "run.json").is_file() else path)


def find_run_to_resume(name: str | Path, runs_dir: Path) -> Run:
    """Return what find_run returns, and for "latest" the youngest interrupted run of `runs_dir`."""
    return latest_interrupted(runs_dir) if name == "latest" else find_run(name, runs_dir)


def latest_interrupted(runs_dir: Path) -> Run:
    """Return the youngest run of a folder that was interrupted. Raises RunNotFoundError where none was."""
    interrupted = [run for run in list_runs(runs_dir) if run.state == "interrupted"]
    if not interrupted:
        raise RunNotFoundError(f"no interrupted run in {runs_dir}; `firstlight runs` lists the runs there are, --runs-dir says where")
    return interrupted[-1]


def list_runs(runs_dir: Path) -> list[Run]:
    """Return the runs of a folder, oldest first; the damaged ones, whose state says so, at the end."""
    runs = [Run(path.parent) for path in runs_dir.glob("*/run.json")]
    whole = [run for run in runs if not run.damage]
    damaged = [run for run in runs if run.damage]
    return sorted(whole, key=lambda run: (_instant(run.info.get("started")), run.name)) + sorted(damaged, key=lambda run: run.name)


def _instant(text: Any) -> float:
    """Return a time of day with its offset as seconds since 1970, so that no change of clocks turns the order round; 0 for none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return 0.0


ROW_KEYS = {"step": {"step"}, "epoch": {"epoch", "step"}}
"""What a row of each kind holds at least."""


def _is_row(row: Any) -> bool:
    """Tell whether a line of metrics.jsonl is a row, and not what damage made of one."""
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return False
    numbers = {key: value for key, value in row.items() if key != "kind"}
    return ROW_KEYS.get(row["kind"], set()) <= numbers.keys() and all(isinstance(value, int | float | None) for value in numbers.values())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file up to the first torn one, but damaged ones; none where there is no file."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise StorageError(f"cannot read {path} ({error.strerror}); give yourself the permission, or put it back") from error
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if _is_row(row):
                rows.append(row)
    return rows
