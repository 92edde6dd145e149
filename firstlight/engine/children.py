"""A Python process that may die for want of memory while this one lives: it answers each line that it is told with a line of JSON.

Child is the parent's side; read_asked, answer and answer_errors are the child's.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from firstlight import errors
from firstlight.errors import FirstlightError

OUT_OF_MEMORY = "out of memory"


class Child:
    """A process of `python -m module`, which is told what is asked, and behind that some bytes; `ready` is its first answer.

    Raises the FirstlightError that the child met before its first answer.
    """

    def __init__(self, module: str, asked: dict[str, Any], payload: Sequence[bytes | memoryview] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        answer = self.tell(json.dumps(asked).encode() + b"\n", *payload)
        if answer is None or "error" in answer:
            self.close()
            kind, what = (answer or {}).get("error", ("OutOfMemoryError", "the experiment alone does not fit into memory; free some"))
            raise getattr(errors, kind, FirstlightError)(what)
        self.ready: dict[str, Any] = answer

    @property
    def alive(self) -> bool:
        """Whether it can be told more."""
        return self._process.poll() is None

    def tell(self, *chunks: bytes | memoryview) -> dict[str, Any] | None:
        """Hand over bytes and return the answer; None where it died first."""
        try:
            for chunk in chunks:
                self._pipe(self._process.stdin).write(chunk)
            self._pipe(self._process.stdin).flush()
        except OSError:
            return None
        line = self._pipe(self._process.stdout).readline()
        found: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return found

    def end(self) -> str:
        """Wait for its end, and say what it was: the system kills (9) what takes too much, and libraries abort (6) without memory."""
        self._process.communicate()
        code = self._process.returncode
        return OUT_OF_MEMORY if code in (-signal.SIGKILL, -signal.SIGABRT) else f"its process ended with {code}, perhaps out of memory"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


def read_asked() -> dict[str, Any]:
    """Return what this process is asked, the first line of its stdin."""
    asked: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    return asked


def answer(value: dict[str, Any]) -> None:
    """Say one line to the parent."""
    print(json.dumps(value), flush=True)


@contextmanager
def answer_errors() -> Iterator[None]:
    """Hand a FirstlightError of the block to the parent as the answer, and leave."""
    try:
        yield
    except FirstlightError as error:
        answer({"error": (type(error).__name__, str(error))})
        sys.exit(0)
