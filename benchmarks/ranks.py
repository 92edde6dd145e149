"""One training in two processes against one: how far the losses of 50 steps differ, and how many images a second each learns from.

`python -m benchmarks.ranks [--pairs N] [--force]`, with FIRSTLIGHT_DATA set. Both arms are `firstlight train` with the same config and
the same global batch, in float32 on one thread a process; two ranks are started by torchrun and talk by gloo. The time is that of the
last epoch, its checkpoint included. The arms take turns.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import firstlight as fl
from benchmarks.record import Row, refuse_when_busy, write_result

STEPS = 50
FIXED = ["device.name=cpu", "device.precision=float32", "device.threads=1", "split.val_fraction=0", "train.test_at_end=false"]
EXPERIMENTS = {
    "mnist_mlp": ["split.num_train=51200", "train.batch_size=512", "train.epochs=2"],
    "lenet": ["split.num_train=12800", "train.batch_size=128", "train.epochs=2", "device.memory_format=contiguous"],
    "cifar10_cnn5": ["split.num_train=6400", "train.batch_size=128", "train.epochs=2", "device.memory_format=channels_last"],
    "resnet18_cifar10": ["split.num_train=3200", "train.batch_size=64", "train.epochs=1", "device.memory_format=channels_last"],
}
"""What is trained: two epochs with 50 steps and more, of ResNet-18 one."""


def train(name: str, num_ranks: int, folder: Path, run: str) -> fl.Run:
    """Train an experiment in so many processes, and return its run."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)] if num_ranks > 1 else []
    words = ["train", name, *EXPERIMENTS[name], *FIXED, "--name", run, "--runs-dir", str(folder), "--json"]
    command = [sys.executable, *start, "-m", "firstlight", *words]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True)
    return fl.load_run(folder / run)


def images_per_second(run: fl.Run) -> float:
    """Return how many images a second the last epoch learned from."""
    return float(run.info["data"]["num_train"]) / float(run.epochs[-1]["seconds"])


def measure(name: str, num_pairs: int, folder: Path) -> list[Row]:
    """Train in one process and in two, in turns, and compare."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for pair in range(num_pairs):
        runs = {ranks: train(name, ranks, folder, f"{name}-{pair}-{ranks}") for ranks in (1, 2)}
        for ranks, run in runs.items():
            rates[ranks].append(images_per_second(run))
    losses = [[row["loss"] for row in runs[ranks].steps[:STEPS]] for ranks in (1, 2)]
    assert all(len(found) == STEPS for found in losses)
    difference = max(abs(one - two) for one, two in zip(*losses, strict=True))
    worst = max(range(STEPS), key=lambda step: abs(losses[0][step] - losses[1][step])) + 1
    spread = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    size = fl.load_config(name, *EXPERIMENTS[name]).train.batch_size
    parameters = runs[1].info["network"]["num_parameters"]
    return [
        {
            "what": f"{name}: largest difference of {STEPS} losses",
            "value": difference,
            "unit": "",
            "n": STEPS,
            "most": 1e-5,
            "note": f"at step {worst}; losses from {losses[0][0]:.3f} to {losses[0][-1]:.3f}, global batch {size}",
        },
        {
            "what": f"{name}: two ranks over one",
            "value": median(spread),
            "unit": "x",
            "n": num_pairs,
            "note": f"{median(rates[2]):,.0f} against {median(rates[1]):,.0f} images/s, range {min(spread):.2f} to {max(spread):.2f}; "
            f"{parameters * 4 / 2**20:.1f} MiB of gradients a step",
        },
    ]


def main() -> None:
    """Measure all, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="repetitions; of resnet18_cifar10 one (default: 3)")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, too; the record says so")
    parser.add_argument(
        "--only", choices=EXPERIMENTS, nargs="+", default=list(EXPERIMENTS), help="some of them (default: all, which takes an hour)"
    )
    arguments = parser.parse_args()
    refuse_when_busy(arguments.force)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in arguments.only for row in measure(name, 1 if name == "resnet18_cifar10" else arguments.pairs, Path(folder))]
    print(json.dumps(rows, indent=1))
    words = "" if len(arguments.only) == len(EXPERIMENTS) else f" --only {' '.join(arguments.only)}"
    write_result("ranks", "Two ranks on two cores against one, by torchrun", f"python -m benchmarks.ranks{words}", rows)
    if any(not math.isfinite(row["value"]) or row["value"] > row.get("most", math.inf) for row in rows):
        sys.exit("a difference is larger than what is needed")


if __name__ == "__main__":
    main()
