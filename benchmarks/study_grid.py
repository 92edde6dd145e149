"""The shipped 10 x 10 grid (learning rate by scale of the initial weights) as one command, against Lightning and Keras point by point.

`python -m benchmarks.study_grid [--force] [--peers lightning,keras] [--pairs N]`: ours is the wall time of the whole command
`firstlight sweep mnist_lr_init`, from the start of Python to tables and pictures: 100 trainings with run folders and checkpoints. A peer
trains one point a turn: one epoch of the same network, images and batches, in a process that stands already, with what it logs by default;
100 points are reckoned from that. The peers' arms are those of lines 4 and 5, where their losses are held against ours.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import Measured, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.turns import Turns
from benchmarks.workload import Workload
from firstlight.studies.study import load_study

STUDY = "mnist_lr_init"
PEERS = {
    "lightning": ("Lightning, point by point", {"least": 20, "aim": 50}),
    "keras": ("Keras 3 on torch, point by point", {"least": 20, "aim": 50}),
}


def main() -> None:
    """Measure, print, and write results/study_grid.json; or be our arm."""
    words = parser(__doc__, tuple(PEERS))
    words.add_argument("--arm", action="store_true", help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.arm:
        be_arm()
        return
    start, python = ready_to_measure(arguments), str(require_peers())
    study = load_study(STUDY)
    config = study.config(next(study.trials()))
    with tempfile.TemporaryDirectory() as folder:
        hidden = list(config.model.options["hidden"])
        settings = (f"split.num_train={NUM_PEER_TRAIN}", f"train.batch_size={config.train.batch_size}", f"model.hidden={hidden}")
        Workload.make("mnist_mlp", *settings, "optim={name: sgd, lr: 0.05}", "schedule=constant").write(Path(folder))

        def command(arm: str) -> list[str]:
            if arm == "firstlight":
                return [python, "-m", "benchmarks.study_grid", "--arm"]
            return [python, "-m", "benchmarks.frameworks", arm, folder, "--threads", str(arguments.threads)]

        measured = measure(
            command, arguments.peers, num_pairs=arguments.pairs, threads=arguments.threads, check=lambda ours, theirs: "", limit=None
        )
    title = "Line 6: a shipped study of 100 trainings as one command"
    record("study_grid", title, "python -m benchmarks.study_grid", rows_of(measured), measured, arguments, start)


def rows_of(measured: dict[str, Measured]) -> list[Row]:
    """Return the wall time of the study, then what a hundred points of each peer take, and the ratio."""
    rows: list[Row] = []
    for arm, (name, needed) in PEERS.items():
        if arm in measured:
            pairs, steps = measured[arm].pairs(), measured[arm].answers[0][0]["count"]
            if not rows:
                rows.append(row(f"firstlight sweep {STUDY}, the whole command", [cost * steps for cost in pairs.ours], "s"))
            rows.append(row(f"{name}, 100 points reckoned", [cost * steps for cost in pairs.theirs], "s"))
            rows.append(row(f"the study over {name}", pairs.times_faster, "x", **needed))
    return rows


def be_arm() -> None:
    """Carry the study out, a command a turn."""
    turns, study = Turns(), load_study(STUDY)
    config = study.config(next(study.trials()))
    num_trials = sum(1 for _ in study.trials())

    def repetition() -> int:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "firstlight", "sweep", STUDY, "--runs-dir", folder, "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return num_trials * -(-NUM_TRAIN // config.train.batch_size)

    turns.repeat(repetition)


NUM_TRAIN = 54_000
"""Images of MNIST that a study trains on; a tenth of 60,000 is carved out to validate."""
NUM_PEER_TRAIN = 53_984
"""Images that a peer's point trains on: whole batches of 32."""


if __name__ == "__main__":
    main()
