"""Training data handed to a child through a pipe, so that each child need not read and decode them again."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any

import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.normalize import Normalize
from firstlight.data.training_data import DataRecord, TrainingData


def pack(data: TrainingData) -> tuple[dict[str, Any], list[memoryview]]:
    """Return plain data that describe the training images, and the bytes of the images and labels; validation images stay behind."""
    images, labels = data.train.images.contiguous(), data.train.labels
    assert labels is not None
    header = {"record": asdict(data.record), "shape": list(images.shape), "dtype": str(images.dtype).removeprefix("torch.")}
    return header, [_bytes_of(images), _bytes_of(labels)]


def unpack(header: Mapping[str, Any], stream: IO[bytes]) -> TrainingData:
    """Return the training data that `pack` described, their bytes read from the stream."""
    told = header["record"]
    tuples = {"class_names": tuple(told["class_names"]), "image_shape": tuple(told["image_shape"])}
    record = DataRecord(**{**told, **tuples, "normalize": Normalize(**told["normalize"]), "num_val": 0})
    images = torch.empty(header["shape"], dtype=getattr(torch, header["dtype"]))
    labels = torch.empty(len(images), dtype=torch.int64)
    for tensor in (images, labels):
        _fill(_bytes_of(tensor), stream)
    return TrainingData(Dataset(images, labels, record.class_names, record.source), None, record)


def random_data(image_shape: tuple[int, int, int], num_classes: int, num_images: int) -> TrainingData:
    """Return noise in the place of images, where only their shape counts."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, *image_shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(num_images) % num_classes
    names = tuple(map(str, range(num_classes)))
    record = DataRecord(
        source="noise",
        class_names=names,
        image_shape=image_shape,
        num_train=num_images,
        num_val=0,
        train_hash="",
        val_hash="",
        content_hash="",
        normalize=Normalize((0.5,) * image_shape[0], (0.25,) * image_shape[0]),
    )
    return TrainingData(Dataset(images, labels, names, "noise"), None, record)


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy has the buffer protocol


def _fill(target: memoryview, stream: IO[bytes]) -> None:
    """Read bytes from the stream until the target is full. Raises EOFError where the stream ends before."""
    while len(target):
        num = stream.readinto(target)  # type: ignore[attr-defined]
        if not num:
            raise EOFError("the parent is gone")
        target = target[num:]
