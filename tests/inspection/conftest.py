"""Trained runs on the digits that come with the package, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from firstlight.engine.train import train
from firstlight.tracking.console import Console

QUICK = ("train.epochs=2", "train.test_at_end=false", "device.threads=1", "device.precision=float32", "device.memory_format=contiguous")
RUNS = {
    "dropout": ("model=mlp", "model.hidden=[24]", "model.dropout=0.4"),
    "plain": ("model=mlp", "model.hidden=[24]"),
    "cnn": ("model.widths=[4,8]",),
    "scratch": ("model=scratch_mlp", "model.hidden=[8]"),
    "no_val": ("model=linear", "split.val_fraction=0"),
}


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a run by its name in RUNS; it is trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("inspected")

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            train("quickstart", *QUICK, *RUNS[name], name=name, runs_dir=folder, console=Console(quiet=True))
        return folder / name

    return find
