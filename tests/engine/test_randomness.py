"""Randomness is a function of (seed, epoch, index): nothing global is read or left changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import dropout

import firstlight as fl
from firstlight.engine.device import is_present
from firstlight.engine.seeding import mix, private_randomness, seed_batch

Train = Callable[..., fl.Run]


def losses(run: fl.Run) -> list[float]:
    return [row["loss"] for row in run.steps]


DROPOUT = "model={name: mlp, hidden: [16], dropout: 0.5}"


def test_the_same_seed_gives_the_same_numbers_whatever_the_caller_drew(train: Train) -> None:
    first = train(DROPOUT, "augment.flip=true", name="first")
    torch.rand(100)
    assert losses(train(DROPOUT, "augment.flip=true", name="again")) == losses(first)
    assert losses(train(DROPOUT, "augment.flip=true", "seed=1", name="other")) != losses(first)


def test_training_leaves_the_callers_generator_as_it_was(train: Train) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(DROPOUT)
    assert torch.equal(torch.rand(3), expected)


def test_the_seeds_of_weights_and_of_order_are_apart(train: Train) -> None:
    """C6: separate seeds for initial weights and for the order of the data; both are recorded."""
    base, init, order = train(name="base"), train("init_seed=1", name="init"), train("order_seed=1", name="order")
    assert len({tuple(losses(run)) for run in (base, init, order)}) == 3
    assert init.info["seeds"] == {"seed": 0, "init_seed": 1, "order_seed": None, "split_seed": 0}
    assert base.info["data"]["val_hash"] == init.info["data"]["val_hash"]


def test_looking_more_often_changes_nothing(train: Train) -> None:
    """Same seed, same numbers: saving, logging and opening the test set leave the training alone."""
    plain = train(DROPOUT, name="plain")
    watched = train(DROPOUT, "train.log_every=1", "checkpoint.every_steps=1", "train.test_at_end=true", name="watched")
    assert losses(watched) == losses(plain)


@pytest.mark.parametrize("device", [device for device in ("cpu", "cuda", "mps") if is_present(device)])
def test_draws_on_a_batch_are_a_function_of_seed_epoch_and_batch(device: str) -> None:
    """Whatever draws in a network, a dropout layer or a function: its masks come from where the training stands."""

    def masks(*where: int) -> torch.Tensor:
        seed_batch(*where, device=device)
        return torch.stack([dropout(torch.ones(64, device=device), 0.5) for _ in range(2)])

    with private_randomness(device):
        base = masks(0, 1, 2)
        torch.rand(5, device=device)
        assert torch.equal(masks(0, 1, 2), base)
        assert not torch.equal(base[0], base[1])
        assert not any(torch.equal(masks(*where), base) for where in ((1, 1, 2), (0, 2, 2), (0, 1, 3), (1, 0, 2)))


def test_seeding_a_batch_gives_what_torch_gives_for_that_seed() -> None:
    with private_randomness():
        seed_batch(3, 4, 5)
        ours = torch.rand(9)
        torch.manual_seed(mix(3, 4, 5))
        assert torch.equal(ours, torch.rand(9))


@pytest.mark.parametrize("device", [device for device in ("cpu", "cuda", "mps") if is_present(device)])
def test_the_callers_generators_come_back_even_after_an_error(device: str) -> None:
    def draws() -> list[torch.Tensor]:
        return [torch.rand(3), torch.rand(3, device=device).cpu()]

    with private_randomness(device):
        torch.manual_seed(7)
        expected = draws()
        torch.manual_seed(7)
        with pytest.raises(KeyError), private_randomness(device):
            seed_batch(0, 0, 0, device=device)
            draws()
            raise KeyError
        for now, then in zip(draws(), expected, strict=True):
            assert torch.equal(now, then)


def test_mixed_seeds_differ() -> None:
    values = {mix(seed, epoch, batch) for seed in range(5) for epoch in range(5) for batch in range(40)}
    assert len(values) == 1000
    assert all(0 <= value < 2**63 for value in values)


@pytest.mark.parametrize(
    "networks", [("mlp, hidden: [9]", "scratch_mlp, hidden: [9]"), ("linear", "scratch_linear")], ids=["mlp", "linear"]
)
def test_raw_tensors_and_modules_give_the_same_numbers(train: Train, networks: tuple[str, str]) -> None:
    """C11, C1, C2: one engine, one seed, one init; after an epoch every loss agrees to 1e-4."""
    module, raw = (train(f"model={{name: {kind}}}", "train.epochs=1", name=kind[:3]) for kind in networks)
    assert losses(raw) == pytest.approx(losses(module), abs=1e-4)
    assert raw.epochs[0]["val_loss"] == pytest.approx(module.epochs[0]["val_loss"], abs=1e-4)
    assert raw.info["network"]["num_parameters"] == module.info["network"]["num_parameters"]


def test_raw_tensors_and_modules_give_the_same_numbers_on_mnist(shared_data: Path, tmp_path: Path) -> None:
    """C11: mnist_scratch and mnist_mlp, one epoch as shipped, to 1e-4."""
    settings: dict[str, Any] = {
        "runs_dir": tmp_path,
        "data_dir": shared_data,
        "train": {"epochs": 1},
        "device": {"threads": 1, "memory_format": "contiguous"},
    }
    raw, module = (fl.train(name, "device.precision=float32", name=name, **settings) for name in ("mnist_scratch", "mnist_mlp"))
    assert losses(raw) == pytest.approx(losses(module), abs=1e-4)
    assert raw.epochs[0]["val_accuracy"] == pytest.approx(module.epochs[0]["val_accuracy"], abs=1e-4)
    assert raw.epochs[0]["val_accuracy"] > 0.93
