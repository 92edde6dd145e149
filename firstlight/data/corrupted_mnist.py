"""Corrupted MNIST: MNIST behind one hidden corruption, as shards of a course or made here from MNIST.

Reading order: load_corrupted_mnist, then one of _read_pt, _read_npz, make_corrupted.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.mnist import load_mnist
from firstlight.data.places import missing
from firstlight.errors import DataError
from firstlight.files import make_dir, write_bytes

FOLDERS = ("corruptmnist", "corrupted_mnist", "corruptmnist_v1")
CLASS_NAMES = tuple(str(digit) for digit in range(10))
NUM_IMAGES = {"train": 30_000, "test": 5_000}
NUM_SHARDS = 6
MAX_BYTES = 1 << 30
SEEDS = {"train": 1, "test": 2}


def load_corrupted_mnist(part: str, data_dir: Path) -> Dataset:
    """Return 30,000 training or 5,000 test images of corrupted digits, [N, 1, 28, 28].

    Reads the .pt shards, else the older .npz files, in data_dir/corruptmnist; without them corrupts MNIST, the same way each time.
    """
    for folder in (data_dir / name for name in FOLDERS):
        for pattern, read in (("*_images*.pt", _read_pt), ("t*.npz", _read_npz)):
            if any(folder.glob(pattern)):
                images, labels = read(folder, part)
                return _dataset(images, labels, part, f"from {folder.name}/{pattern}")
    if not any((data_dir / name).is_dir() for name in ("MNIST", "mnist")):
        remedy = "run `firstlight data fetch corrupted_mnist`"
        raise missing(f"corrupted MNIST: {FOLDERS[0]}/, or MNIST to make it from,", [data_dir], remedy)
    return make_corrupted(load_mnist(part, data_dir), part)


def make_corrupted(clean: Dataset, part: str) -> Dataset:
    """Return at most 30,000 (train) or 5,000 (test) digits in a drawn order, each of them corrupted, the same way each time."""
    assert clean.labels is not None
    generator = torch.Generator().manual_seed(SEEDS[part])
    chosen = torch.randperm(len(clean), generator=generator)[: NUM_IMAGES[part]]
    batches = [_corrupt(images, generator) for images in clean.images[chosen].split(1000)]
    return _dataset(torch.cat(batches), clean.labels[chosen], part, "made from MNIST")


def write_shards(train: Dataset, test: Dataset, folder: Path) -> None:
    """Write both parts as .pt files of float32 [N, 28, 28] in 0..1 and int64 [N], the form in which the course gives them."""
    make_dir(folder)
    assert train.labels is not None and test.labels is not None
    shards = zip(train.images.tensor_split(NUM_SHARDS), train.labels.tensor_split(NUM_SHARDS), strict=True)
    for number, (images, labels) in enumerate(shards):
        write_bytes(folder / f"train_images_{number}.pt", _to_pt(_unit_floats(images)))
        write_bytes(folder / f"train_target_{number}.pt", _to_pt(labels))
    write_bytes(folder / "test_images.pt", _to_pt(_unit_floats(test.images)))
    write_bytes(folder / "test_target.pt", _to_pt(test.labels))


def _dataset(images: Tensor, labels: Tensor, part: str, origin: str) -> Dataset:
    kind = "training" if part == "train" else "test"
    return make_dataset(images, labels, CLASS_NAMES, f"corrupted MNIST ({origin}, {len(images):,} {kind} images)")


def _unit_floats(images: Tensor) -> Tensor:
    pixels = images.squeeze(1)
    return pixels / 255 if pixels.dtype == torch.uint8 else pixels


def _to_pt(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor.clone(), buffer)  # a view would take its whole storage along
    return buffer.getvalue()


def _read_pt(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    if part == "test":
        return _load_pt(folder / "test_images.pt", 3), _load_pt(folder / "test_target.pt", 1)
    images = [_load_pt(path, 3) for path in _shards(folder, "train_images_{}.pt")]
    labels = [_load_pt(path, 1) for path in _shards(folder, "train_target_{}.pt")]
    return _joined(images, labels, folder)


def _read_npz(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    paths = [folder / "test.npz"] if part == "test" else _shards(folder, "train_{}.npz")
    pairs = [_load_npz(path) for path in paths]
    return _joined([images for images, _ in pairs], [labels for _, labels in pairs], folder)


def _shards(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the shards 0, 1, 2, ... that are there; DataError where one is missing between others."""
    num_files = len(list(folder.glob(pattern.format("*"))))
    if num_files == 0:
        raise DataError(f"{folder / pattern.format(0)} is missing although other shards are there; copy all of them")
    for number in range(num_files):
        yield folder / pattern.format(number)


def _joined(images: list[Tensor], labels: list[Tensor], folder: Path) -> tuple[Tensor, Tensor]:
    for number, (shard, targets) in enumerate(zip(images, labels, strict=False)):
        if len(shard) != len(targets):
            raise DataError(f"{folder}: shard {number} has {len(shard)} images and {len(targets)} labels; copy it again")
    if len(images) != len(labels):
        raise DataError(f"{folder} holds {len(images)} shards of images and {len(labels)} of labels; copy all of them")
    return torch.cat(images), torch.cat(labels)


def _load_pt(path: Path, num_dims: int) -> Tensor:
    def load() -> Tensor:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.numel() * tensor.itemsize > MAX_BYTES:
            raise ValueError("it holds something else than one tensor of images or labels")
        return tensor

    return _checked(path, load, num_dims)


def _load_npz(path: Path) -> tuple[Tensor, Tensor]:
    def load(key: str) -> Tensor:
        with np.load(path, allow_pickle=False) as arrays:
            if key not in arrays:
                raise ValueError(f"it has no array {key!r} (it has {', '.join(arrays)})")
            return torch.from_numpy(arrays[key])

    return _checked(path, lambda: load("images"), 3), _checked(path, lambda: load("labels"), 1)


def _checked(path: Path, load: Callable[[], Tensor], num_dims: int) -> Tensor:
    """Return what `load` reads from the zip file at `path`, whose promised size is looked at first."""
    try:
        with zipfile.ZipFile(path) as members:
            if sum(member.file_size for member in members.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
        tensor = load()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing although other shards are there; copy all of them") from error
    except Exception as error:  # torch and numpy raise many kinds on damaged files
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}; copy it again") from error
    if tensor.ndim == num_dims + 1 and tensor.shape[1] == 1:
        tensor = tensor.squeeze(1)
    if tensor.ndim != num_dims or (num_dims == 3 and tensor.shape[1:] != (28, 28)):
        raise DataError(f"{path} has shape {list(tensor.shape)}; expected {'[N, 28, 28]' if num_dims == 3 else '[N]'}")
    return tensor


def _corrupt(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn by up to 30 degrees, shear by up to 0.3, add Gaussian noise of deviation 0.15: uint8 to uint8 [N, 1, 28, 28]."""
    angle = (torch.rand(len(images), generator=generator) - 0.5) * (torch.pi / 3)
    shear = (torch.rand(len(images), generator=generator) - 0.5) * 0.6
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [torch.stack([cos, cos * shear - sin, zero], 1), torch.stack([sin, sin * shear + cos, zero], 1)]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    turned = torch.nn.functional.grid_sample(images / 255, grid, align_corners=False)
    noisy = turned + 0.15 * torch.randn(images.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8)
