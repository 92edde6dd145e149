"""A worker whose trials take a millisecond: the queue, the claims, the log and the pipes are real, the training is not.

As a real one would, it leaves a file in the study's folder while it trains, so that a test sees two at once.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from firstlight.studies.store import Log
from firstlight.studies.trial import Place, Row, Trial, head
from firstlight.studies.worker import serve


def train(trial: Trial, settings: Mapping[str, Any], place: Place, log: Log) -> Row:
    """Return a row at once; die, or raise, where the trial's learning rate says so."""
    mark = place.path / f"training-{trial.name}"
    began = os.open(mark, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(began, f"{os.getpid()}\n".encode())
    os.close(began)
    lr = trial.point["optim.lr"]
    if lr == 666.0:
        print("out of luck", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if lr == 667.0:
        raise ZeroDivisionError("a bug")
    time.sleep(float(os.environ.get("STUB_SECONDS", "0.001")))
    return {**head(trial), "state": "finished", "objective": lr, "figures": {"val_accuracy": lr}, "seconds": 0.001}


if __name__ == "__main__":
    serve(train)
