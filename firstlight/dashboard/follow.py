"""What is new in a run that trains, for all who watch it: one look at the files serves every open page.

A page opens the stream first and asks for the curves then; rows that come twice it knows by their step.
"""

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from firstlight.dashboard.curves import as_number, parse_row
from firstlight.dashboard.folders import is_training, open_plain, plain_text

PERIOD = 0.5
"""Seconds between two looks."""
QUIET = 15.0
"""Seconds after which a stream without news sends a sign of life."""
MOST_ROWS = 200
"""Steps that one look hands on; of more, evenly spaced ones."""
MOST_BYTES = 2**22
KEPT = 64
"""Looks that a slow reader may miss before it has to ask for all again."""


class Tail:
    """The end of a file that grows: `read` returns the whole lines that are new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = False
        self._inode, self._offset = self._size()

    def _size(self) -> tuple[int, int]:
        try:
            facts = os.lstat(self.path)
        except OSError:
            return 0, 0
        return facts.st_ino, facts.st_size

    def read(self) -> tuple[list[bytes], bool]:
        """Return the new lines, and whether the file was replaced or cut, so that all has to be read again."""
        inode, size = self._size()
        if not inode or (inode == self._inode and size == self._offset):
            return [], False
        if self._inode and (inode != self._inode or size < self._offset):
            self._inode, self._offset = inode, size
            return [], True
        self._inode = inode
        try:
            descriptor = open_plain(self.path)
        except OSError:
            return [], False
        try:
            content = os.pread(descriptor, MOST_BYTES, self._offset)
        finally:
            os.close(descriptor)
        whole, newline, _ = content.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return whole.splitlines(), False


class Follower:
    """Looks at one run while somebody watches. watchers: open streams."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watchers = 0
        self.number = 0
        self._events: deque[tuple[int, str]] = deque(maxlen=KEPT)
        self._metrics, self._log = Tail(path / "metrics.jsonl"), Tail(path / "log.txt")
        self._facts = self._stamp()
        self._looked = 0.0

    def _stamp(self) -> tuple[int, bool] | None:
        """Return what changes with run.json and when the process of the run ends; None where the run is gone."""
        try:
            return (self.path / "run.json").lstat().st_mtime_ns, is_training(self.path)
        except OSError:
            return None

    def look(self) -> None:
        """Take in what is new; at most once in a PERIOD, however many ask."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < PERIOD * 0.9:
            return
        self._looked = now
        facts, before = self._stamp(), self._facts
        self._facts = facts
        if facts is None:
            if before is not None:
                self._publish("gone", {})
            return
        lines, again = self._metrics.read()
        if again:
            self._publish("again", {})
        if rows := _rows(lines):
            self._publish("rows", rows)
        lines, _ = self._log.read()
        if lines:
            self._publish("log", [plain_text(line.decode(errors="replace")) for line in lines[-MOST_ROWS:]])
        if facts != before:
            self._publish("facts", {})

    def _publish(self, kind: str, value: Any) -> None:
        self.number += 1
        self._events.append((self.number, f"event: {kind}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n"))

    def since(self, number: int) -> list[str]:
        """Return the events after a number; one that says to begin again where some are lost."""
        if self._events and self._events[0][0] > number + 1:
            return ["event: again\ndata: {}\n\n"]
        return [text for count, text in self._events if count > number]


async def follow(followers: dict[str, Follower], run_id: str, path: Path, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Yield the events of a run as text, until the reader goes or the server stops."""
    follower = followers.setdefault(run_id, Follower(path))
    follower.watchers += 1
    number, quiet = follower.number, 0.0
    try:
        yield "event: hello\ndata: {}\n\n"
        while not stopping.is_set():
            follower.look()
            for text in follower.since(number):
                yield text
                quiet = 0.0
            number = follower.number
            if quiet > QUIET:
                yield ": still here\n\n"
                quiet = 0.0
            try:
                await asyncio.wait_for(stopping.wait(), PERIOD)
            except TimeoutError:
                quiet += PERIOD
    finally:
        follower.watchers -= 1
        if not follower.watchers:
            followers.pop(run_id, None)


def _rows(lines: list[bytes]) -> list[dict[str, Any]]:
    """Return the rows of new lines: all epochs, and at most MOST_ROWS steps."""
    epochs = [line for line in lines if b'"epoch"' in line[:20]]
    steps = [line for line in lines if b'"epoch"' not in line[:20]]
    chosen = steps[:: max(-(-len(steps) // MOST_ROWS), 1)] + steps[-1:] * (len(steps) > MOST_ROWS)
    rows = (parse_row(line) for line in [*chosen, *epochs])
    return [{key: value if key == "kind" else as_number(value) for key, value in row.items()} for row in rows if row is not None]
