"""What this machine can do for a training: versions, device, one real step with its time, data that are found."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from firstlight.config.schema import DeviceConfig, Kind
from firstlight.data.build import DOWNLOADS, SOURCES
from firstlight.data.cifar10 import BINARY_FOLDER, BINARY_TAR, JPEG_TAR, PYTHON_FOLDER
from firstlight.data.corrupted_mnist import FOLDERS
from firstlight.data.hdf5 import FOLDERS as HDF5_FOLDERS
from firstlight.data.hdf5 import MEDIUM_IMAGENET
from firstlight.engine.device import Arithmetic, choose_device
from firstlight.engine.places import data_dir_of
from firstlight.engine.probe import settle
from firstlight.models.build import build_model
from firstlight.tracking.environment import describe_environment

BATCH_SIZE = 128
MNIST = ("MNIST/raw", "mnist")
DATA_PLACES = {
    "mnist": MNIST,
    "fashion_mnist": ("FashionMNIST/raw", "fashion_mnist"),
    "cifar10": (BINARY_FOLDER, BINARY_TAR, PYTHON_FOLDER, JPEG_TAR),
    "corrupted_mnist": (*FOLDERS, *MNIST),
    "kaggle_digits": ("digit-recognizer/train.csv",),
    "medium_imagenet": tuple(f"{folder}/{name}" for folder in HDF5_FOLDERS for name in MEDIUM_IMAGENET[96]),
}
"""Where each data set lies in the data folder, the first choice first. To look there is quick; to read CIFAR-10 takes 15 s."""

ELSEWHERE = ("folder", "hdf5", "webdataset", "parquet")
"""Data sets that lie wherever their path says."""


def examine(data_dir: str | Path | None = None) -> dict[str, Any]:
    """Return versions, the device, the seconds of one training step of lenet on 128 images of 32x32, and the data sets found."""
    environment = describe_environment()
    device = choose_device("auto")
    return {
        "python": environment["python"],
        "packages": environment["packages"],
        "platform": environment["platform"],
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else environment["cpu"],
        "threads": torch.get_num_threads(),
        "note": None if device != "cpu" else "no GPU that torch can use: everything runs on the CPU",
        "step": time_step(),
        "data_dir": str(data_dir_of(data_dir)),
        "data": describe_data(data_dir_of(data_dir)),
    }


def time_step() -> dict[str, Any]:
    """Time a training step of lenet (forward, backward, update): the median of five, after one to warm up."""
    model = build_model(Kind("lenet"), (3, 32, 32), 10, seed=0)
    arithmetic = settle(DeviceConfig(), model, (3, 32, 32), 10)
    model = arithmetic.place(model)
    images = torch.rand(BATCH_SIZE, 3, 32, 32, device=arithmetic.device)
    labels = torch.arange(BATCH_SIZE, device=arithmetic.device) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with arithmetic.on_threads():
        _, *seconds = (_one_step(model, optimizer, images, labels, arithmetic) for _ in range(6))
    return {
        "network": "lenet",
        "batch_size": BATCH_SIZE,
        "seconds": round(statistics.median(seconds), 5),
        "precision": arithmetic.precision,
    }


def _one_step(model: Any, optimizer: Any, images: torch.Tensor, labels: torch.Tensor, arithmetic: Arithmetic) -> float:
    began = time.perf_counter()
    optimizer.zero_grad()
    with arithmetic.autocast():
        logits = model(images)
    loss = cross_entropy(logits.float(), labels)
    loss.backward()
    optimizer.step()
    loss.item()  # waits for the device
    return time.perf_counter() - began


def describe_data(data_dir: Path) -> dict[str, str]:
    """Return a line about each named data set: where it lies, or how to get it. Nothing is read."""
    return {name: _where(name, data_dir) for name in SOURCES if name not in ELSEWHERE}


def _where(name: str, data_dir: Path) -> str:
    if name not in DATA_PLACES:
        return "comes with the package"
    found = next((data_dir / place for place in DATA_PLACES[name] if (data_dir / place).exists()), None)
    if found is not None:
        return str(found)
    remedy = f"data fetch {name}` gets it" if name in DOWNLOADS else f"data check {name}` says what to do"
    return f"not here; `firstlight {remedy}"
