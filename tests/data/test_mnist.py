"""MNIST, Fashion-MNIST and the IDX format."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from firstlight.data.fashion_mnist import load_fashion_mnist
from firstlight.data.idx import read_idx
from firstlight.data.mnist import load_mnist
from firstlight.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    (folder / "train-images-idx3-ubyte").write_bytes(idx(images))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(20) % 10)))
    return tmp_path


def test_mnist_has_the_published_content(shared_data: Path):
    """B7: the four original files."""
    train, test = load_mnist("train", shared_data), load_mnist("test", shared_data)
    assert (train.images.shape, test.images.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert round(train.images.double().mean().item() / 255, 4) == 0.1307
    assert train.source == "MNIST (60,000 training images)"


def test_fashion_mnist_plain_and_gzipped_without_its_test_files(fashion: Path):
    """B7 and F4: only the part that is asked for is read."""
    train = load_fashion_mnist("train", fashion)
    assert train.images.shape == (20, 1, 28, 28)
    assert train.labels.tolist() == [*range(10), *range(10)]
    assert train.class_names[9] == "Ankle boot"
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\(.gz\) is missing .*firstlight data fetch fashion_mnist.*FIRSTLIGHT_DATA"):
        load_fashion_mnist("test", fashion)


def test_labels_out_of_range_are_named(fashion: Path):
    """FAULTS 32."""
    labels = np.arange(20) % 10
    labels[17] = 10
    (fashion / "FashionMNIST/raw/train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match=r"row 17 of labels: 10, allowed 0\.\.9"):
        load_fashion_mnist("train", fashion)


def test_counts_that_differ_are_named(fashion: Path):
    (fashion / "FashionMNIST/raw/train-labels-idx1-ubyte").write_bytes(idx(np.zeros(19)))
    with pytest.raises(DataError, match="19 labels"):
        load_fashion_mnist("train", fashion)


whole = idx(np.zeros((4, 28, 28)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (whole[:-1], "header promises 4 x 28 x 28 values and 3,135 follow"),
        (whole + b"\0", "3,137 follow"),
        (b"<html>not here</html>", "no IDX file"),
        (b"", "no IDX file"),
        (whole[:2] + b"\x0d" + whole[3:], "type 0x0d"),
        (idx(np.zeros(9)) + bytes(20), "in 1 dimensions"),
        (whole[:4] + b"\xff" * 12, "and 0 follow"),
    ],
)
def test_damaged_idx_is_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path, 3)


def test_truncated_gzip_is_refused(tmp_path: Path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(DataError, match=r"images.gz cannot be read"):
        read_idx(path, 3)
