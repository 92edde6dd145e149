"""What a training records and says, and the figures that courses give for their networks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.config.schema import DeviceConfig
from firstlight.data.build import make_train_loader
from firstlight.data.draws import permutation
from firstlight.data.normalize import Normalize
from firstlight.engine.checkpoint import read_checkpoint, step_folders
from firstlight.engine.device import Arithmetic, choose_device
from firstlight.engine.probe import settle
from firstlight.engine.train import prepare
from firstlight.errors import ConfigError, DataError, DivergedError
from firstlight.models.linear import Linear
from firstlight.tracking.console import Console

Train = Callable[..., fl.Run]


def test_one_json_line_an_epoch_holds_what_the_course_asks(train: Train) -> None:
    """D13: lr, time, loss, accuracy, memory, parameter and FLOP counts; a log file beside it."""
    run = train()
    row = run.epochs[-1]
    keys = {
        "epoch",
        "step",
        "lr",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
        "memory_mib",
        "num_parameters",
        "flops_per_image",
    }
    assert keys <= row.keys()
    assert (row["num_parameters"], row["flops_per_image"]) == (64 * 16 + 16 + 16 * 10 + 10, 2 * (64 * 16 + 16 * 10))
    assert row["memory_mib"] > 50
    log = (run.path / "log.txt").read_text()
    assert "epoch   2   train loss" in log
    assert all(line[2] == line[5] == ":" for line in log.splitlines())


def test_the_run_says_what_it_was_made_with(train: Train) -> None:
    info = train().info
    assert info["environment"]["packages"]["torch"] == torch.__version__
    assert info["arithmetic"] == {"device": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1, "probe": None}
    assert (info["data"]["num_train"], info["data"]["num_val"], info["data"]["image_shape"]) == (200, 144, [1, 8, 8])
    assert info["state"] == "finished"


def test_the_course_counts_391_steps_an_epoch() -> None:
    """A2: 50,000 images in batches of 128 are 391 steps; the shipped experiment keeps 2 % back, and says how to get all."""
    config = fl.load_config("cifar10_cnn5", "split.val_fraction=0")
    assert (config.train.batch_size, config.train.epochs, config.optim.options["lr"], config.input.normalize) == (128, 20, 0.1, "none")
    images = fl.make_dataset(torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8), torch.zeros(50_000), ["a"], "zeros")
    loader = make_train_loader(config, images, Normalize.identity(1), seed=0, device="cpu", channels_last=False)
    assert loader.num_batches == 391


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mnist_linear", 7_850), ("mnist_mlp", 109_386), ("mnist_scratch", 109_386), ("mnist_900", 1_531_598)],
)
def test_shipped_networks_have_the_published_size(name: str, parameters: int) -> None:
    """C1, B4, E9."""
    model = fl.build_model(fl.load_config(name).model, (1, 28, 28), 10, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_floats_and_bytes_train_to_the_same_bits() -> None:
    """A12: uint8 and float input give the same result, because floats that are k/255 are stored as uint8."""
    digits = fl.load_data("digits")
    floats = fl.make_dataset(digits.images.float() / 255, digits.labels, digits.class_names, "floats")
    assert floats.images.dtype == torch.uint8
    assert torch.equal(floats.images, digits.images)


@pytest.mark.parametrize("crop", [0, 2])
def test_images_are_held_once(crop: int) -> None:
    """A12: what the loaders keep is one copy of the pixels (padded where crops are cut), in bytes."""
    config = fl.load_config(
        "quickstart", f"augment.crop={crop}", device={"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1}
    )
    setup = prepare(config, Path()).setup
    assert setup.val_loader is not None
    held = [loader._store.pixels for loader in (setup.train_loader, setup.val_loader)]
    assert [tensor.dtype for tensor in held] == [torch.uint8] * 2
    assert sum(tensor.untyped_storage().nbytes() for tensor in held) == 1294 * (8 + 2 * crop) ** 2 + 144 * 64


def test_a_diverging_loss_ends_the_run_and_keeps_the_checkpoint(train: Train, tmp_path: Path) -> None:
    """Fault 24: step, batch, lr and remedy in one line, the images in a report; the state says failed; the last good checkpoint stays."""
    with pytest.raises(
        DivergedError,
        match=r"^the loss became nan at step 2 \(epoch 1, batch 1, lr 9.87e\+29\); checkpoint step-1-batch-1 is kept, .*smaller optim\.lr",
    ):
        train("optim.lr=1e30", "train.log_every=100", "checkpoint.every_steps=1")
    run = fl.load_run(tmp_path / "runs" / "run")
    assert run.state == "failed"
    report = json.loads((run.path / "nan_report.json").read_text())
    assert (report["step"], report["batches"], len(report["images"])) == (2, [1], 32)
    assert report["images"] == permutation(200, 0, 0)[32:64].tolist()
    assert "model.linear1.weight" in report["tensors"]
    assert_all_finite(run)


def assert_all_finite(run: fl.Run) -> None:
    """What is saved is good: weights, buffers, averages, the optimizer's memory."""
    saved = step_folders(run.path / "checkpoints")
    assert saved
    for path in saved:
        tensors = [tensor for file in read_checkpoint(path).tensors.values() for tensor in file.values()]
        assert tensors and all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("ema", ["train.ema_decay=0", "train.ema_decay=0.9"])
