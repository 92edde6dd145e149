"""A run as it stands on disk: the reading side of a run folder. Needs no torch.

runs/<name>/  config.yaml   the resolved config
              run.json      state, versions, device, seeds, git, notes, summary, openings of the test set
              metrics.jsonl one JSON row an epoch and a step
              log.txt       what the console said
              curves.png    train and validation curves
              checkpoints/  step-N/ folders; last.json and best.json point to two of them
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from firstlight.errors import RunNotFoundError
from firstlight.files import is_locked

FORMAT = 1
"""Version of the layout above."""


@dataclass(frozen=True)
class Run:
    """A run folder. What it says is read when it is first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def info(self) -> dict[str, Any]:
        """What run.json holds."""
        info: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return info

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config as plain data."""
        import yaml

        config: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        return config

    @property
    def state(self) -> str:
        """`running`, `finished`, `interrupted` or `failed`; a run whose process is gone is interrupted, whatever it last wrote."""
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
    try:
        _ = run.info["state"], run.summary, run.config
    except (ValueError, KeyError, OSError) as error:
        raise RunNotFoundError(
            f"{path} is a damaged run folder ({type(error).__name__}: {error}); its checkpoints may still be whole"
        ) from error
    return run


def find_run(name: str | Path, runs_dir: Path) -> Run:
    """Return the run at the path `name`, or else the one of that name in `runs_dir`."""
    path = Path(name)
    inside = runs_dir / path
    return load_run(inside if not (path / "run.json").is_file() and (inside / "run.json").is_file() else path)


def list_runs(runs_dir: Path) -> list[Run]:
    """Return the readable runs of a folder, oldest first."""
    runs = []
    for path in sorted(runs_dir.glob("*/run.json")):
        try:
            runs.append(load_run(path.parent))
        except RunNotFoundError:
            continue
    return sorted(runs, key=lambda run: (str(run.info.get("started")), run.name))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file up to the first torn one; none where there is no file."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
