"""Fault 47, counted: 16 worker processes, 2,000 trials, 200 SIGKILLs at random moments; how many trials are lost, and recorded twice.

`python -m benchmarks.study_workers [--workers N] [--trials N] [--kills N] [--seed N]`: the leader, the pipes, the claims and the log are
those of `firstlight sweep --workers 16`; a training is a wait of 1 to 20 ms. A kill comes for each 10 trials, at a moment that is drawn,
to any of the workers, whatever it does. A trial may take any number of workers with it, so that none is given up by chance. Exit code 1
where a trial is lost, recorded twice, or trained by two processes at once.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstlight.studies.store import Log
from firstlight.studies.trial import Place, Trial, head
from firstlight.studies.worker import serve

if TYPE_CHECKING:
    from benchmarks.record import Row

COMMAND = [sys.executable, "-m", "benchmarks.study_workers", "--worker"]


def main() -> None:
    """Measure, print, and write results/study_workers.json; or be a worker."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for name, default in (("workers", 16), ("trials", 2_000), ("kills", 200), ("seed", 0)):
        words.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    arguments = words.parse_args()
    if arguments.worker:
        serve(wait_instead)
    from benchmarks.record import write_result  # a worker needs no torch

    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(arguments, Path(folder))
    for each in rows:
        print(f"{each['what']}: {each['value']:g} {each['unit']}")
    if (arguments.workers, arguments.trials, arguments.kills) == (16, 2_000, 200):
        print(write_result("study_workers", "Fault 47: killed workers of a study", "python -m benchmarks.study_workers", rows))
    sys.exit(any(each["value"] for each in rows if each.get("most") == 0))


def rows_of(arguments: argparse.Namespace, folder: Path) -> "list[Row]":
    """Carry the study out and count what its log says."""
    from firstlight.studies import runner
    from firstlight.studies.workers import Outcome, Processes
    from firstlight.tracking.console import Console

    draws, kills = random.Random(arguments.seed), [0, 0]

    class Killed(Processes):
        """Workers of which one is killed for each so many outcomes, up to 20 ms after the last of them."""

        num_outcomes = 0

        def wait(self) -> list[Outcome]:
            outcomes = super().wait()
            self.num_outcomes += len(outcomes)
            while kills[0] < min(arguments.kills, self.num_outcomes * arguments.kills / arguments.trials):
                kills[0] += 1
                threading.Timer(draws.uniform(0, 0.02), self.kill_one).start()
            return outcomes

        def kill_one(self) -> None:
            with suppress(ProcessLookupError):
                os.kill(draws.choice(self.pids), signal.SIGKILL)
                kills[1] += 1

    runner.MAX_DEATHS = arguments.kills + 1
    words = [f"budget.trials={arguments.trials}", "sampler=random"]
    study, store = runner.open_study("mnist_mlp", words, grid=["optim.lr=log:1e-4:1"], runs_dir=folder)
    began = time.monotonic()
    runner.run_study(study, store, Console(quiet=True), start=lambda place, log: Killed(arguments.workers, place, COMMAND))
    seconds = time.monotonic() - began
    lines = Counter(json.loads(line)["trial"] for line in (store.path / "trials.jsonl").read_text(encoding="utf-8").splitlines())
    wanted = [trial.name for trial in study.trials()]
    at_once = sum(1 for path in store.path.glob("clash-*"))
    note = f"{arguments.workers} workers, {arguments.trials:,} trials"
    return [
        {"what": "SIGKILLs", "value": kills[1], "unit": "", "n": 1, "least": arguments.kills, "note": note},
        {"what": "trials lost", "value": sum(name not in lines for name in wanted), "unit": "", "n": len(wanted), "most": 0},
        {"what": "trials recorded twice", "value": sum(number > 1 for number in lines.values()), "unit": "", "n": len(wanted), "most": 0},
        {"what": "trials in two hands at once", "value": at_once, "unit": "", "n": len(wanted), "most": 0},
        {"what": "time", "value": round(seconds, 1), "unit": "s", "n": 1, "note": "new workers started for the killed ones included"},
    ]


def wait_instead(trial: Trial, settings: Mapping[str, Any], place: Place, log: Log) -> "Row":
    """Wait in the place of a training, and look whether another process has this trial, too."""
    hands = place.path / f"hands-{trial.name}"
    with suppress(FileNotFoundError, ValueError):
        other = int(hands.read_text())
        if is_alive(other):
            time.sleep(0.1)  # one that is killed needs a moment to be gone
        if is_alive(other):
            (place.path / f"clash-{trial.name}").touch()
    hands.write_text(str(os.getpid()))
    time.sleep(random.uniform(0.001, 0.02))
    hands.unlink()
    row = {"state": "finished", "objective": trial.point["optim.lr"], "figures": {}, "seconds": 0.01}
    return {**head(trial), **row}


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that was killed and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
