"""The lock's two questions, without a browser: strokes in, what was read and whether it opens out."""

import subprocess
import sys
from math import cos, sin
from pathlib import Path
from typing import Any

import pytest

from firstlight.dashboard.lock import FREE_FAILURES, Lock
from firstlight.dashboard.lock_page import open_door, open_with, set_code
from firstlight.dashboard.reading import open_reader
from firstlight.errors import CheckpointError, ConfigError
from firstlight.export.reader import Reader

DRAWN: dict[str, list[list[list[float]]]] = {
    "0": [[[0.5 + 0.22 * sin(step / 8), 0.5 - 0.33 * cos(step / 8)] for step in range(52)]],
    "1": [[[0.5, 0.15], [0.5, 0.85]]],
    "4": [[[0.35, 0.15], [0.22, 0.55], [0.78, 0.55]], [[0.62, 0.3], [0.6, 0.88]]],
    "7": [[[0.25, 0.2], [0.72, 0.2], [0.45, 0.85]]],
}
SMUDGE = [[[0.1, 0.1], [0.9, 0.2], [0.1, 0.3], [0.9, 0.4], [0.1, 0.5], [0.9, 0.6], [0.1, 0.7], [0.9, 0.8], [0.1, 0.9]]]


def pads(code: str, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> dict[str, Any]:
    return {"pads": [[[[x + scale * a, y + scale * b] for a, b in stroke] for stroke in DRAWN[digit]] for digit in code]}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return open_reader()


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    lock = Lock(tmp_path / "lock" / "code.json")
    lock.set_code("1074")
    return lock


@pytest.mark.parametrize(("scale", "x", "y"), [(1, 0, 0), (0.3, 0.65, 0.05), (0.15, 0.0, 0.85)])
def test_the_drawn_code_opens_wherever_it_stands(lock: Lock, reader: Reader, scale: float, x: float, y: float) -> None:
    """E13: four drawn digits open the lock, off-centre and small ones too; it says what was read and how sure it is."""
    found = open_with(lock, reader, pads("1074", scale, x, y))
    assert found["open"] and found["says"] == "1074 is the code: the lock is open."
    assert [digit["digit"] for digit in found["read"]] == [1, 0, 7, 4]
    assert all(digit["probability"] > 0.8 and len(digit["image"]) == 784 and digit["is_sure"] for digit in found["read"])


def test_another_code_stays_out_and_waits_after_five(lock: Lock, reader: Reader) -> None:
    """E13: it unlocks only for the set code, and slows down; while it waits, the right code is refused."""
    for number in range(1, FREE_FAILURES + 1):
        found = open_with(lock, reader, pads("1071"))
        assert not found["open"] and found["says"].startswith("1071 is not the code.") and lock.failures == number
    assert found["says"].endswith("5 wrong codes in a row: wait 2 s.") and 0 < found["wait_seconds"] <= 2
    waiting = open_with(lock, reader, pads("1074"))
    assert not waiting["open"] and waiting["says"].startswith("5 wrong codes in a row") and lock.failures == FREE_FAILURES


def test_what_can_hardly_be_read_is_no_try(lock: Lock, reader: Reader) -> None:
    sent = pads("1074")
    unsure = reader_with_doubt(reader)
    found = open_with(lock, unsure, sent)
    assert not found["open"] and found["says"] == "Hard to read: pad 2, 4. Draw it again; this was no try." and lock.failures == 0


def reader_with_doubt(reader: Reader) -> Reader:
    """Return the real network, which takes what it reads on pads 2 and 4 for as likely as anything else."""

    class Doubtful(Reader):
        def __init__(self) -> None:
            self.path, self.description = reader.path, reader.description

        def _ask(self, pixels: Any) -> Any:
            logits = reader._ask(pixels)
            logits[[1, 3]] *= 0.01
            return logits

    return Doubtful()


def test_a_smudge_is_read_as_something_and_opens_nothing(lock: Lock, reader: Reader) -> None:
    found = open_with(lock, reader, {"pads": [SMUDGE, *pads("074")["pads"]]})
    assert not found["open"] and len(found["read"]) == 4


def test_the_code_changes_only_for_who_opens_the_lock(tmp_path: Path, reader: Reader) -> None:
    """E13: the first code is taken as it is; another one only with drawings that open the lock."""
    lock = Lock(tmp_path / "lock" / "code.json")
    with pytest.raises(ConfigError, match="no code is set; set one first"):
        open_with(lock, reader, pads("1111"))
    assert "is set" in set_code(lock, reader, {"code": "1111"})["says"]
    for sent in ({"code": "4444"}, {"code": "4444", **pads("1117")}):
        with pytest.raises(ConfigError, match="another code is set; open the lock with it first"):
            set_code(lock, reader, sent)
    assert open_with(lock, reader, pads("1111"))["open"]
    set_code(lock, reader, {"code": "4444", **pads("1111")})
    assert open_with(lock, reader, pads("4444"))["open"] and not open_with(lock, reader, pads("1111"))["open"]


@pytest.mark.parametrize("sent", [None, [], {}, {"code": 1234}, {"code": "12"}, {"code": None}, "1234"])
def test_a_code_that_is_none_is_one_line(tmp_path: Path, reader: Reader, sent: Any) -> None:
    with pytest.raises(ConfigError, match="the code must be 4 digits from 0 to 9; choose others"):
        set_code(Lock(tmp_path / "lock" / "code.json"), reader, sent)


def test_only_a_reader_of_digits_is_taken(tmp_path: Path) -> None:
    note = tmp_path / "note.onnx"
    note.write_text("no network")
    with pytest.raises(CheckpointError, match=r"note\.onnx"):
        open_door(note)
    with pytest.raises(CheckpointError, match=r"none\.onnx is not there"):
        open_door(tmp_path / "none.onnx")


def test_it_needs_no_torch(tmp_path: Path) -> None:
    """E13: the lock reads with onnxruntime alone."""
    code = f"""
import sys
from pathlib import Path
from firstlight.dashboard.lock import Lock
from firstlight.dashboard.lock_page import open_door, open_with
from firstlight.dashboard.server import serve
door = open_door()
lock = Lock(Path({str(tmp_path)!r}) / "lock" / "code.json")
lock.set_code("1111")
assert open_with(lock, door.reader, {pads("1111")!r})["open"]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
