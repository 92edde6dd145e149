"""Line 11: microseconds of a logged scalar, against TensorBoard's SummaryWriter and wandb offline; and what a crash loses.

`python -m benchmarks.scalars [--force] [--peers tensorboard,wandb] [--pairs N]`: 3 scalars a step (loss, lr, gradient norm), 1,500 steps
a repetition, each handed over as a Python float in the way of the tool: firstlight's run folder in rows of 50 steps, as training writes
them, TensorBoard by add_scalar, wandb by one log call a step. The limit is one store: the same numbers into a preallocated array.

The crash: a process logs a step each 2 ms with the time of day as its loss, and is killed (SIGKILL) after 4 s. What is in the file is
read back; the age of the newest step that is there is what was lost. firstlight's process is a real training of mnist_mlp at
log_every=50. wandb is left out there: its package no longer holds a reader of its offline file.
"""

import argparse
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.pairs import Measured, child_environment, limit_share, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.turns import Turns

PEERS: dict[str, Row] = {"tensorboard": {"most": 0.1, "aim_most": 0.05}, "wandb": {}}
NAMES = {"tensorboard": "TensorBoard's SummaryWriter", "wandb": "wandb offline"}
NUM_STEPS = 1500
ROWS_AT_ONCE = 50
"""train.log_every by default: the steps between two fetches from the device."""
SCALARS = ("loss", "lr", "grad_norm")
CRASH_SECONDS = 4.0
LEAST_FRESH = 1.0
"""Seconds of logging that a crash may lose."""

Log = Callable[[int, float], None]


