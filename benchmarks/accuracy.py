"""What each shipped experiment reaches on the sealed test set (or, where stated, on validation), over several seeds.

`python -m benchmarks.accuracy [NAME ...] [--seeds N]` trains them one after the other; rows that are not named are kept.
The test set is opened once a run, after training; nothing is chosen by it.
"""

import argparse
import json
import sys
import tempfile
from statistics import mean
from typing import Any

import firstlight as fl
from benchmarks.record import RESULTS, Row, write_result
from firstlight.tracking.console import Console

NEEDED: dict[str, Row] = {
    "quickstart": {"figure": "test_accuracy", "least": 0.98, "seeds": 5},
    "mnist_linear": {"figure": "test_accuracy", "least": 0.92, "seeds": 3},
    "mnist_mlp": {"figure": "test_accuracy", "least": 0.97, "seeds": 3},
    "mnist_scratch": {"figure": "test_accuracy", "least": 0.975, "seeds": 3},
    "mnist_cnn": {"figure": "test_accuracy", "least": 0.99, "seeds": 1},
    "mnist_900": {"figure": "val_accuracy", "least": 0.9635, "aim": 0.98, "seeds": 1},
    "corrupted_mnist_cnn": {"figure": "test_accuracy", "least": 0.95, "seeds": 1},
    "lenet_sigmoid": {"figure": "test_accuracy", "least": 0.387, "seeds": 1},
    "lenet": {"figure": "test_accuracy", "least": 0.65, "seeds": 1},
    "mnist_fast": {"figure": "test_accuracy", "least": 0.99, "seeds": 5},
    "cifar10_cnn5": {"figure": "test_accuracy", "least": 0.85, "seeds": 3},
    "alexnet": {"figure": "val_accuracy", "least": 0.77, "aim": 0.805, "seeds": 1},
    "resnet18_cifar10": {"figure": "test_accuracy", "least": 0.86, "aim": 0.94, "seeds": 3},
}
"""The figure that counts for each experiment, what is needed and aimed at, and how many seeds are run when none are asked for."""
ON_GPU = ("cifar10_cnn5", "alexnet", "resnet18_cifar10")
"""Those that take hours on a CPU, and are trained only when they are named."""


def main() -> None:
    """Train what the command line names, and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(NEEDED)} (default: all but {', '.join(ON_GPU)})")
    parser.add_argument("--seeds", type=int, help="seeds of each, from 0 on")
    arguments = parser.parse_args()
    kept = read_rows()
    for name in arguments.names or [name for name in NEEDED if name not in ON_GPU]:
        kept[name] = measure(name, arguments.seeds or NEEDED[name]["seeds"])
        print(json.dumps(kept[name]), file=sys.stderr)
        rows = [kept[known] for known in NEEDED if known in kept]
        write_result("accuracy", "Accuracy of the shipped experiments", "python -m benchmarks.accuracy", rows)


def measure(name: str, num_seeds: int) -> Row:
    """Train one experiment with seeds 0, 1, ... and return its row."""
    needed = NEEDED[name]
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            fl.train(name, f"seed={seed}", "train.test_at_end=true", name=f"seed{seed}", runs_dir=folder, console=Console(quiet=True))
            for seed in range(num_seeds)
        ]
        found = [run.summary[needed["figure"]] for run in runs]
        seconds = [run.summary["seconds"] for run in runs]
        arithmetic, source = runs[0].info["arithmetic"], runs[0].info["data"]["source"]
    spread = f"{min(found):.4f} to {max(found):.4f}; " if num_seeds > 1 else ""
    threads = f"{arithmetic['threads']} thread{'s' if arithmetic['threads'] > 1 else ''}, {arithmetic['precision']}"
    note = f"{spread}{mean(seconds):.0f} s a run on {threads}; {source}"
    limits: Row = {key: needed[key] for key in ("least", "aim") if key in needed}
    what = f"{name}: {needed['figure'].replace('_', ' ')}"
    return {"what": what, "value": round(mean(found), 5), "unit": "", **limits, "n": num_seeds, "note": note}


def read_rows() -> dict[str, Any]:
    """Return the recorded rows by experiment."""
    path = RESULTS / "accuracy.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return {row["what"].partition(":")[0]: row for row in rows}


if __name__ == "__main__":
    main()
