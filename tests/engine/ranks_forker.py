"""Starts the ranks of test_distributed.py as SLURM or Kubernetes do, without torchrun; torch is imported once, and each rank is a fork.

A line of stdin is one start: for each rank its commands, its folder and its environment. The answer is the ranks' processes; the next
line, `wait`, is answered with their exit codes. What a rank prints is in `out-RANK` and `err-RANK` of its folder.
"""

import json
import os
import signal
import sys
from typing import Any

from small_pictures import write_small_pictures

from firstlight.__main__ import main
from firstlight.engine import train

train.draw_pictures = write_small_pictures  # and all that a rank would import is there


def fork(commands: list[list[str]], folder: str, environment: dict[str, str]) -> int:
    """Start one rank and return its process."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ.update(environment)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}-{environment['RANK']}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        for words in commands:
            code = call(words)
    finally:
        sys.stdout.flush()
        os._exit(code)


def call(words: list[str]) -> int:
    """Carry out one command and return its exit code."""
    try:
        main(words)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


for line in sys.stdin:
    pids = [fork(**rank) for rank in json.loads(line)]
    answer(pids)
    sys.stdin.readline()
    answer([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
