"""Image files that a user names, as the images that a network was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from firstlight.data.decode import SUFFIXES, decode_image
from firstlight.errors import DataError

if TYPE_CHECKING:
    from firstlight.data.dataset import Dataset


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the image files among the paths, those inside folders included. Raises DataError where there is none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: No such file or folder; name image files, or a folder of them")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no images ({', '.join(SUFFIXES[:4])}, ...); name image files, or a folder of them")
        found += inside
    return found


def read_images(paths: Sequence[Path], image_shape: tuple[int, int, int], class_names: Sequence[str]) -> "Dataset":
    """Return image files as an unlabelled data set, uint8 [N, C, H, W]. Raises DataError as `read_pixels` does."""
    import torch

    from firstlight.data.dataset import Dataset

    images = torch.from_numpy(read_pixels(paths, image_shape))
    return Dataset(images, None, tuple(class_names), f"{len(paths):,} image files")


def read_pixels(paths: Sequence[Path], image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return image files as uint8 [N, C, H, W] of the given shape, without torch.

    Colour and grey are converted into each other; for a square shape the middle square is cut out and resized.
    Raises DataError that names the file.
    """
    channels, height, width = image_shape
    images = np.empty((len(paths), channels, height, width), np.uint8)
    for target, path in zip(images, paths, strict=True):
        pixels = _read(path, grey=channels == 1, size=height if height == width else None)
        if pixels.shape[:2] != (height, width):
            raise DataError(f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels; this network was trained on {width} x {height}")
        target[:] = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    return images


def _read(path: Path, *, grey: bool, size: int | None) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a device, a pipe or a folder; give image files")
    try:
        return decode_image(path.read_bytes(), grey=grey, image_size=size)
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}; name a file that you may read") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
