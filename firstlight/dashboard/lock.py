"""The lock: a code of four digits, kept as a salted hash, which slows down whoever guesses."""

import hmac
import json
import math
import os
import time
from collections.abc import Callable
from hashlib import scrypt
from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError, StorageError
from firstlight.files import make_dir, settings_dir, write_json

NUM_DIGITS = 4
FREE_FAILURES = 5
"""Wrong codes without a wait."""
FIRST_WAIT, LONGEST_WAIT = 2.0, 300.0
"""Seconds to wait behind the fifth failure, twice as many behind each one more, and the most. All 10,000 codes take a month."""
COST = {"n": 2**14, "r": 8, "p": 1}
"""Of scrypt (Percival 2009): 16 MiB and some 50 ms a try. With so few codes it only makes reading the file worth little, not worthless."""


class Lock:
    """The code in a file, and how often it was missed since it was last met; both outlive the program.

    path: of the file (default: lock/code.json in the user's settings), in a folder that only its owner may look into.
    now: seconds since 1970, as time.time returns them. Raises StorageError for a file that is damaged, or cannot be written.
    """

    def __init__(self, path: Path | None = None, *, now: Callable[[], float] = time.time) -> None:
        self.path = path or settings_dir() / "lock" / "code.json"
        self._now = now

    @property
    def is_set(self) -> bool:
        """Whether there is a code to be met."""
        return bool(self._read())

    @property
    def failures(self) -> int:
        """Wrong codes since the last right one."""
        return int(self._read().get("failures", 0))

    @property
    def wait_seconds(self) -> float:
        """How long it takes no code."""
        kept = self._read()
        left = float(kept.get("until", 0.0)) - self._now()
        return min(max(left, 0.0), _wait(int(kept.get("failures", 0))))  # the clock may have been set back

    def set_code(self, code: str) -> None:
        """Keep a new code in place of any other. Raises ConfigError for one that is not four digits."""
        if len(code) != NUM_DIGITS or not (code.isascii() and code.isdigit()):
            raise ConfigError(f"the code must be {NUM_DIGITS} digits from 0 to 9; choose others")
        salt = os.urandom(16)
        make_dir(self.path.parent, private=True)
        write_json(self.path, {"salt": salt.hex(), "hash": _hash(code, salt), "failures": 0, "until": 0.0})

    def open(self, code: str) -> bool:
        """Tell whether it is the code, and count a wrong one. Raises ConfigError where none is set, or while it takes none."""
        kept = self._read()
        if not kept:
            raise ConfigError("no code is set; set one first")
        if (wait := self.wait_seconds) > 0:
            raise ConfigError(f"{kept['failures']} wrong codes in a row; wait {math.ceil(wait)} s")
        right = hmac.compare_digest(_hash(code, bytes.fromhex(kept["salt"])), kept["hash"])
        failures = 0 if right else kept["failures"] + 1
        write_json(self.path, kept | {"failures": failures, "until": self._now() + _wait(failures)})
        return right

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            bytes.fromhex(kept["salt"])
            if not (isinstance(kept["hash"], str) and type(kept["failures"]) is int and math.isfinite(kept["until"])):
                raise ValueError("a value of another kind")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be read ({error.strerror}); make it readable, or delete it and set a new code"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{self.path} is damaged; delete it and set a new code") from None
        return dict(kept)


def _wait(failures: int) -> float:
    over = failures - FREE_FAILURES
    return 0.0 if over < 0 else min(FIRST_WAIT * 2.0 ** min(over, 60), LONGEST_WAIT)


def _hash(code: str, salt: bytes) -> str:
    return scrypt(code.encode(), salt=salt, dklen=32, **COST).hex()