def main() -> None:
    """Measure, print, and write results/scalars.json; or be the arm that --arm names."""
    words = parser(__doc__, tuple(PEERS))
    words.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    words.add_argument("--crash", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.crash:
        log_until_killed(arguments.arm, Path(arguments.crash))
    if arguments.arm:
        be_arm(arguments.arm)
    start, python = ready_to_measure(arguments), str(require_peers())
    measured = measure(
        lambda arm: [python, "-m", "benchmarks.scalars", "--arm", arm],
        arguments.peers,
        num_pairs=arguments.pairs,
        threads=1,
        check=lambda ours, theirs: f"{ours['scalars']:,} scalars each" if ours == theirs else "",
        limit="store",
    )
    rows = rows_of(measured, {arm: seconds_lost(python, arm) for arm in NEWEST if arm in ("firstlight", *arguments.peers)})
    record("scalars", "Line 11: a logged scalar", "python -m benchmarks.scalars", rows, measured, arguments, start)


def rows_of(measured: dict[str, Measured], lost: dict[str, float]) -> list[Row]:
    """Return our time with its share of the limit, each peer's with the ratio, and what a crash lost of each."""
    rows = []
    if "store" in measured:
        limit = limit_share(measured["store"])
        rows.append(row("firstlight", [1e6 * cost for cost in measured["store"].pairs().ours], "us", limit=limit))
        rows.append(row("one store", [1e6 * cost for cost in measured["store"].pairs().theirs], "us"))
    for arm, needed in PEERS.items():
        if arm in measured:
            one = measured[arm]
            rows.append(row(NAMES[arm], [1e6 * cost for cost in one.pairs().theirs], "us"))
            theirs = f", {lost[arm]:.2g} s of theirs" if arm in lost else ""
            guard = f"{one.guard}; a crash loses {lost['firstlight']:.2g} s of ours{theirs}"
            rows.append(row(f"firstlight over {NAMES[arm]}", one.pairs().share, "x", guard=guard, **needed))
    for arm, seconds in lost.items():
        bound = {"most": LEAST_FRESH} if arm == "firstlight" else {}
        note = f"of {CRASH_SECONDS:.0f} s of logging, median of 3 kills"
        rows.append({"what": f"{NAMES.get(arm, arm)}: lost at SIGKILL", "value": seconds, "unit": "s", "n": 3, "note": note, **bound})
    return rows


def be_arm(name: str) -> None:
    """Log the scalars of NUM_STEPS steps a repetition."""
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder:
        log = ARMS[name](Path(folder))
        values = [0.5 + step * 1e-3 for step in range(NUM_STEPS)]
        first = 0

        def repetition() -> int:
            nonlocal first
            for step, value in enumerate(values, start=first):
                log(step, value)
            first += NUM_STEPS
            return NUM_STEPS * len(SCALARS)

        turns.repeat(repetition, lambda: {"scalars": NUM_STEPS * len(SCALARS)})


def firstlight(folder: Path) -> Log:
    """Log as firstlight's training does: rows of ROWS_AT_ONCE steps in one write."""
    from firstlight.engine.record import StepRow
    from firstlight.tracking.writer import RunWriter

    writer = RunWriter(folder / "run").__enter__()
    rows: list[StepRow] = []

    def log(step: int, value: float) -> None:
        rows.append(StepRow(step, 1, lr=value, loss=value, grad_norm=value))
        if len(rows) == ROWS_AT_ONCE:
            writer.append_numbers("step", StepRow._fields, rows)
            rows.clear()

    return log


def tensorboard(folder: Path) -> Log:
    """Log as TensorBoard's documentation does."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(step: int, value: float) -> None:
        for name in SCALARS:
            writer.add_scalar(name, value, step)

    return log


def wandb(folder: Path) -> Log:
    """Log as wandb's documentation does, without a network."""
    import wandb as W

    run = W.init(project="benchmark", mode="offline", dir=str(folder), settings=W.Settings(console="off", silent=True, save_code=False))

    def log(step: int, value: float) -> None:
        run.log(dict.fromkeys(SCALARS, value))

    return log


def store(folder: Path) -> Log:
    """Put the numbers into memory and do nothing else."""
    arrays = [array("d", bytes(8 * NUM_STEPS)) for _ in SCALARS]

    def log(step: int, value: float) -> None:
        for numbers in arrays:
            numbers[step % NUM_STEPS] = value

    return log


ARMS: dict[str, Callable[[Path], Log]] = {"firstlight": firstlight, "tensorboard": tensorboard, "wandb": wandb, "store": store}


def log_until_killed(name: str, folder: Path) -> None:
    """Log the time of day; firstlight trains, and its rows say when they came by the file's own time."""
    if name == "firstlight":
        import firstlight as fl

        fl.train("mnist_mlp", "train.epochs=1000", "device.threads=1", name="run", runs_dir=folder)
        return
    log = ARMS[name](folder)
    (folder / "logging").touch()
    step = 0
    while True:
        log(step, time.time())
        step += 1
        time.sleep(0.002)


def seconds_lost(python: str, name: str) -> float:
    """Return the median age, over three kills, of the newest entry that a killed process left."""
    return median(_kill_once(python, name) for _ in range(3))


def _kill_once(python: str, name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "benchmarks.scalars", "--arm", name, "--crash", folder]
        with subprocess.Popen(
            command, env=child_environment(1), cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not any(Path(folder).glob("logging")) and not any(Path(folder).glob("run/metrics.jsonl")) and process.poll() is None:
                time.sleep(0.05)
            time.sleep(CRASH_SECONDS)
            killed_at = time.time()
            process.kill()
        return min(CRASH_SECONDS, killed_at - NEWEST[name](Path(folder), python))


def _newest_firstlight(folder: Path, python: str) -> float:
    return (folder / "run" / "metrics.jsonl").stat().st_mtime


def _newest_tensorboard(folder: Path, python: str) -> float:
    code = (
        "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; "
        "events = E(sys.argv[1], size_guidance={'scalars': 0}); events.Reload(); "
        "print(events.Scalars('loss')[-1].wall_time if 'loss' in events.Tags()['scalars'] else 0)"
    )
    return float(subprocess.run([python, "-c", code, folder], check=True, capture_output=True, text=True, env=child_environment(1)).stdout)


NEWEST: dict[str, Callable[[Path, str], float]] = {
    "firstlight": _newest_firstlight,
    "tensorboard": _newest_tensorboard,
}

if __name__ == "__main__":
    main()
