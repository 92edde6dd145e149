"""A look into a file by a library that may crash or swell on damaged bytes: it is made in a child process, with limits.

The child gets its request as JSON and answers one line of JSON on stdout, and behind it the arrays that it names, as raw int64.
Reading order: ask_child (the parent), answer (the child).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import DataError

MAX_SECONDS = 300
"""For a look, which takes half a second."""
MAX_MEMORY_BYTES = 4 << 30
MAX_CPU_SECONDS = 120

NO_LABEL = int(np.iinfo(np.int64).min)
"""Stands where an image has no label."""

Array = NDArray[np.int64]
Arrays = list[Array]


def ask_child(module: str, request: dict[str, Any], what: str) -> tuple[dict[str, Any], Arrays]:
    """Return what a module of ours, run as a program, answers to a request, and its arrays. Raises DataError that begins with `what`."""
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module]
    damaged = "it is damaged, or made to do harm; get it again"
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, env=environment, timeout=MAX_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{what}: looking at it took more than {MAX_SECONDS} s; {damaged}") from None
    line, newline, rest = done.stdout.partition(b"\n")
    if done.returncode or not newline:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["?"])[-1]
        why = f"signal {-done.returncode}" if done.returncode < 0 else last
        raise DataError(f"{what}: the process that looked at it broke down ({why}); {damaged}")
    found: dict[str, Any] = json.loads(line)
    if "error" in found:
        raise DataError(f"{what}: {found['error']}")
    arrays: Arrays = []
    for shape in found["arrays"]:
        size = int(np.prod(shape)) * 8
        arrays.append(np.frombuffer(rest[:size], "<i8").reshape(shape))
        rest = rest[size:]
    return found, arrays


def answer(look: Callable[[dict[str, Any], Arrays], dict[str, Any]]) -> None:
    """Read a request from stdin and answer it by `look`, which raises DataError for what is wrong and adds its arrays to a list."""
    _limit()
    arrays: Arrays = []
    try:
        found = look(json.loads(sys.stdin.read()), arrays)
    except DataError as error:
        found = {"error": str(error)}
    except MemoryError:
        found = {"error": "looking at it takes more than 4 GiB; it is damaged, or made to do harm; get it again"}
    except Exception as error:  # a library raises a dozen kinds on damaged bytes
        found = {"error": f"it cannot be read ({short(error)}); it is damaged, get it again"}
    found["arrays"] = [list(array.shape) for array in arrays]
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
    for array in arrays:
        sys.stdout.buffer.write(np.ascontiguousarray(array, "<i8").tobytes())
    sys.stdout.buffer.flush()


def short(error: Exception) -> str:
    """Return what an error says in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _limit() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
