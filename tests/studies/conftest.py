"""Studies of a second: the shipped digits, 200 images, a network of 1,210 parameters, fixed arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firstlight.studies.plan import Way
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.store import Store
from firstlight.studies.study import Study
from firstlight.tracking.console import Console

EXPERIMENT = """
data: digits
model: {name: mlp, hidden: [16]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
split: {num_train: 200}
train: {epochs: 2, batch_size: 50}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""

Sweep = Callable[..., tuple[Study, Store]]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def sweep(tmp_path: Path, experiment: Path) -> Sweep:
    """Return `sweep(*overrides, grid=[...], name=..., lanes="off")`, which carries a study out and returns it with its store."""

    def run(*overrides: str, source: Path = experiment, lanes: Way = "off", **more: Any) -> tuple[Study, Store]:
        study, store = open_study(source, overrides, runs_dir=tmp_path / "runs", **more)
        run_study(study, store, Console(quiet=True), lanes=lanes)
        return study, store

    return run
