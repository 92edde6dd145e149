"""Ctrl-C and SIGTERM: while training, the first sets a flag that the loop looks at, a second leaves at once; around it they raise."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from firstlight.errors import InterruptedRunError
from firstlight.tracking.console import is_first_process


@dataclass
class StopRequest:
    """Which signal asked for a stop, if any."""

    signal_number: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal asked for a stop."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """What the command returns: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal_number or signal.SIGINT)


@contextmanager
def raising_signals() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt and SIGTERM InterruptedRunError for the block (in the main thread)."""

    def terminate(number: int, frame: Any) -> None:
        raise InterruptedRunError("the run was terminated; go on with `firstlight train --resume`", exit_code=128 + number)

    with _handlers({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}):
        yield


@contextmanager
def stop_requests(*, quiet: bool = False) -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM for the block (in the main thread; elsewhere nothing is caught). Of several processes one speaks.

    quiet: the process that is stopped speaks, and this one passes the request on.
    """
    request, speaks = StopRequest(), is_first_process() and not quiet

    def note(number: int, frame: Any) -> None:
        again = request.signal_number is not None
        request.signal_number = number
        if again:
            raise KeyboardInterrupt
        if not speaks:
            return
        with suppress(OSError):  # past the console, which may be drawing just now
            os.write(2, b"\nstopping after this step, then saving; once more (Ctrl-C) leaves at once without\n")

    with _handlers({signal.SIGINT: note, signal.SIGTERM: note}):
        yield request


@contextmanager
def _handlers(handlers: Mapping[int, Callable[[int, Any], Any]]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
