"""Where data sets lie on this machine, and the one message for what is missing there."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from firstlight.errors import DataError, RunBusyError, StorageError
from firstlight.files import Lock, cache_dir, make_dir

MAX_WAIT_SECONDS = 3 * 3600
"""How long a process waits for another one's work: CIFAR-10's home server takes 50 minutes. A process that died holds no lock."""


def data_dir_of(chosen: str | Path | None = None) -> Path:
    """Return the folder of data: the one given, FIRSTLIGHT_DATA, or `data` in the cache folder; it may not exist yet."""
    return Path(chosen or os.environ.get("FIRSTLIGHT_DATA") or cache_dir() / "data").expanduser()


def missing(what: str, looked_in: Sequence[Path], remedy: str) -> DataError:
    """Return the error for a data set that is not there: what, where it was looked for, how to get it."""
    places = " and ".join(str(place) for place in looked_in)
    return DataError(f"{what} is missing (looked in {places}); {remedy}, or say where it lies with --data-dir or FIRSTLIGHT_DATA")


@contextmanager
def waiting_lock(folder: Path, name: str, *, wait_seconds: float = MAX_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock `folder/.NAME.lock`; wait while another process holds it, so that the second one finds the work done.

    Raises StorageError after `wait_seconds`.
    """
    lock = Lock(make_dir(folder) / f".{name}.lock", name)
    give_up = time.monotonic() + wait_seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock)
                break
            except RunBusyError:
                if time.monotonic() > give_up:
                    raise StorageError(
                        f"another process has been preparing {folder / name} for {wait_seconds:g} s; stop it and try again"
                    ) from None
                time.sleep(0.2)
        yield
