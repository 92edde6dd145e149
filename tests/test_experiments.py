"""The shipped experiments: small versions here, the whole ones behind `make soak`; benchmarks/accuracy.py records the figures."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from firstlight.config.load import shipped_experiments
from firstlight.tracking.console import Console

Train = Callable[..., fl.Run]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Return `train(experiment, *overrides)` with the test set opened at the end."""

    def run(name: str, *overrides: str, **places: Path) -> fl.Run:
        return fl.train(name, "train.test_at_end=true", *overrides, runs_dir=tmp_path / "runs", console=Console(quiet=True), **places)

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 40 small colour images in two classes that differ in brightness."""
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photos" / ("bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(128 * (number % 2), 128 + 127 * (number % 2), (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_shipped_experiment_is_checked_whole(name: str) -> None:
    assert fl.load_config(name).name == name


def test_the_quickstart_reads_the_digits(train: Train) -> None:
    """One seed of the five that `make soak` runs."""
    assert train("quickstart").summary["test_accuracy"] >= 0.97


@pytest.mark.parametrize("name", ["cifar10_cnn5", "alexnet", "resnet18", "lenet", "lenet_sigmoid"])
def test_large_networks_train_on_a_folder_of_photos(train: Train, photos: Path, name: str) -> None:
    """A1, D5, D6 in small: an epoch on 25 images; loss is finite, and the run is whole."""
    narrow = {"resnet18": ["model.width=8"], "cifar10_cnn5": ["model.width=4"]}.get(name, [])
    settings = ["data=folder", f"data.path={photos}", "split.val_fraction=0.2", "train.epochs=1", "train.batch_size=8", "augment.crop=0"]
    run = train(name, *settings, *narrow, "device.threads=1")
    assert run.state == "finished"
    assert 0 < run.epochs[0]["train_loss"] < 100
    assert run.info["data"]["class_names"] == ["bright", "dark"]


def test_softmax_regression_on_mnist(train: Train, shared_data: Path) -> None:
    """C1: 7,850 parameters, test about 0.92."""
    assert train("mnist_linear", data_dir=shared_data).summary["test_accuracy"] >= 0.92


def test_one_script_for_mnist_with_margin(train: Train, shared_data: Path) -> None:
    """B7, C2: an MLP on raw tensors beats softmax regression by far, in a third of the shipped epochs."""
    assert train("mnist_scratch", "train.epochs=5", data_dir=shared_data).summary["test_accuracy"] >= 0.972


def test_corrupted_digits_are_read_on_a_cpu(train: Train, shared_data: Path) -> None:
    """B14 in small: 10,000 of the 30,000 images, two epochs; the course asks for 0.85."""
    run = train("corrupted_mnist_cnn", "split.num_train=10000", "train.epochs=2", data_dir=shared_data)
    assert run.summary["test_accuracy"] >= 0.85


@pytest.mark.soak
def test_quickstart_over_five_seeds(train: Train) -> None:
    assert mean(train("quickstart", f"seed={seed}").summary["test_accuracy"] for seed in range(5)) >= 0.98


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "figure", "least"),
    [
        ("mnist_scratch", "test_accuracy", 0.975),
        ("mnist_cnn", "test_accuracy", 0.99),
        ("mnist_900", "val_accuracy", 0.9635),
        ("corrupted_mnist_cnn", "test_accuracy", 0.95),
        ("lenet", "test_accuracy", 0.65),
        ("lenet_sigmoid", "test_accuracy", 0.387),
    ],
)
def test_whole_experiments(train: Train, shared_data: Path, name: str, figure: str, least: float) -> None:
    """C2, E9, B14, D4: as shipped, on MNIST and the JPEG copy of CIFAR-10."""
    assert train(name, data_dir=shared_data).summary[figure] >= least
