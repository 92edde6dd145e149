"""Checkpoints: what is kept, what is refused, and what a run can be rebuilt from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import firstlight as fl
from firstlight.engine.checkpoint import find_checkpoint, load_weights, read_record
from firstlight.errors import CheckpointError, RunNotFoundError
from firstlight.files import tensors_to_chunks
from firstlight.models.mlp import MLP

Train = Callable[..., fl.Run]


def folders(run: fl.Run) -> set[str]:
    return {path.name for path in (run.path / "checkpoints").glob("step-*")}


def test_last_and_best_are_kept_and_the_rest_is_dropped(train: Train) -> None:
    """D12: epoch, model, optimizer, schedule and best figure; last and a true best."""
    run = train("train.epochs=6", "optim.lr=0.5", "checkpoint.keep_last=1")
    best = max(run.epochs, key=lambda row: row["val_accuracy"])
    assert folders(run) == {f"step-{best['step']}", "step-42"} and best["step"] < 42
    assert folders(train("train.epochs=6", "checkpoint.keep_last=3", name="three")) >= {"step-28", "step-35", "step-42"}
    record = read_record(find_checkpoint(run.path / "checkpoints", "best"))
    assert record["position"]["epoch"] == best["epoch"] == run.summary["best_epoch"]
    assert (record["best"]["epoch"], record["best"]["step"], record["best"]["value"]) == (best["epoch"], best["step"], best["val_accuracy"])
    assert record["best"]["figures"]["train_loss"] == best["train_loss"]


def test_a_save_period_keeps_checkpoints_for_good(train: Train) -> None:
    """D12: a save period."""
    assert {"step-14", "step-28", "step-42"} <= folders(train("train.epochs=6", "checkpoint.keep_every=2"))


def test_patience_ends_a_training_and_restores_the_best(train: Train) -> None:
    """B12: early stopping with patience; the best checkpoint is the one that evaluation uses."""
    run = train("train.epochs=30", "train.patience=2", "optim.lr=0.5")
    best = run.summary["best_epoch"]
    assert len(run.epochs) == best + 2 < 30
    assert fl.evaluate(run.path)["accuracy"] == pytest.approx(run.epochs[best - 1]["val_accuracy"])


def test_evaluation_uses_the_moving_average(train: Train) -> None:
    run = train("train.ema_decay=0.9")
    path = find_checkpoint(run.path / "checkpoints", "best")
    assert (path / "ema.safetensors").is_file()
    assert fl.evaluate(run.path)["loss"] == pytest.approx(run.epochs[-1]["val_loss"])


def test_a_run_rebuilds_its_network_alone(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """B11: from the run folder, without the user's class file."""
    run = train("model={name: mlp, hidden: [7, 5], activation: gelu, norm: after}")
    monkeypatch.chdir(tmp_path)
    model = fl.load_model(run.path)
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 2] == [(7, 64), (5, 7), (10, 5)]
    assert not model.training


def test_another_architecture_is_refused_with_its_layers() -> None:
    """B11, fault 20: every layer that differs, in one message."""
    small, large = MLP((1, 8, 8), 10, hidden=(4,)), MLP((1, 8, 8), 20, hidden=(4, 3))
    with pytest.raises(CheckpointError) as caught:
        load_weights(large, small.state_dict(), Path("x"))
    message = str(caught.value)
    assert "linear2.weight is [10, 4] there and [3, 4] in the model" in message
    assert "linear3.bias is missing" in message
    assert "\n" not in message


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "not-safetensors", "missing"])
def test_damage_is_named_and_nothing_loads(train: Train, damage: str) -> None:
    """F12, fault 16."""
    run = train("train.epochs=1")
    path = find_checkpoint(run.path / "checkpoints", "best") / "model.safetensors"
    content = path.read_bytes()
    spoilt = {
        "flip": content[:-5] + bytes([content[-5] ^ 4]) + content[-4:],
        "truncate": content[:-1],
        "empty": b"",
        "not-safetensors": b"x" * 100,
    }
    path.write_bytes(spoilt[damage]) if damage in spoilt else path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        fl.load_model(run.path)


def test_a_run_without_a_checkpoint_says_so(train: Train) -> None:
    run = train("train.epochs=1")
    (run.path / "checkpoints" / "best.json").unlink()
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        fl.load_model(run.path)
    with pytest.raises(RunNotFoundError):
        fl.load_model(run.path / "nothing")


def test_tensors_are_written_as_the_library_writes_them() -> None:
    """Byte for byte, whatever their type, shape and order in memory; safetensors itself reads them back."""
    tensors = {
        "filters": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "large": torch.rand(700, 800),
        'naïve "name"': torch.rand(3).to(torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "count": torch.tensor(7),
        "turned": torch.rand(5, 6).T,
    }
    written = b"".join(tensors_to_chunks(tensors))
    assert written == save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load(written).items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without CUDA")
def test_a_run_from_a_gpu_is_evaluated_on_the_cpu(train: Train) -> None:
    """Fault 21: another device loads."""
    run = train("train.epochs=1")
    here = fl.evaluate(run.path)["loss"]
    info = {**run.info, "arithmetic": {"device": "cuda", "precision": "bfloat16", "memory_format": "channels_last", "threads": 1}}
    (run.path / "run.json").write_text(json.dumps(info))
    assert fl.evaluate(run.path)["loss"] == pytest.approx(here, rel=1e-4)
