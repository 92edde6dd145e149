"""The training's side of its trackers: start a process for each, look whether it lives, and wait for it a bounded time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from firstlight.errors import FirstlightError
from firstlight.tracking import tensorboard, weights_and_biases
from firstlight.tracking.console import Console
from firstlight.tracking.family import end_family, marked_environment, new_mark
from firstlight.tracking.run import load_run
from firstlight.tracking.writer import add_warning

TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}

Chosen = Mapping[str, dict[str, Any]]
"""Trackers by name with their settings."""


def choose_trackers(*, tensorboard_too: bool, wandb: str, project: str, entity: str | None) -> Chosen:
    """Return the trackers that a config asks for. Raises ConfigError for one that is not installed, or not logged in."""
    chosen: dict[str, dict[str, Any]] = {}
    if tensorboard_too:
        tensorboard.check_installed()
        chosen["tensorboard"] = {}
    if wandb != "off" and (mode := weights_and_biases.settle_mode(wandb)) != "off":
        weights_and_biases.check_installed()
        chosen["wandb"] = {"project": project, "entity": entity, "mode": mode}
    return chosen


class Trackers:
    """The processes that follow a run or a study; use it in a `with` block around what writes the folder.

    One that fails, is killed or takes longer than `wait_seconds` behind the end is a warning, said once and kept in run.json.
    """

    def __init__(self, path: Path, chosen: Chosen, console: Console, *, wait_seconds: float) -> None:
        self.path = path
        self.wait_seconds = wait_seconds
        self._chosen = chosen
        self._console = console
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._marks: dict[str, str] = {}
        self._problems: list[str] = []

    def __enter__(self) -> "Trackers":
        return self

    def start(self) -> None:
        """Start to follow; the folder is one of a run or a study by now."""
        for name, settings in self._chosen.items():
            words = [sys.executable, "-m", "firstlight.tracking.follow", name, str(self.path), json.dumps(settings), str(self.wait_seconds)]
            self._marks[name] = new_mark()
            try:
                self._processes[name] = subprocess.Popen(
                    words,
                    env=marked_environment(self._marks[name]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the training, at whose end this one ends too
                )
            except OSError as error:
                self._warn(name, str(error))

    def ids(self) -> dict[str, str]:
        """Return what run.json says of the trackers: under which id the run is known to Weights & Biases, for good."""
        return {"wandb_id": weights_and_biases.run_id(load_run(self.path))} if "wandb" in self._chosen else {}

    def look(self) -> None:
        """Warn of a tracker that has ended before the training."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self._warn(name, self._end(name))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        until = time.monotonic() + self.wait_seconds
        for name, process in list(self._processes.items()):
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                why = f"it was not done {self.wait_seconds:g} s behind the end and was stopped (tracking.wait_seconds)"
            except KeyboardInterrupt:
                why = "Ctrl-C stopped it"
            else:
                why = ""
            said = self._end(name)
            if why or process.returncode:
                self._warn(name, why or said)
        with suppress(FirstlightError):  # a study has no run.json, and a full disk may be why a tracker failed
            for problem in self._problems:
                add_warning(load_run(self.path), problem)

    def _end(self, name: str) -> str:
        """Make sure that a process and all that it started are gone, and return what it said last."""
        process = self._processes.pop(name)
        if process.returncode is None:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        end_family(self._marks[name])
        said = process.communicate()[0].decode(errors="replace").strip()
        return said or f"its process ended with {process.returncode}"

    def _warn(self, name: str, why: str) -> None:
        line = f"firstlight export-logs {self.path} --to {name}"
        self._problems.append(f"{TITLES[name]}: {why}; the training is whole, and `{line}` hands it over")
        self._console.warn(self._problems[-1])
