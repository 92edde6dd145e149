"""A training of a second: the shipped digits, a network of 650 to 5,000 parameters, fixed arithmetic."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.engine import train as engine
from firstlight.tracking.console import Console
from tests.engine.small_pictures import write_small_pictures

SMALL = """
data: digits
model: {name: mlp, hidden: [16]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
schedule: cosine
split: {num_train: 200}
train: {epochs: 2, batch_size: 32, log_every: 5}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""

Train = Callable[..., fl.Run]


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    """Let no run here draw its curves, which takes longer than its training; tests/plotting and test_commands.py look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "draw_pictures", write_small_pictures)
        yield


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Return `train(*overrides, name=..., console=...)`."""

    def run(*overrides: str, name: str = "run", console: Console | None = None) -> fl.Run:
        config = tmp_path / "small.yaml"
        config.write_text(SMALL)
        return fl.train(config, *overrides, name=name, runs_dir=tmp_path / "runs", console=console or Console(quiet=True))

    return run
