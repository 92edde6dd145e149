"""One step against plain PyTorch, and the loop against a plain loop over the reference data order."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import firstlight as fl
from firstlight.config.schema import Config, Kind
from firstlight.data.build import load_training_data, make_train_loader
from firstlight.data.draws import permutation
from firstlight.data.interpolation import resize_images
from firstlight.engine.loop import train_one_epoch
from firstlight.engine.record import Recorder
from firstlight.engine.seeding import private_randomness
from firstlight.engine.signals import StopRequest
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import train_step
from firstlight.engine.train import draw_pictures, prepare
from firstlight.errors import ConfigError
from firstlight.optim.build import OPTIMIZERS, build_optimizer
from firstlight.tracking.console import Console
from firstlight.tracking.writer import RunWriter

Train = Callable[..., fl.Run]
FIXED = {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1}


def small(*overrides: str) -> Config:
    return fl.load_config("quickstart", *overrides, model={"name": "mlp", "hidden": [16]}, split={"num_train": 200}, device=FIXED)


def test_training_equals_a_plain_loop(train: Train) -> None:
    """A8 and habit 3: the same numbers as twelve lines of PyTorch over the same order."""
    run = train("schedule=constant", "train.batch_size=64")
    data = load_training_data(fl.load_config(run.path / "config.yaml"), Path())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    model.load_state_dict(
        dict(
            zip(
                model.state_dict(), fl.build_model(Kind("mlp", {"hidden": (16,)}), (1, 8, 8), 10, seed=0).state_dict().values(), strict=True
            )
        )
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = data.record.normalize.apply(data.train.images), data.train.labels
    assert labels is not None
    for epoch in range(2):
        for indices in permutation(200, 0, epoch).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[indices]), labels[indices]).backward()
            optimizer.step()
    for ours, plain in zip(fl.load_model(run, which="last").state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


EVERYTHING = [
    "train.clip_norm=0.1",
    "train.ema_decay=0.9",
    "train.label_smoothing=0.1",
    "train.accumulate=3",
    "augment={flip: true, crop: 1, rotation: 10, color_jitter: 0.2, cutout: 3}",
]


def on_meta(config: Config) -> tuple[TrainState, Setup]:
    """Return a training whose data, network and optimizer live on the meta device, where no number exists."""
    prepared = prepare(config, Path())
    state, data = prepared.state, load_training_data(config, Path())
    for model in (state.model, state.ema):
        if model is not None:
            model.to("meta")
    state.optimizer = build_optimizer(config.optim, state.model)
    loader = make_train_loader(config, data.train, data.record.normalize, seed=0, device="meta", channels_last=True)
    return state, replace(prepared.setup, train_loader=loader)


@pytest.mark.parametrize("settings", [[], EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_epoch_does_not_wait_for_the_device(tmp_path: Path, optimizer: str, settings: list[str]) -> None:
    """No synchronisation from the loader to the last step: any read of a number on the meta device raises."""
    config = fl.load_config("quickstart", f"optim={optimizer}", "train.log_every=1000", *settings, split={"num_train": 200}, device=FIXED)
    state, setup = on_meta(config)
    with RunWriter(tmp_path / "run") as writer, private_randomness():
        recorder = Recorder(writer, Console(quiet=True), facts={}, config={}, resume_line="")
        train_one_epoch(state, setup, recorder, StopRequest())
        assert (state.batch, state.step) == (setup.train_loader.num_batches, setup.steps_per_epoch)
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            recorder.fetch(state, setup)


@pytest.mark.parametrize("num_train", [192, 200], ids=["even", "odd-last-batch"])
def test_accumulation_equals_the_larger_batch(train: Train, num_train: int) -> None:
    """train.accumulate=2 with batches of 32 is one step on 64, on an odd last group too."""
    whole = train("train.batch_size=64", f"split.num_train={num_train}", name="whole")
    parts = train("train.batch_size=32", "train.accumulate=2", f"split.num_train={num_train}", name="parts")
    assert len(whole.steps) == len(parts.steps)
    for a, b in zip(whole.steps, parts.steps, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_clipping_bounds_the_gradient() -> None:
    prepared = prepare(small("train.clip_norm=0.001", "optim={name: sgd, lr: 1.0}"), Path())
    before = [parameter.detach().clone() for parameter in prepared.state.model.parameters()]
    train_step(prepared.state, next(prepared.setup.train_loader.batches(0)), prepared.setup, share=1.0, lr=1.0)
    moved = torch.cat([(new - old).flatten() for new, old in zip(prepared.state.model.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.001, rel=1e-3)


def test_label_smoothing_is_that_of_torch() -> None:
    prepared = prepare(small("train.label_smoothing=0.3"), Path())
    batch = next(prepared.setup.train_loader.batches(0))
    expected = cross_entropy(prepared.state.model(batch.images), batch.labels, label_smoothing=0.3)
    result = train_step(prepared.state, batch, prepared.setup, share=1.0, lr=0.1)
    torch.testing.assert_close(result.loss, expected.detach())


def test_the_moving_average_follows_the_weights() -> None:
    prepared = prepare(small("train.ema_decay=0.75"), Path())
    state = prepared.state
    start = [parameter.detach().clone() for parameter in state.model.parameters()]
    train_step(state, next(prepared.setup.train_loader.batches(0)), prepared.setup, share=1.0, lr=0.1)
    for average, now, before in zip(state.ema.parameters(), state.model.parameters(), start, strict=True):
        torch.testing.assert_close(average.detach(), 0.75 * before + 0.25 * now.detach())


def test_the_learning_rate_used_is_recorded_for_each_step(train: Train) -> None:
    """B6, D19: the lr really used, warm-up included, stands in the row of its step."""
    run = train("schedule={name: linear, warmup_epochs: 1}", "train.epochs=2", "optim={name: sgd, lr: 0.7}")
    lrs = [row["lr"] for row in run.steps]
    assert [row["step"] for row in run.steps] == list(range(1, 15))
    assert lrs[:7] == pytest.approx([0.7 * (step + 1) / 7 for step in range(7)])
    assert lrs[7:] == pytest.approx([0.7 * (1 - step / 7) for step in range(7)])
    assert draw_pictures(run)[1].stat().st_size > 10_000


def test_a_plateau_lowers_the_learning_rate(train: Train) -> None:
    """B6: a dynamic schedule sees the validation loss."""
    run = train("schedule={name: plateau, patience: 1, gamma: 0.5, threshold: 0.9}", "train.epochs=6", "train.batch_size=200")
    assert [row["lr"] for row in run.epochs] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]


def test_early_steps_see_smaller_images(train: Train) -> None:
    """F9 (progressive resizing): the first half of the steps is that of a training on smaller images, and none of the second half."""
    common = ["model={name: small_cnn, widths: [4, 8]}", "schedule=constant", "train.epochs=2", "train.log_every=1"]
    assert resize_images(torch.rand(3, 1, 8, 8), 4).shape == (3, 1, 4, 4)
    plain = [row["loss"] for row in train(*common, name="plain").steps]
    half = [row["loss"] for row in train(*common, "train.early_size=6", name="half").steps]
    late = [row["loss"] for row in train(*common, "train.early_size=6", "train.early_share=0.25", name="late").steps]
    first = -(-len(plain) // 4)
    assert half[:first] == late[:first]
    assert half[0] != plain[0]
    assert half[first] != late[first]
    never = [row["loss"] for row in train(*common, "train.early_size=6", "train.early_share=0", name="never").steps]
    assert never == plain


def test_a_network_of_one_size_refuses_smaller_images(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"train.early_size is 6, but mlp does not take images of that size .* set train.early_size=null"):
        train("model=mlp", "train.early_size=6")


def test_running_totals_do_not_depend_on_how_many_steps_are_fetched_at_a_time(train: Train) -> None:
    """F3: train_loss and train_accuracy have the same bits, whatever log_every is and wherever a checkpoint fetches in between."""
    rows = [
        train("train.batch_size=30", f"train.log_every={log_every}", *more, name=f"{log_every}-{len(more)}").epochs
        for log_every, *more in ((1,), (3,), (1000,), (1000, "checkpoint.every_steps=2"))
    ]
    figures = [[(row["train_loss"], row["train_accuracy"]) for row in epochs] for epochs in rows]
    assert figures[1:] == figures[:1] * 3


@pytest.mark.parametrize("accumulate", [1, 3])
def test_rows_and_totals_are_those_of_the_batches(train: Train, accumulate: int) -> None:
    """A7: a step's loss is the mean over its images, and the epoch's figures those over all images as the weights then were."""
    run = train("train.batch_size=30", f"train.accumulate={accumulate}", "optim={name: sgd, lr: 1.0e-30}", "train.epochs=1")
    prepared = prepare(fl.load_config(run.path / "config.yaml"), Path())
    batches = list(prepared.setup.train_loader.batches(0))
    with torch.no_grad():
        logits = [prepared.state.model(batch.images) for batch in batches]
        losses = [float(cross_entropy(out, batch.labels, reduction="sum")) for out, batch in zip(logits, batches, strict=True)]
    correct = sum(int((out.argmax(1) == batch.labels).sum()) for out, batch in zip(logits, batches, strict=True))
    num_images = [len(batch.labels) for batch in batches]
    groups = [slice(first, first + accumulate) for first in range(0, len(batches), accumulate)]
    means = [sum(losses[group]) / sum(num_images[group]) for group in groups]
    assert [row["loss"] for row in run.steps] == pytest.approx(means, rel=1e-5)
    assert run.epochs[0]["train_loss"] == pytest.approx(sum(losses) / 200, rel=1e-5)
    assert run.epochs[0]["train_accuracy"] == correct / 200