def test_weights_that_are_not_finite_never_become_a_checkpoint(train: Train, tmp_path: Path, ema: str) -> None:
    """Fault 24: the one step of this run has a finite loss and gradient; the weights behind it are not finite."""
    with pytest.raises(DivergedError, match=r"model\.linear1\.bias.* became not finite at step 1 .*; nothing was saved yet"):
        train("optim={name: sgd, lr: 1e39}", "train.epochs=1", "train.batch_size=1000", "split.val_fraction=0", ema)
    run = fl.load_run(tmp_path / "runs" / "run")
    assert run.steps[0]["loss"] < 10 and run.steps[0]["grad_norm"] < 100
    assert not (run.path / "checkpoints" / "last.json").exists()


def test_a_broken_gradient_is_found_within_a_log_interval(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 24: the step whose gradient was infinite is named, though the losses are fetched later."""

    def break_one(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        calls.append(1)
        norms = list(real(gradients))
        return [norm * torch.inf for norm in norms] if len(calls) == 6 else norms  # the first call is about the initial weights

    calls: list[int] = []
    real = torch._foreach_norm
    monkeypatch.setattr(torch, "_foreach_norm", break_one)
    with pytest.raises(DivergedError, match=r"the gradient became inf at step 5 \(epoch 1, batch 4,"):
        train("train.log_every=7")


def test_a_roll_back_halves_the_rate_and_trains_on(train: Train) -> None:
    """Fault 24: policy rollback, from the last good checkpoint; rows are written once."""
    run = train("optim={name: sgd, lr: 1e10}", "schedule=constant", "train.on_divergence=rollback")
    assert run.state == "finished"
    assert [entry["lr_scale"] for entry in run.info["rollbacks"]] == [0.5, 0.25]
    assert [(row["step"], row["lr"]) for row in run.steps] == [(step, 2.5e9) for step in range(1, 15)]
    assert_all_finite(run)


def test_after_three_roll_backs_a_run_gives_up(train: Train, tmp_path: Path) -> None:
    """Fault 24: at most 3 times."""
    with pytest.raises(DivergedError, match=r"it went back 3 times, down to lr x 0\.125, in vain"):
        train("optim={name: sgd, lr: 1e14}", "schedule=constant", "train.on_divergence=rollback")
    assert len(fl.load_run(tmp_path / "runs" / "run").info["rollbacks"]) == 3


def test_a_test_set_that_is_missing_does_not_cost_the_summary(tmp_path: Path) -> None:
    """F4: the seal is broken at the very end; what was learned until then is on record."""
    write_idx(tmp_path / "MNIST" / "raw")
    with pytest.raises(DataError, match="t10k"):
        fl.train(
            "mnist_linear",
            "train.test_at_end=true",
            "train.epochs=1",
            name="x",
            runs_dir=tmp_path,
            data_dir=tmp_path,
            console=Console(quiet=True),
        )
    assert "val_accuracy" in fl.load_run(tmp_path / "x").summary


def write_idx(folder: Path) -> None:
    """Write a training part of 60 images in MNIST's form, and no test part."""
    folder.mkdir(parents=True)
    images = b"".join(number.to_bytes(4, "big") for number in (2051, 60, 28, 28)) + bytes(range(60)) * 784
    labels = b"".join(number.to_bytes(4, "big") for number in (2049, 60)) + bytes(range(10)) * 6
    (folder / "train-images-idx3-ubyte").write_bytes(images)
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)


def test_a_batch_larger_than_the_data_is_one_batch(train: Train) -> None:
    """Fault 34."""
    assert [row["step"] for row in train("train.batch_size=5000").steps] == [1, 2]


def test_a_last_batch_of_one_passes_batch_norm(train: Train) -> None:
    """Fault 34: 193 images in batches of 32 leave one."""
    run = train("model={name: mlp, hidden: [16], norm: before}", "split.num_train=193")
    assert run.steps[-1]["loss"] < 10


def test_training_without_validation_takes_the_last_epoch_as_best(train: Train) -> None:
    run = train("split.val_fraction=0")
    assert run.summary["best_epoch"] == 2
    assert "val_accuracy" not in run.epochs[0]


def test_a_device_that_is_not_here_is_refused() -> None:
    """A10."""
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"device\.name is 'cuda', but this machine .* has .*cpu"):
            choose_device("cuda")


def test_what_was_settled_once_is_settled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timed choice is kept in the cache, so that the same machine trains in the same arithmetic again."""
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path))
    model = Linear((1, 8, 8), 10)
    found = settle(DeviceConfig(name="cpu"), model, (1, 8, 8), 10)
    kept = next((tmp_path / "arithmetic").glob("*.json"))
    other = Arithmetic("cpu", "float32", "contiguous", 7)
    kept.write_text(json.dumps(other.__dict__))
    assert found.device == "cpu"
    assert settle(DeviceConfig(name="cpu"), model, (1, 8, 8), 10) == other


def test_what_the_config_names_is_not_timed() -> None:
    named = DeviceConfig(name="cpu", precision="bfloat16", memory_format="channels_last", threads=3)
    assert settle(named, Linear((1, 8, 8), 10), (1, 8, 8), 10) == Arithmetic("cpu", "bfloat16", "channels_last", 3)


def test_training_in_bfloat16_keeps_float32_weights(train: Train) -> None:
    run = train("device={name: cpu, precision: bfloat16, memory_format: contiguous, threads: 1}")
    assert {weight.dtype for weight in fl.load_model(run.path).state_dict().values()} == {torch.float32}
    assert run.epochs[-1]["train_loss"] < run.epochs[0]["train_loss"]


def test_the_public_names() -> None:
    """`import firstlight as fl` offers what the commands do."""
    assert len(fl.__all__) == 18
    assert all(getattr(fl, name) for name in fl.__all__)
    assert set(fl.__all__) <= set(dir(fl))
    with pytest.raises(AttributeError):
        _ = fl.nothing
