"""The lock's page and its two questions: open it with four drawings, and keep a new code."""

import math
from typing import Any

from firstlight.dashboard.drawing import parse_pads
from firstlight.dashboard.lock import Lock
from firstlight.dashboard.reading import ReadDigit, read_pads
from firstlight.errors import ConfigError
from firstlight.export.reader import Reader


def open_with(lock: Lock, reader: Reader, sent: Any) -> dict[str, Any]:
    """Return what is read on four pads, and whether that opens the lock; a digit that is hardly readable is no try.

    sent: {"pads": [...]} as `parse_pads` takes it. Raises ConfigError for anything else, and where no code is set.
    """
    pads = parse_pads(sent.get("pads") if isinstance(sent, dict) else None)
    if not lock.is_set:
        raise ConfigError("no code is set; set one first")
    read = read_pads(reader, pads)
    is_open, says = _tried(lock, read)
    return {"read": [digit.as_json() for digit in read], "open": is_open, "says": says, "wait_seconds": lock.wait_seconds}


def _tried(lock: Lock, read: list[ReadDigit]) -> tuple[bool, str]:
    if unsure := [str(number) for number, digit in enumerate(read, 1) if not digit.is_sure]:
        return False, f"Hard to read: pad {', '.join(unsure)}. Draw it again; this was no try."
    if lock.wait_seconds > 0:
        return False, wait_words(lock)
    code = "".join(str(digit.digit) for digit in read)
    if lock.open(code):
        return True, f"{code} is the code: the lock is open."
    return False, f"{code} is not the code. {wait_words(lock)}".strip()


def wait_words(lock: Lock) -> str:
    """Return what to say while no code is taken; nothing where one is."""
    wait = lock.wait_seconds
    return f"{lock.failures} wrong codes in a row: wait {math.ceil(wait)} s." if wait > 0 else ""


def set_code(lock: Lock, reader: Reader, sent: Any) -> dict[str, Any]:
    """Keep a new code. sent: {"code": "1234"}, and, where one is set, the pads that open the lock. Raises ConfigError."""
    if not isinstance(sent, dict) or not isinstance(sent.get("code"), str):
        raise ConfigError("the code must be 4 digits from 0 to 9; choose others")
    if lock.is_set and not ("pads" in sent and open_with(lock, reader, sent)["open"]):
        raise ConfigError("another code is set; open the lock with it first, then choose a new one")
    lock.set_code(sent["code"])
    return {"says": "The code is set. Draw it to open the lock."}
