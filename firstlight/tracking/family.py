"""The processes of a tracker: the one that follows a run, and all that its library started, however far they went from it.

wandb starts its service in a session of its own, where a signal to a process group does not reach it, and a stopped one does not notice
that its parent has died. So each of them carries a mark in its environment, by which the kernel lists them. Where there is no /proc the
group alone is ended, and the service ends itself when its parent has gone.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

MARK = "FIRSTLIGHT_TRACKER"
"""The variable that names a family; every process inherits it."""
SEARCH_SECONDS = 2.0
"""For how long those that were killed are looked for, at most: the kernel takes a moment."""


def marked_environment(mark: str) -> dict[str, str]:
    """Return the environment for the first process of a family, without the service of a wandb that the user runs in this one."""
    return {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"} | {MARK: mark}


def new_mark() -> str:
    """Return the name of a new family."""
    return uuid4().hex


def members(mark: str) -> list[int]:
    """Return the ids of the living processes of a family, this one's left out; none where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended by now, or is another user's
            if wanted in (path / "environ").read_bytes().split(b"\0") and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def end_family(mark: str) -> None:
    """Kill the processes of a family, this one left out, and wait until they are gone."""
    until = time.monotonic() + SEARCH_SECONDS
    while (left := members(mark)) and time.monotonic() < until:
        for number in left:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.005)


def end_own_family() -> None:
    """Kill the family that this process is of, and this process with its group. Where there are no groups, nothing happens."""
    if mark := os.environ.get(MARK):
        end_family(mark)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
