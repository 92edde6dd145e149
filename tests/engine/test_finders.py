"""The learning-rate range test and the largest batch: what they find, and that they leave no trace."""

import json
import math
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from firstlight.engine.batch_probe import available_memory
from firstlight.engine.finders import LrRange, Probe, _Child, _doubling, _judge, find_batch_size, find_lr, show_probe, tune_batch, tune_lr
from firstlight.engine.places import data_dir_of
from firstlight.engine.seeding import seed_batch
from firstlight.engine.sources import load_config
from firstlight.engine.step import train_step
from firstlight.engine.train import Prepared, prepare
from firstlight.errors import ConfigError

TINY = """
data: digits
model: {name: mlp, hidden: [16], dropout: 0.2}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
split: {num_train: 200}
train: {epochs: 2, batch_size: 20}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def ready(source: Path, *overrides: str) -> Prepared:
    """A training that has taken a step, so that its optimizer remembers something."""
    prepared = prepare(load_config(source, *overrides), data_dir_of(None))
    batch = next(iter(prepared.setup.train_loader.batches(0)))
    train_step(prepared.state, batch, prepared.setup, share=1, lr=0.01)
    return prepared


def flat(value: Any) -> list[Any]:
    """Every tensor and number of nested plain data."""
    if isinstance(value, dict):
        return [part for key in value for part in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [part for item in value for part in flat(item)]
    return [value]


def snapshot(prepared: Prepared) -> list[Any]:
    state = prepared.state
    ema = [] if state.ema is None else flat(state.ema.state_dict())
    gradients = [parameter.grad for parameter in state.model.parameters()]
    fields = (state.epoch, state.batch, state.step, state.running, state.best, state.model.training)
    return deepcopy([*flat(state.model.state_dict()), *flat(state.optimizer.state_dict()), *ema, *gradients, *fields])


def is_same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


OPTIMIZERS = ["{name: sgd, lr: 0.1, momentum: 0.9}", "{name: adam, lr: 0.001}", "{name: rmsprop, lr: 0.001}", "{name: muon, lr: 0.01}"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_range_test_leaves_everything_as_it_was(tiny: Path, optimizer: str) -> None:
    """Weights, buffers, the optimizer's memory, the moving average, gradients, the place in training and the caller's draws: bit-equal."""
    prepared = ready(tiny, f"optim={optimizer}", "train.ema_decay=0.9", "model.norm=before")
    before, randomness = snapshot(prepared), torch.get_rng_state()
    found = find_lr(prepared.state, prepared.setup, low=1e-4, high=100, num_steps=30)
    assert len(found.losses) > 10
    after = snapshot(prepared)
    assert len(after) == len(before)
    assert all(is_same(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(torch.get_rng_state(), randomness)


@pytest.mark.parametrize(("overrides", "parts"), [((), 1), (("train.accumulate=2", "train.batch_size=10"), 2)])
def test_the_losses_are_those_of_real_steps(tiny: Path, overrides: tuple[str, ...], parts: int) -> None:
    """Parity: a plain loop of train_step over the same batches at the same rates; past an epoch's end (10 steps), and with accumulation."""
    prepared = prepare(load_config(tiny, *overrides), data_dir_of(None))
    found = find_lr(prepared.state, prepared.setup, low=1e-4, high=0.1, num_steps=12)
    state, setup, losses = prepared.state, prepared.setup, []
    state.model.train()
    batches = [(epoch, number, batch) for epoch in range(2) for number, batch in enumerate(setup.train_loader.batches(epoch))]
    for place, (epoch, number, batch) in enumerate(batches[: 12 * parts]):
        seed_batch(setup.order_seed, epoch, number)
        lr = found.lrs[place // parts] if place % parts == parts - 1 else None
        losses.append(float(train_step(state, batch, setup, share=1 / parts, lr=lr).loss) / parts)
    assert list(found.losses) == pytest.approx([sum(losses[place : place + parts]) for place in range(0, len(losses), parts)], rel=1e-6)
    assert found.lrs == pytest.approx([1e-4 * 1000 ** (step / 11) for step in range(12)])


def test_the_best_rates_of_a_known_curve() -> None:
    """Smith 2017: flat, then a fall whose steepest place is known, then a rise."""
    lrs = [10 ** (-5 + 6 * place / 99) for place in range(100)]
    losses = [2.3 / (1 + (lr / 1e-3) ** 1.5) + 30 * max(lr - 0.1, 0) for lr in lrs]
    found = _judge(lrs, losses, 5, exploded=False)
    assert found.steepest == pytest.approx(1e-3, rel=0.15)
    assert found.largest == pytest.approx(0.1, rel=0.3)
    assert found.sentence().startswith("try lr 0.001, where the loss falls fastest; the largest that trains is 0.076")
    assert found.sentence().endswith("(beyond it the loss rises)")


def test_a_loss_that_never_falls_is_said() -> None:
    found = _judge([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0], 3, exploded=True)
    assert (found.steepest, found.largest) == (None, None)
    assert found.sentence() == "the loss never fell between lr 1 and 5; begin lower, or look at the network"
    assert _judge([], [], 3, exploded=True) == LrRange((), (), (), None, None, True)
    assert "no loss was a number" in _judge([], [], 3, exploded=True).sentence()


def test_a_range_that_ends_while_the_loss_falls_is_said(tiny: Path) -> None:
    prepared = ready(tiny)
    found = find_lr(prepared.state, prepared.setup, low=1e-4, high=1e-2, num_steps=40)
    assert not found.exploded
    assert found.sentence().endswith("the loss was still falling there: go on higher with --high)") == (found.largest == found.lrs[-1])


def test_an_explosion_ends_the_test(tiny: Path) -> None:
    prepared = ready(tiny)
    found = find_lr(prepared.state, prepared.setup, low=1e-3, high=1e6, num_steps=100)
    assert found.exploded
    assert len(found.losses) < 90
    assert all(map(math.isfinite, found.losses))
    assert found.largest is not None
    assert found.steepest is not None
    assert 1e-3 < found.steepest <= found.largest < 100


@pytest.mark.parametrize(("low", "high", "steps"), [(0, 1, 100), (1, 0.1, 100), (1e-3, math.inf, 100), (1e-3, 1, 3)])
def test_a_wrong_range_is_one_line(tiny: Path, low: float, high: float, steps: int) -> None:
    prepared = ready(tiny)
    with pytest.raises(ConfigError, match="goes nowhere; take 0 < low < high and 10 steps"):
        find_lr(prepared.state, prepared.setup, low=low, high=high, num_steps=steps)


def test_the_command_draws_and_leaves_no_run(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "firstlight", "tune", "lr", str(tiny), "--steps", "40", "--low", "1e-4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["optimizer"] == "sgd"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr-range.png", "tiny.yaml"]
    with Image.open(tmp_path / "lr-range.png") as image:
        assert image.width > 1000
    assert found["steepest"] == tune_lr(tiny, low=1e-4, num_steps=40, out=tmp_path / "again.png")["steepest"]


def test_batches_grow_until_memory_ends_and_the_parent_lives(tmp_path: Path) -> None:
    """D17, fault 25: running out of memory is a result, each in a child of its own; the largest is found to one part in sixteen."""
    experiment = tmp_path / "wide.yaml"
    experiment.write_text(TINY.replace("hidden: [16]", "hidden: [4000]").replace("num_train: 200", "num_train: 1200"))
    randomness = torch.get_rng_state()
    found = tune_batch(experiment, memory_mib=40, out=tmp_path / "batch.png")
    tried = [Probe(**probe) for probe in found["tried"]]
    largest, failed = found["largest"], min(probe.batch_size for probe in tried if not probe.fits)
    assert [probe.batch_size for probe in tried[:5]] == [1, 2, 4, 8, 16]
    assert 32 < largest < failed <= 1200
    assert failed - largest <= max(1, largest // 16)
    assert all(probe.batch_size <= largest for probe in tried if probe.fits)
    assert f"the largest batch that fits is {largest:,} ({failed:,}: out of memory)" in found["says"]
    assert torch.equal(torch.get_rng_state(), randomness)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch.png", "wide.yaml"]


def test_the_limit_ends_the_search_in_one_child(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "firstlight", "tune", "batch", str(tiny), "--limit", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("the largest batch that fits is 6 (larger ones were not tried); the fastest was ")
    assert [line.split(":")[0].split() for line in done.stderr.splitlines()] == [["batch", size] for size in ("1", "2", "4", "6")]


def test_a_child_that_is_killed_is_a_result(tiny: Path) -> None:
    """The system may kill a process that takes too much: that size did not fit, and nothing else happens."""
    child = _Child(tiny, (), None, None)
    assert child.num_images == 200
    assert child.try_size(4).fits
    child._process.kill()
    assert child.try_size(8) == Probe(8, why="out of memory")
    assert not child.alive


@pytest.mark.parametrize(("limit", "fits"), [(100, False), (300, True)])
def test_gradients_and_moments_count_as_what_a_step_takes(tiny: Path, limit: int, fits: bool) -> None:
    """D17: 35 MiB each here, three in all, though steps before the limit have made the moments already."""
    child = _Child(str(tiny), ("model={name: mlp, hidden: [3000, 3000]}", "optim=adam"), limit, None)
    assert child.try_size(1).fits is fits
    child.close()


def test_what_is_no_want_of_memory_is_said(tiny: Path) -> None:
    """A step that fails for another reason says which, and the process goes on."""
    child = _Child(tiny, (), None, None)
    assert child.try_size(0).why == "ZeroDivisionError: integer division or modulo by zero"
    assert child.alive
    assert child.try_size(4).fits
    child.close()


def test_an_experiment_that_is_wrong_is_one_line(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="lenett"):
        find_batch_size(tiny, "model=lenett")
    with pytest.raises(ConfigError, match="leave nothing to try; take numbers above 0"):
        tune_batch(tiny, memory_mib=0)


@pytest.mark.parametrize(
    ("most", "fits", "expected"), [(100, 100, (100, None)), (100, 70, (64, 100)), (7, 1, (1, 2)), (7, 0, (0, 1)), (1, 1, (1, None))]
)
def test_doubling(most: int, fits: int, expected: tuple[int, int | None]) -> None:
    assert _doubling(lambda size: size <= fits, most) == expected


def test_what_is_free_is_the_least_of_machine_and_group(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    assert available_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4000 kB\nMemAvailable: 2000 kB\n")
    assert available_memory(tmp_path) == pytest.approx(0.9 * 2000 * 1024)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000\n")
    assert available_memory(tmp_path) == pytest.approx(0.9 * 2000 * 1024)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("101000\n")
    assert available_memory(tmp_path) == pytest.approx(0.9 * 100_000)


def test_a_size_is_shown_in_one_line() -> None:
    assert show_probe(Probe(64, 1234.5, 300.0)) == "batch      64:        1,234 images/s, peak 300 MiB"
    assert show_probe(Probe(64, why="out of memory")) == "batch      64: out of memory"
