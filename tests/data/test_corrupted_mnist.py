"""B13: corrupted MNIST as shards, as .npz, and made from MNIST."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight.data.corrupted_mnist import load_corrupted_mnist, write_shards
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.mnist import load_mnist
from firstlight.errors import DataError


def digits(count: int, seed: int) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 28, 28), generator=generator).to(torch.uint8)
    return make_dataset(images, torch.arange(count) % 10, [str(digit) for digit in range(10)], "made up")


TRAIN, TEST = digits(60, 0), digits(20, 1)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shards(TRAIN, TEST, tmp_path / "corruptmnist")
    return tmp_path / "corruptmnist"


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_shards_as_the_course_gives_them(shards: Path):
    """B13 and A12: six shards of floats [N, 28, 28], which come back as the very bytes."""
    first = torch.load(shards / "train_images_0.pt", weights_only=True)
    assert (first.shape, first.dtype) == ((10, 28, 28), torch.float32)
    assert len(list(shards.glob("train_target_*.pt"))) == 6
    train, test = (load_corrupted_mnist(part, shards.parent) for part in ("train", "test"))
    assert torch.equal(train.images, TRAIN.images)
    assert torch.equal(train.labels, TRAIN.labels)
    assert torch.equal(test.images, TEST.images)
    assert train.source == "corrupted MNIST (from corruptmnist/*_images*.pt, 60 training images)"


def test_older_npz(tmp_path: Path):
    """B13: several files of float64, with a flag stored beside them by mistake."""
    folder = tmp_path / "corrupted_mnist"
    folder.mkdir()
    floats = TRAIN.images.squeeze(1).double().numpy() / 255
    for number in range(5):
        part = slice(number * 12, number * 12 + 12)
        np.savez(folder / f"train_{number}.npz", images=floats[part], labels=TRAIN.labels[part].numpy(), allow_pickle=False)
    np.savez(folder / "test.npz", images=floats[:3], labels=np.array([1, 2, 3]))
    train = load_corrupted_mnist("train", tmp_path)
    assert torch.equal(train.images, TRAIN.images)
    assert torch.equal(train.labels, TRAIN.labels)
    assert load_corrupted_mnist("test", tmp_path).labels.tolist() == [1, 2, 3]


def test_made_from_mnist(shared_data: Path):
    """B13: the same images each time; the test images come from MNIST's test part."""
    test = load_corrupted_mnist("test", shared_data)
    assert (test.images.shape, test.images.dtype) == ((5000, 1, 28, 28), torch.uint8)
    assert test.source == "corrupted MNIST (made from MNIST, 5,000 test images)"
    assert torch.equal(test.images, load_corrupted_mnist("test", shared_data).images)
    assert test.labels.bincount().min() > 400
    clean = load_mnist("test", shared_data).images.float().mean()
    assert clean < test.images.float().mean() < 2 * clean


def test_training_images_made_from_mnist(shared_data: Path):
    """B13."""
    train = load_corrupted_mnist("train", shared_data)
    assert len(train) == 30_000
    assert train.labels.bincount().min() > 2500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_images_2.pt", saved(torch.zeros(9, 28, 28)), "shard 2 has 9 images and 10 labels"),
        ("train_images_2.pt", saved(torch.zeros(10, 27, 28)), r"train_images_2.pt has shape \[10, 27, 28\]"),
        ("train_images_2.pt", saved({"images": 1}), "something else than one tensor"),
        ("train_images_2.pt", saved(torch.zeros(1).expand(1 << 40)), "something else than one tensor"),
        ("train_images_2.pt", saved(Path("x")), "cannot be read"),
        ("train_images_2.pt", b"<html>", "cannot be read"),
        ("train_images_2.pt", None, "train_images_2.pt is missing although other shards are there"),
        ("train_target_5.pt", None, "6 shards of images and 5 of labels"),
        ("train_target_0.pt", saved(torch.full((10,), 12)), r"row 0 of labels: 12, allowed 0\.\.9"),
    ],
)
def test_damaged_shards_are_named(shards: Path, name: str, content: bytes | None, message: str):
    """B13: and nothing in them is executed."""
    if content is None:
        (shards / name).unlink()
    else:
        (shards / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_corrupted_mnist("train", shards.parent)


def test_damaged_npz_is_named(tmp_path: Path):
    (tmp_path / "corruptmnist").mkdir()
    np.savez(tmp_path / "corruptmnist" / "train_0.npz", images=np.zeros((2, 28, 28)))
    with pytest.raises(DataError, match=r"train_0.npz cannot be read: it has no array 'labels' \(it has images\)"):
        load_corrupted_mnist("train", tmp_path)
    np.savez(tmp_path / "corruptmnist" / "train_0.npz", images=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        load_corrupted_mnist("train", tmp_path)


def test_nothing_there(tmp_path: Path):
    with pytest.raises(DataError, match="firstlight data fetch corrupted_mnist"):
        load_corrupted_mnist("train", tmp_path)
