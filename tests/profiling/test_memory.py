"""Memory of a training step: counted exactly, measured beside it, each network in a child of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from firstlight.engine.sources import load_config
from firstlight.engine.train import prepare
from firstlight.errors import ConfigError
from firstlight.profiling.memory import explain, profile_memory
from firstlight.profiling.memory_step import bytes_of, measure_memory


def test_lenet_against_alexnet(tmp_path: Path) -> None:
    """D7: at the same batch; every weight, gradient and momentum counted, without an image of the data."""
    found = profile_memory(["lenet", "alexnet"], ["device.precision=float32"], batch_size=8, out=tmp_path / "out", data_dir=tmp_path)
    lenet, alexnet = found["networks"]
    assert (lenet["parameters"], alexnet["parameters"]) == (4 * 83_126, 4 * 57_044_810)
    assert lenet["gradients"] == lenet["optimizer"] == 4 * 83_126  # momentum
    assert alexnet["gradients"] == 4 * 57_044_810
    assert alexnet["optimizer"] == 8 * 57_044_810 + 4 * 16  # AdamW: two moments, and a count for each of 16 tensors
    assert alexnet["peak"] > alexnet["sum"] - alexnet["activations"] - alexnet["gradients"] > 100 * lenet["parameters"]
    assert alexnet["unexplained"] == alexnet["peak"] - alexnet["sum"]
    assert found["says"].startswith("at batch 8 alexnet takes ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["memory.json", "memory.png", "memory.svg"]


def test_activations_are_what_autograd_keeps(tiny: Path) -> None:
    """An MLP keeps its input, and the output of its activation, once; by hand."""
    made = prepare(load_config(tiny), Path())
    found = measure_memory(made, 10)
    assert found["activations"] == 4 * 10 * (64 + 16)
    assert found["parameters"] == found["gradients"] == found["optimizer"] == 4 * made.facts["num_parameters"]
    assert found["average"] == 0
    assert measure_memory(prepare(load_config(tiny, "train.ema_decay=0.9"), Path()), 10)["average"] == found["parameters"]


def test_a_storage_counts_once() -> None:
    whole = torch.ones(100)
    assert bytes_of([whole, whole[:50], whole.view(10, 10), torch.ones(1)]) == 404


def row(name: str, peak: int, **parts: int) -> dict[str, Any]:
    return {"network": name, "peak": peak, **dict.fromkeys(("parameters", "gradients", "optimizer", "average", "activations"), 0), **parts}


def test_the_finding_is_one_sentence() -> None:
    small, large = row("a", 20 * 2**20, activations=2**20), row("b", 60 * 2**20, optimizer=30 * 2**20)
    assert explain([small], 4) == "a takes 20 MiB for a step on 4 images; largest part: activations, 1 MiB"
    assert explain([large, small], 4).startswith(
        "at batch 4 b takes 3 times the memory of a: a 20 MiB (largest part: activations, 1 MiB) and b 60"
    )


def test_wrong_input_is_one_line(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="--batch is 0; take 1 or more"):
        profile_memory([str(tiny)], batch_size=0)
    with pytest.raises(ConfigError, match="lennet"):
        profile_memory([str(tiny)], ["model=lennet"])
