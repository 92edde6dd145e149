"""A14: the MNIST warm-up, against numpy and scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from firstlight.errors import ConfigError
from firstlight.inspection.subject import find_subject
from firstlight.inspection.warmup import fit_least_squares, parity_accuracy, warm_up


def subject_of(word: str, *settings: str, data_dir: Path | None = None):
    return find_subject(word, settings, runs_dir=Path("nowhere"), data_dir=data_dir)


@pytest.mark.parametrize(("rows", "columns"), [(50, 20), (20, 50)])
def test_the_weights_are_those_of_numpy(rows: int, columns: int) -> None:
    """More rows than columns: one minimum; fewer: the shortest of many."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(rows, columns, generator=generator)
    inputs[:, 3] = 0  # a pixel that is always black
    targets = torch.rand(rows, generator=generator).sub(0.5).sign()
    weights, rank = fit_least_squares(inputs, targets)
    theirs, _, their_rank, _ = np.linalg.lstsq(inputs.double().numpy(), targets.double().numpy(), rcond=None)
    np.testing.assert_allclose(weights.numpy(), theirs, atol=1e-6)
    assert rank == their_rank == min(rows, columns - 1)


def test_its_accuracy_is_that_of_scikit_learn(tmp_path: Path) -> None:
    found = warm_up(subject_of("digits"), num=200, seed=3, out=tmp_path)
    data = subject_of("digits").training_data()
    whole = subject_of("digits").part("train")
    images = {image.numpy().tobytes(): int(label) for image, label in zip(data.train.images, data.train.labels, strict=True)}
    assert whole.images[found["digit"]["index"]].numpy().tobytes() in images, "a training image, not one of validation"
    inputs, targets, val, val_targets = _rows(found, data, whole)
    theirs = LinearRegression(fit_intercept=False).fit(inputs, targets)
    assert found["train_accuracy"] == pytest.approx(np.mean(np.sign(theirs.predict(inputs)) == targets), abs=1e-9)
    assert found["val_accuracy"] == pytest.approx(np.mean(np.sign(theirs.predict(val)) == val_targets), abs=1e-9)


def _rows(found, data, whole):
    """The same 200 images by a way of its own."""
    from firstlight.data.splits import carve

    train, _ = carve(whole.labels, 0.1, 0)
    chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(3))[:200]]
    flat = lambda images: images.flatten(1).double().numpy() / 255  # noqa: E731
    parity = lambda labels: np.where(labels.numpy() % 2 == 1, 1.0, -1.0)  # noqa: E731
    return flat(whole.images[chosen]), parity(whole.labels[chosen]), flat(data.val.images), parity(data.val.labels)


def test_what_is_written(tmp_path: Path) -> None:
    found = warm_up(subject_of("digits"), num=50, seed=0, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["warmup.json", "warmup.png", "warmup.svg"]
    assert json.loads((tmp_path / "out" / "warmup.json").read_text()) == found
    assert (found["inputs_shape"], found["targets_shape"]) == ([50, 64], [50])


def test_500_digits_of_mnist(shared_data: Path, tmp_path: Path) -> None:
    """A14: X (500, 784), y (500,); as many pixels as that fit 500 images exactly, and what they say of others is poor."""
    found = warm_up(subject_of("mnist", data_dir=shared_data), num=500, seed=0, out=tmp_path)
    assert (found["inputs_shape"], found["targets_shape"], found["num_val"]) == ([500, 784], [500], 6000)
    assert found["train_accuracy"] >= found["val_accuracy"] > 0.5


@pytest.mark.parametrize(("num", "says"), [(0, "--num 0"), (10**6, "allowed: 1 to 1,2")])
def test_too_many_images_and_none(num: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        warm_up(subject_of("digits"), num=num, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_that_are_no_numbers(shared_data: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8), number * 9).save(tmp_path / "pets" / name / f"{number}.png")
    with pytest.raises(ConfigError, match=r"classes that are numbers.*'cat'"):
        warm_up(subject_of(str(tmp_path / "pets")), num=2, out=tmp_path / "out")


def test_a_tie_is_no_hit() -> None:
    assert parity_accuracy(torch.zeros(3, dtype=torch.float64), torch.ones(4, 3), torch.tensor([1.0, 1, -1, -1])) == 0
