"""HDF5 files for tests, and the plain way to read them: h5py, one image at a time."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

NUM, SIZE, CLASSES = 300, 9, 5


def pixels_of(num: int, seed: int, channels: int = 3, size: int = SIZE) -> np.ndarray:
    """Return random images, uint8 [num, size, size + 1, channels]: height and width differ, so that nobody takes one for the other."""
    return np.random.default_rng(seed).integers(0, 256, (num, size, size + 1, channels), dtype=np.uint8)


def make_file(path: Path, *, order: str = "nhwc", num: int = NUM, size: int = SIZE, channels: int = 3, **storage: Any) -> Path:
    """Write train (labelled), val (labelled, a fifth of it) and test (not labelled)."""
    with h5py.File(path, "w") as file:
        for seed, (part, count) in enumerate((("train", num), ("val", num // 5), ("test", 7))):
            images = pixels_of(count, seed, channels, size)
            images = images.transpose(0, 3, 1, 2) if order == "nchw" else images[..., 0] if order == "nhw" else images
            kept = dict(storage)
            if "chunks" in kept:
                kept["chunks"] = tuple(min(length, chunk) for length, chunk in zip(images.shape, kept["chunks"], strict=True))
            file.create_dataset(f"images-{part}", data=images, **kept)
            if part != "test":
                file.create_dataset(f"labels-{part}", data=np.arange(count) * 7 % CLASSES)
        file.create_dataset("class-names", data=["ant", "bee", "cow", "dog", "eel"])
    return path


def read_plainly(path: Path, part: str, row: int) -> Tensor:
    """Return one image, uint8 [C, H, W], as h5py reads it."""
    with h5py.File(path, "r") as file:
        image = torch.from_numpy(file[f"images-{part}"][row])
    if image.ndim == 2:
        return image.unsqueeze(0)
    return image.permute(2, 0, 1).contiguous() if image.shape[2] in (1, 3) else image
