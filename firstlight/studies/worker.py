"""A worker process of a study: reads trials from stdin, a line each, trains them, writes their rows, and answers a line each.

`python -m firstlight.studies.worker` is started by firstlight.studies.workers. Reading order: serve, carry_out. What is imported here
needs no torch, so that a worker of something else than training starts in a moment.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any

from firstlight.errors import FirstlightError, InterruptedRunError
from firstlight.studies.store import Log
from firstlight.studies.trial import Place, Row, Trial

Train = Callable[[Trial, Mapping[str, Any], Place, Log], Row | None]
"""Trains a trial with a config as plain data and returns its row, or None where it paused."""

WAIT_SECONDS = 0.05
"""Between two looks at a trial that another process holds: the worker of a leader that died, which is just saving."""


def carry_out(trial: Trial, log: Log, train: Callable[[], Row | None], *, sync: bool = True, writes: bool = True) -> Row | None:
    """Return the row of a trial: the one that stands, or else that of training it under our claim; None where it paused.

    writes: the row into the log as well; else the leader does.
    """
    while not log.claim(trial):
        time.sleep(WAIT_SECONDS)
    row = log.find(trial)
    if row is None:
        row = train()
        if row is None or not writes:
            log.let_go(trial)
            return row
        log.write([row], sync=sync)
    elif sync:
        log.sync()
    return row


def serve(train: Train) -> None:
    """Carry out the trials that the leader sends, until it closes the pipe or dies; then save and leave."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the leader, who then closes the pipe
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))  # between trials; within, training sees to it
    place = Place(**json.loads(lines.get()))
    log = Log(place.path)
    print(json.dumps({"ready": os.getpid()}), file=answers)
    for message in _messages(lines):
        trial = Trial(**message["trial"])
        try:
            row = carry_out(trial, log, lambda: train(trial, message["config"], place, log), writes=not place.one_writer)  # noqa: B023
            answer: dict[str, Any] = {"row": row}
        except (KeyboardInterrupt, InterruptedRunError):
            os._exit(143)
        except FirstlightError as error:
            answer = {"error": str(error), "code": error.exit_code}
        print(json.dumps(answer), file=answers)


def _read(lines: "SimpleQueue[bytes]") -> None:
    """Hand lines over; at the end of them, the leader is gone: end this process as SIGTERM does, a training with its checkpoint."""
    rest = b""
    while chunk := os.read(0, 2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _messages(lines: "SimpleQueue[bytes]") -> Iterator[dict[str, Any]]:
    while True:
        yield json.loads(lines.get())


def main() -> None:
    """Train the trials that come."""
    from firstlight.studies.training import train_plain

    serve(train_plain)


if __name__ == "__main__":
    main()
