"""The rows of metrics.jsonl as curves: all epochs, and as many steps as a chart can show, whatever the file's size."""

import json
import os
from pathlib import Path
from typing import Any

from firstlight.dashboard.folders import open_plain

MAX_STEPS = 2000
"""Steps that are drawn; of more, evenly spaced ones."""
MAX_EPOCHS = 20_000
PIECE = 2**20
LINE = 2**14
"""Bytes in which a line ends; a longer one is none of ours."""
EPOCH = b'{"kind": "epoch"'


def read_curves(path: Path) -> dict[str, Any]:
    """Return `epochs` and `steps` by column, `num_steps` (the last step there is) and `all_steps` (whether every step is among them).

    A row that is torn or damaged is left out; a value that is no number is None. No file gives no curves.
    """
    try:
        descriptor = open_plain(path)
    except OSError:
        return {"epochs": {}, "steps": {}, "num_steps": 0, "all_steps": True}
    try:
        size = os.fstat(descriptor).st_size
        lines, starts = _scan(descriptor, size)
        stride = max(-(-lines // MAX_STEPS), 1)
        epochs = [row for start in starts if (row := _row_at(descriptor, start)) is not None and row["kind"] == "epoch"]
        if stride == 1:
            content = os.pread(descriptor, size, 0)
            steps = [row for line in content.splitlines() if (row := parse_row(line)) is not None and row["kind"] == "step"]
        else:
            places = (size * number // MAX_STEPS for number in range(MAX_STEPS))
            found = (_row_after(descriptor, place) for place in places)
            steps = list({row["step"]: row for row in found if row is not None and row["kind"] == "step"}.values())
        last = steps[-1]["step"] if steps else epochs[-1]["step"] if epochs else 0
    finally:
        os.close(descriptor)
    return {"epochs": _columns(epochs), "steps": _columns(steps), "num_steps": last, "all_steps": stride == 1}


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return a line of metrics.jsonl as a row, None for what is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("kind") not in ("step", "epoch") or not isinstance(row.get("step"), int):
        return None
    return row if abs(row["step"]) < 2**53 else None


def as_number(value: Any) -> int | float | None:
    """Return a number that a chart can draw, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
        return None
    return value if abs(value) < 1e300 else None


def _scan(descriptor: int, size: int) -> tuple[int, list[int]]:
    """Return the number of lines, and where the rows of epochs begin."""
    starts: list[int] = []
    lines, offset, rest = 0, 0, b""
    while offset < size and (piece := os.pread(descriptor, PIECE, offset)):
        text = rest + piece
        lines += piece.count(b"\n")
        at = text.find(EPOCH)
        while at >= 0 and len(starts) < MAX_EPOCHS:
            starts.append(offset - len(rest) + at)
            at = text.find(EPOCH, at + 1)
        offset += len(piece)
        rest = text[-len(EPOCH) + 1 :]
    return lines, starts


def _row_at(descriptor: int, start: int) -> dict[str, Any] | None:
    return parse_row(os.pread(descriptor, LINE, start).partition(b"\n")[0])


def _row_after(descriptor: int, place: int) -> dict[str, Any] | None:
    """Return the first row of a step that begins at a place in the file, or behind it."""
    lines = os.pread(descriptor, LINE, max(place - 1, 0)).split(b"\n")
    for line in lines[1 if place else 0 : 4]:
        if (row := parse_row(line)) is not None and row["kind"] == "step":
            return row
    return None


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[int | float | None]]:
    names = dict.fromkeys(name for row in rows for name in row if name != "kind")
    return {name: [as_number(row.get(name)) for row in rows] for name in list(names)[:64]}
