"""A notebook run by a child process that may be ended at any time: under a time limit, in a temporary folder, on request confined."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from firstlight.errors import ConfigError, FirstlightError
from firstlight.files import make_dir, write_bytes
from firstlight.notebooks.execute import child_environment
from firstlight.notebooks.source import load_library

RESULT_BYTES = 100 * 2**20
"""Size of a notebook with its outputs that is read back."""
REFUSED_BYTES, REFUSED_LINES = 64 * 2**10, 20
KILLED = -9
"""Exit code of a process that was killed; Windows has no signal of that name."""
TOKEN = "FIRSTLIGHT_RERUN"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What came of a run. notebook: with its outputs, None where the run was ended. cell, error: where it stopped, and why, on one line.

    refused: what the limits refused, one line each. kind: the error's class, or `time`.
    """

    notebook: Any = None
    cell: int = 0
    error: str = ""
    kind: str = ""
    refused: tuple[str, ...] = ()


def run(notebook: Any, *, settings: Mapping[str, str], seconds: float, confined: bool) -> Ran:
    """Run a notebook from the first cell to the last, or to the first that fails.

    settings: environment variables. seconds: for the whole notebook. confined: writes and network are limited, as `confine.py` says.
    """
    nbformat = load_library("nbformat")
    for name in ("nbclient", "ipykernel"):
        load_library(name)
    if seconds <= 0:
        raise ConfigError(f"--seconds is {seconds:g}; give a number above 0")
    with tempfile.TemporaryDirectory(prefix="fl-", ignore_cleanup_errors=True) as temporary:
        outer = Path(temporary).resolve()
        inner, source, target, log = outer / "work", outer / "in.ipynb", outer / "out.ipynb", outer / "refused.txt"
        make_dir(inner)
        write_bytes(source, nbformat.writes(notebook).encode())
        words = [str(source), str(target), str(inner), *(["--confined", str(log)] if confined else [])]
        lines, in_time = _run_child(words, child_environment(inner, settings), inner, seconds)
        refused = _refused(log) if log.is_file() else ()
        at = max((line["cell"] for line in lines if "cell" in line), default=0)
        if not in_time:
            return Ran(cell=at, error=f"still ran after {seconds:g} s", kind="time", refused=refused)
        if not lines or "ended" not in lines[-1]:
            return Ran(cell=at, error="the process that ran it died, perhaps out of memory", kind="DeadKernelError", refused=refused)
        if target.stat().st_size > RESULT_BYTES:
            return Ran(cell=at, error=f"printed more than {RESULT_BYTES // 2**20} MB", kind="size", refused=refused)
        ended = lines[-1]["ended"] or {}
        made = nbformat.reads(target.read_text(encoding="utf-8"), as_version=4)
        return Ran(notebook=made, cell=ended.get("cell", 0), error=ended.get("error", ""), kind=ended.get("kind", ""), refused=refused)


def _refused(log: Path) -> tuple[str, ...]:
    """Return what was refused, each thing once; a notebook that is refused without end fills no memory."""
    with log.open("rb") as handle:
        lines = handle.read(REFUSED_BYTES).split(b"\n")[:REFUSED_LINES]
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return tuple(dict.fromkeys(what for what in found if isinstance(what, str)))


def _run_child(words: list[str], environment: dict[str, str], folder: Path, seconds: float) -> tuple[list[dict[str, Any]], bool]:
    """Run execute.py; return its lines, and whether it ended in time. Nothing that it started is left."""
    token = uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "firstlight.notebooks.execute", *words],
        cwd=folder,
        env={**environment, TOKEN: token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    in_time = True
    try:
        said, complaint = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        in_time = False
        _end(process, token)
        said, complaint = process.communicate()
    finally:
        _end(process, token)
    if in_time and not said and process.returncode not in (0, KILLED):
        last = complaint.decode(errors="replace").strip().splitlines()[-1:]
        raise FirstlightError(f"no kernel could be started ({''.join(last)}); try `python -m ipykernel_launcher` by hand")
    lines = [json.loads(line) for line in said.splitlines() if line.endswith(b"}")]
    return lines, in_time


def _end(process: subprocess.Popen[bytes], token: str) -> None:
    """Kill the child, its group, and whatever else carries its token."""
    with suppress(OSError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    mark = f"{TOKEN}={token}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
