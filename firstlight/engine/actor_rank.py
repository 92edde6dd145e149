"""What ends a rank whose actor is gone: firstlight.engine.actors starts both."""

import os
import signal
import threading
import time

SAVE_SECONDS = 6.0
"""Time that a rank without its actor has to save and leave."""


def end_with_actor() -> None:
    """Watch stdin from now on: when the actor's end of the pipe is closed, end this process as SIGTERM does, saved if there is time."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which Ray blocks in all that it starts
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(0, 2**10):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(128 + signal.SIGTERM)
