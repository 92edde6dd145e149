"""F7: signs that a training goes nowhere, warned of once while it runs; a training that works is left in peace."""

import json
import math
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.engine.health import Watch, explodes, learned_nothing, median_norms, overfits, stuck, unmoved
from firstlight.tracking.console import Console

CHANCE = math.log(10)


def epoch(number: int, train: float, val: float | None = None, *, accuracy: float = 0.1, steps: int = 200) -> dict[str, float | str | None]:
    """The row of an epoch."""
    row = {"kind": "epoch", "epoch": number, "step": number * steps, "train_loss": train, "train_accuracy": accuracy}
    return row | ({} if val is None else {"val_loss": val})  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("loss", "accuracy", "nothing"),
    [
        (CHANCE, 0.1, True),
        (CHANCE * 1.019, 0.19, True),
        (CHANCE * 1.021, 0.1, False),
        (CHANCE * 0.979, 0.1, False),
        (CHANCE, 0.2, False),
        (None, None, False),
    ],
)
def test_a_loss_at_chance_with_an_accuracy_of_guessing_is_nothing_learned(
    loss: float | None, accuracy: float | None, nothing: bool
) -> None:
    assert learned_nothing(loss, accuracy, 10) is nothing


def test_a_loss_is_stuck_after_two_epochs_and_enough_steps() -> None:
    rows = [epoch(1, 2.31), epoch(2, 2.302)]
    assert "still stands at ln(10) = 2.303 after 400 steps" in str(stuck(rows, 10))
    assert stuck(rows[:1], 10) is None  # one epoch of 200 steps may be a slow start
    assert stuck([epoch(1, 2.31, steps=400)], 10) is not None
    assert stuck([epoch(1, 2.31, steps=50), epoch(2, 2.302, steps=50)], 10) is None
    assert stuck([epoch(1, 2.31), epoch(2, 2.1, accuracy=0.25)], 10) is None


def test_a_validation_loss_that_rises_three_times_overfits() -> None:
    train = [0.5, 0.3, 0.2, 0.1, 0.05]
    rows = [epoch(n, t, v) for n, (t, v) in enumerate(zip(train, [0.5, 0.4, 0.45, 0.49, 0.51], strict=True), 1)]
    assert "rose from 0.4000 (epoch 2) to 0.5100 while the training loss fell to 0.0500" in str(overfits(rows))
    assert overfits(rows[:-1]) is None  # two rises
    assert overfits([*rows[:-1], epoch(5, 0.05, 0.48)]) is None  # it fell again
    assert overfits([*rows[:-1], epoch(5, 0.35, 0.51)]) is None  # training got worse too: that is another trouble
    assert overfits([*rows[:-1], epoch(5, 0.05, 0.494)]) is None  # by less than a quarter
    assert overfits([epoch(n, t) for n, t in enumerate(train, 1)]) is None  # nothing was validated


@pytest.mark.parametrize(
    ("medians", "bad"), [([2.0, 1.0, 30.0], False), ([2.0, 201.0], True), ([1500.0], True), ([0.001, 0.5], False), ([], False)]
)
def test_gradient_norms_explode_beyond_a_thousand_or_a_hundredfold(medians: list[float], bad: bool) -> None:
    assert (explodes(medians) is not None) is bad


def test_weights_that_did_not_move_are_named() -> None:
    assert unmoved([]) is None
    assert "did not move a, b, c and 2 more" in str(unmoved(["a", "b", "c", "d", "e"]))


def test_a_watch_that_takes_over_in_an_epoch_says_the_same() -> None:
    """D3: rows that are there already count as if they had been seen; what was said is not said again."""
    steps = [{"kind": "step", "step": n, "epoch": 1 + n // 4, "grad_norm": 1.0 if n < 4 else 500.0} for n in range(8)]
    rows = [*steps[:4], epoch(1, 1.0), *steps[4:6]]
    watch = Watch(rows, [], num_classes=10, clipped=False)
    watch.norms += [row["grad_norm"] for row in steps[6:]]  # type: ignore[misc]
    assert watch.close_epoch(epoch(2, 1.0)).keys() == {"explodes"}
    assert watch.medians == median_norms(steps) == [1.0, 500.0]
    assert Watch(rows, ["explodes"], num_classes=10, clipped=False).close_epoch(epoch(2, 1.0)) == {}
    assert Watch(rows, [], num_classes=10, clipped=True).close_epoch(epoch(2, 1.0)) == {}


SMALL = """
data: digits
model: {name: mlp, hidden: [16]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
train: {epochs: 12, batch_size: 32, log_every: 7}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""


def train(folder: Path, *overrides: str, name: str = "run", resume: bool = False) -> fl.Run:
    """Train in the open, so that the log holds what was said."""
    config = folder / "small.yaml"
    config.write_text(SMALL)
    if resume:
        return fl.resume(name, *overrides, runs_dir=folder, console=Console(quiet=True))
    return fl.train(config, *overrides, name=name, runs_dir=folder, console=Console(quiet=True))


def test_a_run_that_learns_nothing_says_so_once(tmp_path: Path) -> None:
    """C3, F7: zero weights and zero learning; each warning stands once in the log and in run.json."""
    run = train(tmp_path, "model.init=zeros", "optim.lr=1e-4")
    kinds = [(entry["kind"], entry["epoch"]) for entry in run.info["warnings"]]
    assert kinds == [("unmoved", 1), ("stuck", 5)]  # 41 steps an epoch, 200 before it counts
    log = (run.path / "log.txt").read_text()
    assert log.count("still stands at ln(10)") == log.count("did not move linear1.weight, linear2.weight") == 1


def test_an_interrupted_run_warns_as_one_that_was_not(tmp_path: Path) -> None:
    """D3: a run that is taken up again keeps its warnings, adds those to come, and repeats none."""
    whole = train(tmp_path, "model.init=zeros", "optim.lr=1e-4", name="whole")
    train(tmp_path, "model.init=zeros", "optim.lr=1e-4", "train.epochs=3", name="parts")
    parts = train(tmp_path, "train.epochs=12", name="parts", resume=True)
    assert parts.info["warnings"] == whole.info["warnings"]


def test_an_overfitting_run_says_so_once(tmp_path: Path) -> None:
    """60 images and 19,000 weights: the validation loss triples while the training loss goes to 0."""
    small = ["split={num_train: 60, val_fraction: 0.5}", "model.hidden=[256]", "optim.lr=0.5", "train.epochs=20"]
    run = train(tmp_path, *small)
    (entry,) = run.info["warnings"]
    assert entry["kind"] == "overfits"
    first = next(end for end in range(1, 21) if overfits(run.epochs[:end]) is not None)
    assert entry["epoch"] == first < 15
    assert (run.path / "log.txt").read_text().count("it overfits") == 1


def test_a_healthy_run_says_nothing(tmp_path: Path) -> None:
    run = train(tmp_path)
    assert "warnings" not in run.info
    assert "warning" not in (run.path / "log.txt").read_text()


def test_warnings_are_plain_data(tmp_path: Path) -> None:
    run = train(tmp_path, "model.init=zeros", "train.epochs=1")
    (entry,) = json.loads((run.path / "run.json").read_text())["warnings"]
    assert entry.keys() == {"epoch", "kind", "says"} and entry["epoch"] == 1
