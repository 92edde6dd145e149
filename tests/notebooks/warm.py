"""A process that has imported what lessons need, and forks for each walk: imports were half of the seconds of a quick one.

Each walk has a process of its own as before. The one that it comes from does nothing but import: no thread, no random number, no file.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WARM = """
import json, os, sys

def take():
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

import cyclopts, IPython, jupytext, matplotlib.pyplot, nbformat, pydantic, rich, torch._dynamo
import firstlight.notebooks.lesson
from firstlight.notebooks.walk import main

if asked := take():
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), *((n, asked["said"][n - 1], os.O_WRONLY | os.O_CREAT) for n in (1, 2))):
        os.dup2(os.open(name, flags), number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    try:
        main(asked["words"])
        code = 0
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take a thousand modules apart takes a second
os._exit(0)
"""
SETTLED = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
"""Variables that are read when something is imported."""


class Warm:
    """The process; `walk` is `python -m firstlight.notebooks.walk`, in a child of it."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-c", WARM]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **SETTLED})

    def walk(self, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Walk through a lesson in a folder; the words are those of the command, environment what is set besides that of this process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        said = [cwd.with_name(f"{cwd.name}-{name}") for name in ("stdout", "stderr")]
        variables = {key: value for key, value in {**os.environ, **SETTLED, **environment}.items() if key != "FIRSTLIGHT_RUNS"}
        asked: dict[str, Any] = {"words": words, "cwd": str(cwd), "env": variables, "said": [str(path) for path in said]}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, code, *(path.read_text(encoding="utf-8") for path in said))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait() == 0
