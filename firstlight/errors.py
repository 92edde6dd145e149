"""Every error that firstlight raises on purpose, with the exit code of the command that meets it.

    FirstlightError              1  something failed
    ├── ConfigError              2  a setting, an argument or a name is wrong
    │   └── RunNotFoundError     2  no run folder at that path
    ├── DataError                3  a data set is missing, damaged or does not fit
    ├── CheckpointError          4  a checkpoint is missing, damaged or does not fit the model
    │   └── CheckpointFormatError 4  a checkpoint that another version of firstlight wrote
    ├── StorageError             5  no space, no permission, or the folder is in use
    │   └── RunBusyError         5  another process writes this run folder
    ├── OutOfMemoryError         6  the device or the host ran out of memory
    ├── DivergedError            1  the loss became infinite or not a number
    └── InterruptedRunError    130  stopped from outside; the run can be resumed (143 after SIGTERM)
        └── LostRankError        1  a process of a training in several was killed, or answers no more

A message is one line: what was wrong, where (file, key, row), what is allowed, what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FirstlightError(Exception):
    """Base of every error that a user can cause and mend; `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(FirstlightError):
    """A key, a value, a name or an argument that is not allowed."""

    exit_code = 2


class RunNotFoundError(ConfigError):
    """No run folder stands at the path that was given."""


class DataError(FirstlightError):
    """A data set that is missing, damaged, or does not fit what was asked of it."""

    exit_code = 3


class CheckpointError(FirstlightError):
    """A checkpoint that is missing, damaged, or made for another model."""

    exit_code = 4


class CheckpointFormatError(CheckpointError):
    """A whole checkpoint of a format that this version does not read."""


class StorageError(FirstlightError):
    """No space, no permission, or a path that is in the way."""

    exit_code = 5


class RunBusyError(StorageError):
    """Another live process writes this run folder."""


class OutOfMemoryError(FirstlightError):
    """The device or the host ran out of memory."""

    exit_code = 6


class DivergedError(FirstlightError):
    """The loss became infinite or not a number."""


class InterruptedRunError(FirstlightError):
    """The run was stopped from outside and can be resumed; `exit_code` is 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LostRankError(InterruptedRunError):
    """A process of a training in several was killed, or answers no more; the run can be resumed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return the tail of a message about an unknown name: the nearest one, and all that are allowed where they are few."""
    names = {name.lower(): name for name in sorted(allowed)}
    close = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    hint = f"; did you mean {names[close[0]]!r}?" if close else ""
    return hint if close and len(names) > 12 else f"{hint} (allowed: {', '.join(names.values())})"
