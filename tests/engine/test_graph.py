"""Captured steps: that they equal plain ones is tested in tests/gpu, on the CPU as well; here, where they are refused."""

from pathlib import Path

import pytest

import firstlight as fl
from firstlight.engine.graph import check_graph
from firstlight.errors import ConfigError
from firstlight.tracking.console import Console


def test_a_graph_without_cuda_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """One line that says what to do, and no run folder."""
    with pytest.raises(ConfigError, match=r"need a CUDA device, and this run is on cpu; set device\.graph=false"):
        fl.train("quickstart", "device={name: cpu, graph: true}", runs_dir=tmp_path, console=Console(quiet=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["optim=rmsprop", "train.accumulate=2"])
def test_what_cannot_be_captured_is_refused(setting: str) -> None:
    """On CUDA too: RMSprop reads its lr on the CPU, and a graph is one batch and one step."""
    check_graph(fl.load_config("quickstart"), "cuda")
    with pytest.raises(ConfigError, match=r"set device\.graph=false"):
        check_graph(fl.load_config("quickstart", setting), "cuda")
