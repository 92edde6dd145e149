"""The lock's code: set, met, missed, and what slows a guesser down."""

import stat
from pathlib import Path

import pytest

from firstlight.dashboard.lock import FREE_FAILURES, LONGEST_WAIT, Lock
from firstlight.errors import ConfigError, StorageError


class Clock:
    def __init__(self) -> None:
        self.seconds = 1e9

    def __call__(self) -> float:
        return self.seconds


def test_only_the_code_that_was_set_opens(tmp_path: Path) -> None:
    """E13: it unlocks only for the set code."""
    clock = Clock()
    lock = Lock(tmp_path / "lock" / "code.json", now=clock)
    assert not lock.is_set
    with pytest.raises(ConfigError, match="no code is set; set one first"):
        lock.open("0000")
    lock.set_code("0419")
    assert lock.is_set and lock.open("0419") and Lock(lock.path).open("0419")
    for code in ("0418", "419", "04190", "", "9140", "0419\n", "٠٤١٩"):
        clock.seconds += LONGEST_WAIT
        assert not lock.open(code)


def test_the_file_holds_no_code_and_nobody_else_reads_it(tmp_path: Path) -> None:
    """E13: a salted hash: the same code twice gives two hashes, and the folder is its owner's alone."""
    locks = [Lock(tmp_path / name / "code.json") for name in ("a", "b")]
    for lock in locks:
        lock.set_code("1234")
    texts = [lock.path.read_text() for lock in locks]
    assert texts[0] != texts[1] and not any('"1234"' in text for text in texts)
    assert stat.S_IMODE(locks[0].path.parent.stat().st_mode) == 0o700


def test_it_slows_down_after_five_failures_and_remembers_them(tmp_path: Path) -> None:
    """Issue 8: five wrong codes are free; then each one costs twice as long a wait, also after a restart, and the right code waits too."""
    clock, path = Clock(), tmp_path / "lock" / "code.json"
    Lock(path, now=clock).set_code("1234")
    for _ in range(FREE_FAILURES - 1):
        assert not Lock(path, now=clock).open("0000")
    assert Lock(path, now=clock).wait_seconds == 0
    waits = []
    for _ in range(10):
        assert not Lock(path, now=clock).open("0000")
        waits.append(Lock(path, now=clock).wait_seconds)
        with pytest.raises(ConfigError, match=r"wrong codes in a row; wait \d+ s"):
            Lock(path, now=clock).open("1234")
        clock.seconds += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert Lock(path, now=clock).open("1234") and Lock(path, now=clock).failures == 0
    assert not Lock(path, now=clock).open("0000") and Lock(path, now=clock).wait_seconds == 0


def test_a_clock_set_back_does_not_lock_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    lock = Lock(tmp_path / "lock" / "code.json", now=clock)
    lock.set_code("1234")
    for _ in range(FREE_FAILURES):
        lock.open("0000")
    clock.seconds -= 1e8
    assert lock.wait_seconds == 2


@pytest.mark.parametrize("code", ["", "123", "12345", "12a4", "１２３４", "-123", "1 34"])
def test_codes_that_are_none_are_refused(tmp_path: Path, code: str) -> None:
    with pytest.raises(ConfigError, match="the code must be 4 digits from 0 to 9; choose others"):
        Lock(tmp_path / "lock" / "code.json").set_code(code)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"salt": "zz"}',
        '{"salt": "00", "hash": 1, "failures": 0, "until": 0}',
        '{"salt": "00", "hash": "", "failures": "0", "until": 0}',
        '{"salt": "00", "hash": "", "failures": 0, "until": NaN}',
    ],
)
def test_a_damaged_file_never_opens(tmp_path: Path, text: str) -> None:
    path = tmp_path / "code.json"
    path.write_text(text)
    with pytest.raises(StorageError, match=r"code\.json is damaged; delete it and set a new code"):
        Lock(path).open("1234")
