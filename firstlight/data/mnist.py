"""MNIST (LeCun, Cortes and Burges 1998), and the reader of the four files that its relatives share."""

from collections.abc import Sequence
from pathlib import Path

import torch

from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.idx import read_idx
from firstlight.data.places import missing
from firstlight.errors import DataError

PREFIXES = {"train": "train", "test": "t10k"}


def load_mnist(part: str, data_dir: Path) -> Dataset:
    """Return 60,000 training or 10,000 test images of handwritten digits, uint8 [N, 1, 28, 28]."""
    folders = [data_dir / "MNIST" / "raw", data_dir / "mnist"]
    return read_mnist_files(part, folders, [str(digit) for digit in range(10)], name="MNIST", fetch_name="mnist")


def read_mnist_files(part: str, folders: Sequence[Path], class_names: Sequence[str], *, name: str, fetch_name: str) -> Dataset:
    """Return one part of a data set in MNIST's layout from the first of `folders` that holds its files, plain or gzipped."""
    remedy = f"run `firstlight data fetch {fetch_name}`"
    images_path, labels_path = (_find(folders, f"{PREFIXES[part]}-{kind}-ubyte", name, remedy) for kind in ("images-idx3", "labels-idx1"))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise DataError(
            f"{images_path} holds images of shape {list(images.shape)} and {labels_path.name} {len(labels)} labels;"
            f" expected 28 x 28 pixels and one label an image; {remedy} into a fresh folder"
        )
    kind = "training" if part == "train" else "test"
    return make_dataset(torch.from_numpy(images), torch.from_numpy(labels), class_names, f"{name} ({len(images):,} {kind} images)")


def _find(folders: Sequence[Path], file_name: str, name: str, remedy: str) -> Path:
    for folder in folders:
        for path in (folder / file_name, folder / f"{file_name}.gz"):
            if path.is_file():
                return path
    raise missing(f"{name}: {file_name}(.gz)", folders, remedy)
