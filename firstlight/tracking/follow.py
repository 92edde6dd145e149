"""The process of a tracker: it reads a run folder that a training writes, and tells the tracker. `python -m firstlight.tracking.follow`.

What a tracker does, however slow it is or however it fails, cannot reach the training: the two share nothing but files, and a pipe whose
closing says that the training is over. Reading order: main, follow, hand_over. Needs no torch.
"""

import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from firstlight.tracking.family import end_own_family
from firstlight.tracking.run import Run
from firstlight.tracking.tensorboard import TensorBoard, event_files, write_study
from firstlight.tracking.told import Tail
from firstlight.tracking.weights_and_biases import SENT, WeightsAndBiases

Tracker = TensorBoard | WeightsAndBiases

LOOK_SECONDS = 1.0
"""Between two looks at the rows."""
SPARE_SECONDS = 5.0
"""Behind the time that a training waits for us, until we end ourselves because it was killed."""
TRIALS = "trials.jsonl"
"""Names the trials of a study that ended, a row each."""


def open_tracker(name: str, run: Run, folder: Path, settings: dict[str, Any]) -> Tracker:
    """Return the tracker of a run, which writes into `folder`. settings: what its constructor takes beside."""
    return TensorBoard(run, folder) if name == "tensorboard" else WeightsAndBiases(run, folder, **settings)


def hand_over(name: str, run: Run, folder: Path, settings: dict[str, Any]) -> Tracker:
    """Tell a tracker all of a run that is over; return the tracker, which is done."""
    tracker = open_tracker(name, run, folder, settings)
    try:
        tracker.add(run.rows)
        tracker.end(run)
    finally:
        tracker.close()
    return tracker


def follow_run(name: str, path: Path, settings: dict[str, Any], *, leader: "Leader") -> None:
    """Tell a tracker the rows of a run as they come, and when the training is over what it came to."""
    tail = Tail(path / "metrics.jsonl")
    tracker = open_tracker(name, Run(path), path, settings)
    while True:
        is_over = leader.is_over(LOOK_SECONDS)
        rows, anew = tail.look()
        if anew:
            tracker.begin(Run(path))
        tracker.add(rows)
        if is_over:
            break
    tail.close()
    tracker.end(Run(path))
    tracker.close()


def follow_study(name: str, path: Path, settings: dict[str, Any], *, leader: "Leader") -> None:
    """Hand over each trial of a study when it has ended."""
    done: set[str] = set()
    while True:
        is_over = leader.is_over(LOOK_SECONDS)
        for trial in ended_trials(path):
            if trial not in done and (path / trial / "run.json").is_file():
                run = Run(path / trial)
                if not run.damage and not is_handed_over(name, run):
                    hand_over(name, run, run.path, settings)
                done.add(trial)
        if is_over:
            break
    if name == "tensorboard":
        describe_study(path, path)


def describe_study(path: Path, folder: Path) -> Path | None:
    """Write the list of a study's settings and figures into `folder` for TensorBoard; return the file, None where no trial has ended."""
    runs = [run for trial in ended_trials(path) if (run := Run(path / trial)).path.is_dir() and not run.damage]
    return write_study(folder, runs) if runs else None


def ended_trials(path: Path) -> list[str]:
    """Return the names of the trials of a study that have ended, in that order, as far as they can be read."""
    names: dict[str, None] = {}
    try:
        lines = (path / TRIALS).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except OSError:
        return []
    for line in lines:
        try:
            names[str(json.loads(line)["trial"])] = None
        except (ValueError, KeyError, TypeError):
            continue
    return list(names)


def is_handed_over(name: str, run: Run) -> bool:
    """Tell whether a tracker was told of a run after its end."""
    marks = event_files(run.path) if name == "tensorboard" else [run.path / SENT]
    ended = (run.path / "run.json").stat().st_mtime_ns
    return any(mark.is_file() and mark.stat().st_mtime_ns >= ended for mark in marks)


class Leader:
    """The training at the other end of stdin, which it closes when it is over, or the kernel does when it is killed.

    wait_seconds: how long it waits for us from then on. Where it was killed and cannot, we see to that ourselves.
    """

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds

    def is_over(self, seconds: float) -> bool:
        """Wait so long at most, and tell whether the training is over."""
        if os.name == "nt":  # where a pipe cannot be waited for: everything is told at the end
            sys.stdin.buffer.read()
            return True
        over = bool(select.select([0], [], [], seconds)[0]) and not os.read(0, 1)
        if over:
            signal.signal(signal.SIGALRM, lambda number, frame: end_own_family())
            signal.setitimer(signal.ITIMER_REAL, self._wait_seconds + SPARE_SECONDS)
        return over


def main(name: str, path: Path, settings: dict[str, Any], wait_seconds: float) -> None:
    """Follow a run or a study until the training is over. What goes wrong is one line on stdout, and the end of this process group."""
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)  # what a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leader = Leader(wait_seconds)
    try:
        (follow_study if (path / "study.json").is_file() else follow_run)(name, path, settings, leader=leader)
    except Exception as error:  # a tracker's library may raise anything; all of it is said to the training
        answers.write(" ".join(f"{type(error).__name__}: {error}".split())[:500])
        answers.flush()
        end_own_family()  # with what the library started; nothing of it is to hang about
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), float(sys.argv[4]))
