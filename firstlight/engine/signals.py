"""Ctrl-C and SIGTERM during training: the first sets a flag that the loop looks at, a second leaves at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass
class StopRequest:
    """Which signal asked for a stop, if any."""

    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        """What the command returns: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal_number or signal.SIGINT)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM for the block (in the main thread; elsewhere nothing is caught)."""
    request = StopRequest()

    def note(number: int, frame: Any) -> None:
        again = request.signal_number is not None
        request.signal_number = number
        if again:
            raise KeyboardInterrupt
        with suppress(OSError):  # past the console, which may be drawing just now
            os.write(2, b"\nstopping after this step, then saving; once more (Ctrl-C) leaves at once without\n")

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
