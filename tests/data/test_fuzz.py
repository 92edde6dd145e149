"""Damaged files of every format: each gives a data set or one line of DataError, soon, within bounded memory.

500 inputs a parser here, 10,000 in `make soak`. A case that fails is named by its seed: mutate(valid content, seed) makes it again.
"""

import gzip
import io
import resource
import signal
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from firstlight.data.check import check_images
from firstlight.data.cifar10 import load_cifar10
from firstlight.data.cifar_batches import read_batch
from firstlight.data.corrupted_mnist import load_corrupted_mnist
from firstlight.data.decode import decode_image
from firstlight.data.kaggle_digits import load_kaggle_digits
from firstlight.data.mnist import load_mnist
from firstlight.errors import DataError
from tests.data.test_cifar10 import python2_pickle
from tests.mutate import mutate

MAX_MORE_BYTES = 1 << 30
MAX_CPU_SECONDS = 2
NOISE = np.random.default_rng(0)


class Hang(BaseException):
    """An input takes too long; no parser can catch this by `except Exception`."""


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let the block map so much more memory than this process has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_MORE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def bounded_cpu_time() -> Iterator[None]:
    """Let each setitimer of the block end in Hang; processor time, because other processes may be busy."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def picture(kind: str, size: int = 20, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {"train/a/1.png": picture("PNG", 8), "train/b/2.jpg": picture("JPEG", 8), "test/a/3.bmp": picture("BMP", 4)}


def tar(mode: str, format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format) as handle:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(content), {"comment": "x" * 20}
            handle.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as handle:
        for name, content in FILES.items():
            handle.writestr(name, content)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=NOISE.random((4, 28, 28)).round(1), labels=np.arange(4))
    return buffer.getvalue()


def pt(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


def table() -> bytes:
    rows = NOISE.integers(0, 256, (4, 785))
    rows[:, 0] = range(4)
    header = ["label", *(f"pixel{number}" for number in range(784))]
    return "\n".join([",".join(header), *(",".join(map(str, row)) for row in rows), ""]).encode()


@dataclass(frozen=True)
class Format:
    """A valid file, where it lies, what lies beside it, and the public function that reads it."""

    content: bytes
    path: str
    read: Callable[[Path], object]
    beside: dict[str, bytes] = field(default_factory=dict)


IMAGES, LABELS = idx(NOISE.integers(0, 256, (4, 28, 28))), idx(np.arange(4))
PIXELS = NOISE.integers(0, 256, (3, 3072), dtype=np.uint8)
BINARY = b"".join(bytes([label]) + pixels.tobytes() for label, pixels in enumerate(PIXELS))
MNIST = {"MNIST/raw/t10k-images-idx3-ubyte": IMAGES, "MNIST/raw/t10k-labels-idx1-ubyte": LABELS}
SHARDS = {"corruptmnist/test_images.pt": pt(torch.rand(4, 28, 28)), "corruptmnist/test_target.pt": pt(torch.arange(4))}


def decode(path: Path) -> object:
    return decode_image(path.read_bytes())


def below(load: Callable[..., object], part: str = "test") -> Callable[[Path], object]:
    """Return a reader of a data folder that holds the file two or three levels down."""
    return lambda path: load(part, next(parent for parent in path.parents if parent.name == "data"))


FORMATS = {
    "csv": Format(table(), "digit-recognizer/train.csv", below(load_kaggle_digits, "train")),
    "png": Format(picture("PNG"), "1.png", decode),
    "png palette": Format(picture("PNG", bits=4), "1.png", lambda path: decode_image(path.read_bytes(), grey=True, image_size=8)),
    "jpeg": Format(picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"), "1.jpg", decode),
    "bmp": Format(picture("BMP"), "1.bmp", decode),
    "gif": Format(picture("GIF"), "1.gif", decode),
    "webp": Format(picture("WEBP"), "1.webp", decode),
    "tiff": Format(picture("TIFF", compression="tiff_lzw"), "1.tif", decode),
    "ppm": Format(picture("PPM"), "1.ppm", decode),
    "tar": Format(tar("w", tarfile.GNU_FORMAT), "pets.tar", check_images),
    "tar pax": Format(tar("w", tarfile.PAX_FORMAT), "pets.tar", check_images),
    "tar.gz": Format(tar("w:gz", tarfile.USTAR_FORMAT), "pets.tar.gz", check_images),
    "zip": Format(zipped(zipfile.ZIP_DEFLATED), "pets.zip", check_images),
    "zip stored": Format(zipped(zipfile.ZIP_STORED), "pets.zip", check_images),
    "idx images": Format(IMAGES, "MNIST/raw/t10k-images-idx3-ubyte", below(load_mnist), MNIST),
    "idx labels": Format(LABELS, "MNIST/raw/t10k-labels-idx1-ubyte", below(load_mnist), MNIST),
    "idx.gz": Format(
        gzip.compress(IMAGES),
        "MNIST/raw/t10k-images-idx3-ubyte.gz",
        below(load_mnist),
        {"MNIST/raw/t10k-labels-idx1-ubyte": LABELS},
    ),
    "npz": Format(npz(), "corruptmnist/test.npz", below(load_corrupted_mnist)),
    "pt images": Format(SHARDS["corruptmnist/test_images.pt"], "corruptmnist/test_images.pt", below(load_corrupted_mnist), SHARDS),
    "pt labels": Format(SHARDS["corruptmnist/test_target.pt"], "corruptmnist/test_target.pt", below(load_corrupted_mnist), SHARDS),
    "cifar pickle": Format(python2_pickle(PIXELS, [0, 1, 2]), "test_batch", read_batch),
    "cifar binary": Format(BINARY, "cifar-10-batches-bin/test_batch.bin", below(load_cifar10)),
}


def place(form: Format, folder: Path) -> Path:
    for name, content in {**form.beside, form.path: form.content}.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_bytes(content)
    return folder / "data" / form.path


def survive(form: Format, path: Path, seed: int) -> bool:
    """Read one damaged file; return whether it was refused. Any other exception but DataError passes through and fails the test."""
    path.write_bytes(mutate(form.content, seed))
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_SECONDS)
    try:
        form.read(path)
    except DataError as error:
        assert len(str(error).splitlines()) == 1, f"seed {seed}: {error}"
        assert len(str(error)) < 2000, f"seed {seed}: {error}"
        return True
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return False


def fuzz(name: str, seeds: range, folder: Path) -> None:
    form = FORMATS[name]
    path = place(form, folder)
    form.read(path)
    with bounded_memory(), bounded_cpu_time():
        refused = sum(survive(form, path, seed) for seed in seeds)
    assert refused > 0


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_one_line(name: str, tmp_path: Path):
    """Faults 30, 31, 39, 41 and 42."""
    fuzz(name, range(500), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_damaged_files_give_one_line(name: str, tmp_path: Path):
    """Faults 30, 31, 39, 41 and 42."""
    fuzz(name, range(500, 10_500), tmp_path)
