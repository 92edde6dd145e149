"""The lock's page and its two questions: open it with four drawings, and keep a new code."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from firstlight.dashboard.lock import Lock
from firstlight.dashboard.render import answer, page
from firstlight.errors import ConfigError

if TYPE_CHECKING:  # numpy, which they need, is a third of the time in which a server starts
    from firstlight.dashboard.reading import ReadDigit
    from firstlight.export.reader import Reader


@dataclass(frozen=True)
class Door:
    """What a server's lock consists of. reader_path: an exported run (default: our network), opened when first asked."""

    lock: Lock
    reader_path: Path | None = None

    @cached_property
    def reader(self) -> "Reader":
        """The network that reads."""
        from firstlight.dashboard.reading import open_reader

        return open_reader(self.reader_path)


def open_door(reader_path: Path | None = None) -> Door:
    """Return the user's lock with the network that reads, opened now. Raises FirstlightError for a file that reads no digits."""
    door = Door(Lock(), reader_path)
    assert door.reader
    return door


async def show_lock(request: Request) -> Response:
    """Answer with the page of the lock."""
    door: Door = request.app.state.door
    what = "A small network of the package" if door.reader_path is None else f"{door.reader_path.name}"
    says = wait_words(door.lock) or ("" if door.lock.is_set else "No code is set yet: set one below.")
    return page(request, "lock.html", reader=what, is_set=door.lock.is_set, wait_seconds=door.lock.wait_seconds, says=says)


async def ask_to_open(request: Request) -> Response:
    """Answer whether four drawings open the lock."""
    door: Door = request.app.state.door
    return answer(open_with(door.lock, door.reader, await _sent(request)))


async def ask_for_code(request: Request) -> Response:
    """Keep a new code."""
    door: Door = request.app.state.door
    return answer(set_code(door.lock, door.reader, await _sent(request)))


async def _sent(request: Request) -> Any:
    """Return the JSON of a request. Raises ConfigError for what is none."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ConfigError("what was sent is no JSON; reload the page") from None


def open_with(lock: Lock, reader: "Reader", sent: Any) -> dict[str, Any]:
    """Return what is read on four pads, and whether that opens the lock; a digit that is hardly readable is no try.

    sent: {"pads": [...]} as `parse_pads` takes it. Raises ConfigError for anything else, and where no code is set.
    """
    from firstlight.dashboard.drawing import parse_pads
    from firstlight.dashboard.reading import read_pads

    pads = parse_pads(sent.get("pads") if isinstance(sent, dict) else None)
    if not lock.is_set:
        raise ConfigError("no code is set; set one first")
    read = read_pads(reader, pads)
    is_open, says = _tried(lock, read)
    return {"read": [digit.as_json() for digit in read], "open": is_open, "says": says, "wait_seconds": lock.wait_seconds}


def _tried(lock: Lock, read: "list[ReadDigit]") -> tuple[bool, str]:
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


def set_code(lock: Lock, reader: "Reader", sent: Any) -> dict[str, Any]:
    """Keep a new code. sent: {"code": "1234"}, and, where one is set, the pads that open the lock. Raises ConfigError."""
    if not isinstance(sent, dict) or not isinstance(sent.get("code"), str):
        raise ConfigError("the code must be 4 digits from 0 to 9; choose others")
    if lock.is_set and not ("pads" in sent and open_with(lock, reader, sent)["open"]):
        raise ConfigError("another code is set; open the lock with it first, then choose a new one")
    lock.set_code(sent["code"])
    return {"says": "The code is set. Draw it to open the lock."}
