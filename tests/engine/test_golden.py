"""The first 50 losses of each small experiment, to the last bit: a change of the engine that changes a number is seen here.

`python tests/engine/test_golden.py` writes the file for this machine's instruction set and torch; say in the commit why it changed.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.tracking.console import Console
from firstlight.tracking.environment import cpu_model

FOLDER = Path(__file__).parents[1] / "golden"
HERE = "-".join((torch.backends.cpu.get_cpu_capability(), cpu_model().split()[0], "torch", torch.__version__.partition("+")[0]))
STEPS = 50
EXPERIMENTS = {
    "quickstart": ["train.epochs=3", "train.test_at_end=false"],
    "mnist_linear": [],
    "mnist_mlp": [],
    "mnist_scratch": [],
    "mnist_900": [],
    "mnist_cnn": [],
    "lenet": ["augment={flip: true, crop: 4}"],
    "lenet_sigmoid": [],
}
FIXED = ["device={name: cpu, precision: float32, memory_format: contiguous, threads: 1}", "split.val_fraction=0.01"]


def first_losses(name: str, data_dir: Path, runs_dir: Path) -> list[float]:
    """Train for at least 50 steps, in fixed arithmetic, and return the losses of the first 50."""
    batch_size = fl.load_config(name).train.batch_size
    short = [] if name == "quickstart" else [f"split.num_train={STEPS * batch_size}", "train.epochs=1"]
    run = fl.train(name, *FIXED, *short, *EXPERIMENTS[name], name=name, runs_dir=runs_dir, data_dir=data_dir, console=Console(quiet=True))
    losses = [row["loss"] for row in run.steps[:STEPS]]
    assert len(losses) == STEPS
    return losses


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_first_losses_are_the_golden_ones(name: str, shared_data: Path, tmp_path: Path) -> None:
    """Equal on the instruction set and the torch that they were written with; elsewhere close to them."""
    files = sorted(FOLDER.glob("*.json"))
    same = FOLDER / f"{HERE}.json"
    golden = json.loads((same if same in files else files[0]).read_text())[name]
    found = first_losses(name, shared_data, tmp_path)
    if same in files:
        assert found == golden
    else:
        assert found == pytest.approx(golden, rel=1e-2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        written = {name: first_losses(name, Path(sys.argv[1]), Path(folder)) for name in EXPERIMENTS}
    (FOLDER / f"{HERE}.json").write_text(json.dumps(written, indent=0) + "\n")
