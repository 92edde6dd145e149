"""Where and in which arithmetic a network runs: asked for in the config, or found by timing a few steps at the start.

The choice is printed, written into the run, and kept in the cache, so that the same machine chooses the same again.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from firstlight.config.schema import DeviceConfig
from firstlight.engine.seeding import mix, private_randomness
from firstlight.errors import ConfigError, StorageError
from firstlight.files import cache_dir, make_dir, write_json
from firstlight.tracking.environment import cpu_model

PROBE_IMAGES = 16
"""Images of a timed step: enough to rank the choices, few enough that resnet18 is settled in a few seconds on two cores."""
SMALL_STEP_SECONDS = 0.02
"""A step faster than this may be as fast on one thread, which other processes then disturb less."""


@dataclass(frozen=True)
class Arithmetic:
    """What was settled: device, number format of the forward pass, order of the image dimensions in memory, CPU threads."""

    device: str
    precision: str = "float32"
    memory_format: str = "contiguous"
    threads: int = 1

    @property
    def channels_last(self) -> bool:
        """Whether images and filters lie in memory as NHWC."""
        return self.memory_format == "channels_last"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    @contextmanager
    def on_threads(self) -> Iterator[None]:
        """Let torch use the settled number of CPU threads for the block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def place(self, model: Any) -> Any:
        """Move a model to the device, its filters in the chosen order."""
        model = model.to(self.device)
        if self.channels_last and isinstance(model, torch.nn.Module):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


def choose_device(name: str) -> str:
    """Return the device for a setting: `auto` takes CUDA, then Apple's MPS, then the CPU. Raises ConfigError for one that is not here."""
    present = [device for device in ("cuda", "mps", "cpu") if is_present(device)]
    if name == "auto":
        return present[0]
    if name not in present:
        here = ", ".join(present)
        raise ConfigError(f"device.name is {name!r}, but this machine (or this build of torch) has {here}; set device.name=auto")
    return name


def is_present(device: str) -> bool:
    """Tell whether torch can use a device here."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}[device]


def settle(config: DeviceConfig, model: Any, image_shape: tuple[int, int, int], num_classes: int) -> Arithmetic:
    """Return the arithmetic for a model: what the config names, and for the rest what is fastest here."""
    device = choose_device(config.name)
    all_threads = torch.get_num_threads()
    fixed = {"precision": config.precision, "memory_format": config.memory_format, "threads": config.threads}
    fixed = {key: value for key, value in fixed.items() if value not in ("auto", None)}
    if device != "cpu":
        fast = {"precision": "bfloat16", "memory_format": "channels_last"} if device == "cuda" else {}
        return Arithmetic(device, **{"threads": all_threads, **fast, **fixed})  # type: ignore[arg-type]
    if len(fixed) == 3:
        return Arithmetic(device, **fixed)  # type: ignore[arg-type]
    return _cached(
        f"{cpu_model()} {torch.__version__} {all_threads} {image_shape} {num_classes} {fixed} {_shape_of(model)}",
        lambda: _fastest(model, _probe_batch(image_shape, num_classes), fixed, all_threads),
    )


def _fastest(model: Any, batch: tuple[Tensor, Tensor], fixed: dict[str, Any], threads: int) -> Arithmetic:
    formats = ["contiguous", "channels_last"] if any(p.ndim == 4 for p in model.parameters()) else ["contiguous"]
    precisions = ["float32", "bfloat16"] if _has_bfloat16() else ["float32"]  # elsewhere it is emulated, and slower
    candidates = [
        Arithmetic("cpu", precision, memory_format, fixed.get("threads", threads))
        for precision in ([fixed["precision"]] if "precision" in fixed else precisions)
        for memory_format in ([fixed["memory_format"]] if "memory_format" in fixed else formats)
    ]
    seconds = {candidate: _time_step(model, batch, candidate) for candidate in candidates}
    best = min(candidates, key=lambda candidate: seconds[candidate])
    alone = replace(best, threads=1)
    if (
        "threads" not in fixed
        and threads > 1
        and seconds[best] < SMALL_STEP_SECONDS
        and _time_step(model, batch, alone) <= seconds[best] * 1.1
    ):
        return alone
    return best


def _time_step(model: Any, batch: tuple[Tensor, Tensor], arithmetic: Arithmetic) -> float:
    """Return the seconds of the faster of two steps, after one to warm up."""
    with arithmetic.on_threads(), private_randomness():
        step = _probe_step(arithmetic.place(deepcopy(model)), batch, arithmetic)
        step()
        return min(step(), step())


def _probe_step(model: Any, batch: tuple[Tensor, Tensor], arithmetic: Arithmetic) -> Callable[[], float]:
    images = batch[0].contiguous(memory_format=torch.channels_last) if arithmetic.channels_last else batch[0]

    def step() -> float:
        began = time.perf_counter()
        with arithmetic.autocast():
            logits = model(images)
        cross_entropy(logits.float(), batch[1]).backward()
        return time.perf_counter() - began

    return step


def _probe_batch(image_shape: tuple[int, int, int], num_classes: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(PROBE_IMAGES, *image_shape), torch.arange(PROBE_IMAGES) % num_classes


def _has_bfloat16() -> bool:
    """Tell whether this CPU has instructions for bfloat16; a build of torch without oneDNN does not even know the question."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _shape_of(model: Any) -> str:
    return f"{type(model).__name__} {[tuple(p.shape) for p in model.parameters()]}"


def _cached(key: str, find: Callable[[], Arithmetic]) -> Arithmetic:
    """Return what was found on this machine before, else what `find` finds. A cache that cannot be had only costs the time to find it."""
    with suppress(StorageError, OSError, ValueError, TypeError):
        return Arithmetic(**json.loads(_cache_path(key).read_text(encoding="utf-8")))
    found = find()
    with suppress(StorageError):
        path = _cache_path(key)
        make_dir(path.parent)
        write_json(path, asdict(found))
    return found


def _cache_path(key: str) -> Path:
    return cache_dir() / "arithmetic" / f"{mix(*key.encode()):016x}.json"
