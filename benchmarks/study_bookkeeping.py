"""Line 10: milliseconds of durable bookkeeping a trial, 1,000 trials, against Optuna's SQLite, journal file and memory.

`python -m benchmarks.study_bookkeeping [--force] [--peers sqlite,journal,memory] [--pairs N]`: trials of three parameters whose training
is a constant. firstlight: claim the trial, look for its row, write the row, fsync where 50 ms passed since the last one; every row is on
the disk before the clock stops. Optuna: ask, three suggest calls (random), tell; its SQLite and journal are on the same disk, and its
memory is not durable. The limit is one write and one fsync for all rows together. Beside it stands what a whole study of ours costs a
trial, drawing the points and checking a config for each included. Optuna is an extra of firstlight, so all run in its environment.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pairs import Measured, limit_share, measure, parser, record, row
from benchmarks.record import Row, refuse_when_busy
from benchmarks.turns import Turns

if TYPE_CHECKING:
    from firstlight.studies.trial import Trial

PEERS: dict[str, Row] = {"sqlite": {"most": 0.02}, "journal": {"most": 0.2}, "memory": {}}
NAMES = {"sqlite": "Optuna, SQLite", "journal": "Optuna, journal file", "memory": "Optuna, in memory"}
NUM_TRIALS = 1_000
MOST = 0.2
"""Milliseconds of bookkeeping that a trial may cost."""
GRID = ["optim.lr=log:1e-4:1", "optim.momentum=lin:0:0.9", "train.batch_size=logint:16:256"]

Work = Callable[[Path], int]
"""Keep the books of NUM_TRIALS trials in a new folder, and return how many can be read back."""


def main() -> None:
    """Measure, print, and write results/study_bookkeeping.json; or be the arm that --arm names."""
    words = parser(__doc__, tuple(PEERS))
    words.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.arm:
        be_arm(ARMS[arguments.arm])
    refuse_when_busy(arguments.force)
    start = {"load": round(os.getloadavg()[0], 2), "forced": arguments.force}
    measured = measure(
        lambda arm: [sys.executable, "-m", "benchmarks.study_bookkeeping", "--arm", arm],
        [*arguments.peers, "study"],
        num_pairs=arguments.pairs,
        threads=1,
        check=lambda ours, theirs: f"{ours['trials']:,} trials read back of both" if ours == theirs else "",
        limit="one_fsync",
    )
    title, command = "Line 10: bookkeeping of a study", "python -m benchmarks.study_bookkeeping"
    record("study_bookkeeping", title, command, rows_of(measured), measured, arguments, start)


def rows_of(measured: dict[str, Measured]) -> list[Row]:
    """Return our time with its share of the limit, that of a whole study, and each peer's with the ratio."""
    one = measured["one_fsync"]
    rows = [
        row("firstlight", _milliseconds(one.pairs().ours), "ms", most=MOST, limit=limit_share(one)),
        row("one write and fsync for all", _milliseconds(one.pairs().theirs), "ms"),
    ]
    if "study" in measured:
        note = "points drawn, configs checked, rows"
        rows.append(row("firstlight, a whole study", _milliseconds(measured["study"].pairs().theirs), "ms", note=note))
    for arm, needed in PEERS.items():
        if arm in measured:
            pairs = measured[arm].pairs()
            rows.append(row(NAMES[arm], _milliseconds(pairs.theirs), "ms"))
            rows.append(row(f"firstlight over {NAMES[arm]}", pairs.share, "x", guard=measured[arm].guard, **needed))
    return rows


def _milliseconds(costs: tuple[float, ...]) -> list[float]:
    return [1e3 * cost for cost in costs]


def be_arm(work: Work) -> None:
    """Keep the books of NUM_TRIALS trials a repetition, each time in a new folder."""
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder:
        folders = (Path(folder) / str(number) for number in count())
        found = 0

        def repetition() -> int:
            nonlocal found
            found = work(next(folders))
            return NUM_TRIALS

        turns.repeat(repetition, lambda: {"trials": found})


def firstlight(folder: Path) -> int:
    """Claim, look, write, and share the fsync."""
    from firstlight.files import make_dir
    from firstlight.studies.store import Log, Store
    from firstlight.studies.worker import carry_out

    log = Log(make_dir(folder))
    for trial in _trials():
        carry_out(trial, log, lambda: _row(trial), sync=False)  # noqa: B023
    log.sync()
    log.close()
    return len(Store(folder).rows())


def study(folder: Path) -> int:
    """Carry out a study of ours whose training is a constant."""
    from firstlight.studies.runner import open_study, run_study
    from firstlight.studies.workers import Here
    from firstlight.tracking.console import Console

    words = [f"budget.trials={NUM_TRIALS}", "sampler=random"]
    found, store = open_study("mnist_mlp", words, grid=GRID, runs_dir=folder)
    run_study(found, store, Console(quiet=True), start=lambda place, log: Here(place, log, lambda trial, *_: _row(trial)))
    return len(store.rows())


def one_fsync(folder: Path) -> int:
    """Write all rows at once."""
    from firstlight.files import Appender, make_dir
    from firstlight.studies.store import LOG, Store, as_line

    end = Appender(make_dir(folder) / LOG)
    end.write_lines([as_line(_row(trial)) for trial in _trials()])
    end.sync()
    end.close()
    return len(Store(folder).rows())


def _trials() -> "Iterator[Trial]":
    from firstlight.studies.trial import Trial

    for number in range(NUM_TRIALS):
        yield Trial(number, {"optim.lr": 1e-4 * (number + 1), "optim.momentum": 0.9, "train.batch_size": 64}, 0)


def _row(trial: "Trial") -> Row:
    from firstlight.studies.trial import head

    figures = {"best_epoch": 1, "train_loss": 0.25, "train_accuracy": 0.9, "val_loss": 0.3, "val_accuracy": 0.875}
    return {**head(trial), "state": "finished", "objective": 0.875, "figures": figures, "seconds": 1.25}


def _optuna(storage: Callable[[Path], Any]) -> Work:
    def work(folder: Path) -> int:
        import optuna

        from firstlight.files import make_dir

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        made = storage(make_dir(folder))
        asked = optuna.create_study(storage=made, sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(NUM_TRIALS):
            trial = asked.ask()
            trial.suggest_float("lr", 1e-4, 1, log=True)
            trial.suggest_float("momentum", 0, 0.9)
            trial.suggest_int("batch_size", 16, 256, log=True)
            asked.tell(trial, 0.875)
        return len(asked.trials)

    return work


def sqlite(folder: Path) -> str:
    """Return Optuna's default storage on a disk."""
    return f"sqlite:///{folder / 'study.db'}"


def journal(folder: Path) -> Any:
    """Return Optuna's append-only storage."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


ARMS: dict[str, Work] = {
    "firstlight": firstlight,
    "study": study,
    "one_fsync": one_fsync,
    "sqlite": _optuna(sqlite),
    "journal": _optuna(journal),
    "memory": _optuna(lambda folder: None),
}

if __name__ == "__main__":
    main()
