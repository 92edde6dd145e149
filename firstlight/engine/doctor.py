"""What this machine can do for a training: versions, device, one real step with its time, data that are found."""

import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from firstlight.config.schema import DeviceConfig, Kind
from firstlight.data.build import SOURCES, load_part
from firstlight.engine.device import choose_device, settle
from firstlight.engine.places import data_dir_of
from firstlight.errors import DataError
from firstlight.models.build import build_model
from firstlight.tracking.environment import describe_environment

BATCH_SIZE = 128


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
        "data": {name: _found(name, data_dir_of(data_dir)) for name in SOURCES if name != "folder"},
    }


def time_step() -> dict[str, Any]:
    """Time one training step of lenet: the median of five, after one to warm up."""
    model = build_model(Kind("lenet"), (3, 32, 32), 10, seed=0)
    arithmetic = settle(DeviceConfig(), model, (3, 32, 32), 10)
    model = arithmetic.place(model)
    images = torch.rand(BATCH_SIZE, 3, 32, 32, device=arithmetic.device)
    labels = torch.arange(BATCH_SIZE, device=arithmetic.device) % 10
    seconds = sorted(_one_step(model, images, labels, arithmetic.autocast) for _ in range(6))[2]
    return {"network": "lenet", "batch_size": BATCH_SIZE, "seconds": round(seconds, 5), "precision": arithmetic.precision}


def _one_step(model: Any, images: torch.Tensor, labels: torch.Tensor, autocast: Any) -> float:
    began = time.perf_counter()
    with autocast():
        logits = model(images)
    loss = cross_entropy(logits.float(), labels)
    loss.backward()
    loss.item()  # waits for the device
    return time.perf_counter() - began


def _found(name: str, data_dir: Path) -> str:
    try:
        return load_part(Kind(name), "train", data_dir).source
    except DataError as error:
        return f"not here: {error}"
