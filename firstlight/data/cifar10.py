"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): three forms, the original ones first."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.data.archive import open_archive
from firstlight.data.cifar_batches import IMAGE_BYTES, read_batch
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.folder import load_folder
from firstlight.data.places import missing
from firstlight.errors import DataError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
RECORD_BYTES = 1 + IMAGE_BYTES

BINARY_FOLDER = "cifar-10-batches-bin"
BINARY_TAR = "cifar-10-binary.tar.gz"
PYTHON_FOLDER = "cifar-10-batches-py"
JPEG_TAR = "cifar10-jpeg.tar.gz"

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_cifar10(part: str, data_dir: Path) -> Dataset:
    """Return 50,000 training or 10,000 test images of ten classes, uint8 [N, 3, 32, 32].

    Reads the binary version (folder or .tar.gz), else torchvision's folder, else the JPEG copy, whose pixels differ a little.
    """
    readers = {BINARY_FOLDER: _read_binary_folder, BINARY_TAR: _read_binary_tar, PYTHON_FOLDER: _read_python_folder}
    for name, read in readers.items():
        if (data_dir / name).exists():
            return _join(list(read(data_dir / name, BATCHES[part])), part)
    if (data_dir / JPEG_TAR).is_file():
        copy = load_folder(part, data_dir, path=str((data_dir / JPEG_TAR).resolve()))
        return replace(copy, source=_source("CIFAR-10 (JPEG copy", len(copy), part))
    wanted = f"CIFAR-10: {BINARY_FOLDER}/, {BINARY_TAR}, {PYTHON_FOLDER}/ or {JPEG_TAR}"
    raise missing(wanted, [data_dir], "run `firstlight data fetch cifar10`")


def _source(begin: str, num_images: int, part: str) -> str:
    separator = ", " if "(" in begin else " ("
    return f"{begin}{separator}{num_images:,} {'training' if part == 'train' else 'test'} images)"


def _join(batches: list[Batch], part: str) -> Dataset:
    images = torch.from_numpy(np.concatenate([images for images, _ in batches]))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in batches]))
    return make_dataset(images, labels, CLASS_NAMES, _source("CIFAR-10", len(images), part))


def _read_binary_folder(folder: Path, batches: list[str]) -> Iterator[Batch]:
    for batch in batches:
        path = _existing(folder / f"{batch}.bin")
        yield _records(path.read_bytes(), str(path))


def _read_binary_tar(path: Path, batches: list[str]) -> Iterator[Batch]:
    names = [f"{BINARY_FOLDER}/{batch}.bin" for batch in batches]
    found = dict(open_archive(path).read(names))
    for name in names:
        if name not in found:
            raise DataError(f"{path} holds no {name}; fetch it again with `firstlight data fetch cifar10`")
        yield _records(found.pop(name), f"{path}: {name}")


def _read_python_folder(folder: Path, batches: list[str]) -> Iterator[Batch]:
    for batch in batches:
        yield read_batch(_existing(folder / batch))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path} is missing although its folder is there; run `firstlight data fetch cifar10` into another folder")
    return path


def _records(content: bytes, where: str) -> Batch:
    """Return what a file of the binary version holds: per image one byte of label, then the planes of red, green and blue."""
    if not content or len(content) % RECORD_BYTES:
        raise DataError(f"{where} is damaged: {len(content):,} bytes are no multiple of {RECORD_BYTES:,}; fetch it again")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASS_NAMES):
        row = int(labels.argmax())
        raise DataError(f"{where} is damaged: row {row} of labels: {labels[row]}, allowed 0..9; fetch it again")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels
