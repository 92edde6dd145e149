"""A second process that reads run folders beside the server where there are thousands: `python -m firstlight.dashboard.facts_child`.

It is told the folder of the runs, then lists of names, a line of JSON each, and answers each list with what those folders say.
FactsChild is the server's side; it never waits.
"""

import gc
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from firstlight.dashboard.folders import parse_json, read_facts

AT_ONCE = 50
"""Folders of a list."""
AHEAD = 8
"""Lists that the child holds, so that it has work while we write rows."""
MOST_BYTES = 4096
"""Length of a list of more than one name: what we say fits into a pipe of 64 KiB, so that neither end waits for the other."""
PIPE_BYTES = 2**20
"""Room for answers, where the system gives so much."""
PIECE_BYTES = 2**16
"""What is fetched at a time."""

Folder = tuple[str, int, str]
"""The path below the folder of the runs, the time of change that is kept of it, and the study around it."""


class FactsChild:
    """The child process that reads folders below `runs_dir`. `ask` hands over folders, `answers` returns what is there by now."""

    def __init__(self, runs_dir: str) -> None:
        self._asked: deque[list[Folder]] = deque()
        self._text = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        with suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._say(runs_dir)

    @property
    def waits(self) -> bool:
        """Whether it could take another list."""
        return len(self._asked) < AHEAD

    @property
    def reads(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._asked)

    def ask(self, folders: deque[Folder]) -> None:
        """Take a list of folders from the end of these. Raises OSError where the child is gone."""
        taken, num_bytes = [folders.pop()], 0
        while folders and len(taken) < AT_ONCE and num_bytes < MOST_BYTES:
            taken.append(folders.pop())
            num_bytes += len(json.dumps(taken[-1][0]))
        self._asked.append(taken)
        self._say([name for name, _, _ in taken])

    def answers(self) -> list[tuple[Folder, dict[str, Any] | None]]:
        """Return what was answered since the last call. Raises OSError where the child is gone, ValueError where it answers nonsense."""
        pieces = [self._text, *iter(self._piece, b"")]
        *lines, self._text = b"".join(pieces).split(b"\n")
        found: list[tuple[Folder, dict[str, Any] | None]] = []
        for line in lines:
            found += zip(self._asked[0], parse_json(line), strict=True)
            self._asked.popleft()
        return found

    def close(self) -> list[Folder]:
        """End it; return the folders that it was asked for in vain."""
        self._process.kill()
        self._process.communicate()
        return [folder for folders in self._asked for folder in folders]

    def _piece(self) -> bytes:
        with suppress(BlockingIOError):
            if piece := os.read(self._stdout.fileno(), PIECE_BYTES):
                return piece
            raise BrokenPipeError
        return b""

    def _say(self, value: str | Sequence[str]) -> None:
        self._stdin.write(json.dumps(value).encode() + b"\n")


def main() -> None:
    """Answer until nothing more is asked."""
    from pydantic_core import to_json

    gc.disable()  # what is read holds no cycles, and looking for them takes a tenth of the time
    runs_dir = json.loads(sys.stdin.buffer.readline())
    while line := sys.stdin.buffer.readline():
        sys.stdout.buffer.write(to_json([read_facts(f"{runs_dir}/{name}") for name in json.loads(line)]) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
