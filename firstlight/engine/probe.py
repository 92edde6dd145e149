"""Which arithmetic is the fastest for a network on this machine, found by timing steps of growing batches within half a second.

The choice is printed, written into the run, and kept in the cache, so that the same machine chooses the same again.
Reading order: settle, fastest, _race, _choose, _together.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from firstlight.config.schema import DeviceConfig
from firstlight.engine.device import Arithmetic, choose_device
from firstlight.engine.seeding import mix, private_randomness
from firstlight.errors import StorageError
from firstlight.files import cache_dir, make_dir, write_json
from firstlight.tracking.environment import cpu_model

PROBE_VERSION = 3
"""Part of the cache's key: what an older way of probing found is not taken over."""
BUDGET_SECONDS = 0.5
"""Of a whole probe. Where a single image takes longer, each candidate is still timed once on it."""
BATCHES = (1, 4, 16, 64, 128)
"""Images of the rounds: as many rounds are run as the budget bears, and the last one decides."""
STEPS_FOR_THREADS = 4
"""Steps that the comparison of one thread with all costs, counted in steps on one thread: two alone, and three on two threads or more."""
HOPELESS = 2.0
"""A candidate so many times slower than the best is not timed on a larger batch."""
NEARLY = 1.1
"""Between a batch that a probe can afford and one of 128 images, channels_last gains so much on contiguous: AlexNet at 70x70 takes
8 % longer in it for a step on 8 images, and 11 % less on 64 (one Zen 4 core)."""
WORTH_THREADS = 0.9
"""All threads are taken where a step is faster than this share of one thread's: one alone is less disturbed by other processes."""
ENOUGH_IMAGES = 16
"""On fewer, which is all that the budget bears of a large network, any gain of all threads is taken as the sign of a larger one."""
COLLAPSED = 2.0
"""A step on all threads so many times slower than one alone is not tried again."""
BUSY = 1.25
"""Seconds by the clock for each second of processor time on one thread, from which on others are on the processor too."""
LARGE = 2**22
"""Values of a matrix whose gradient is not computed in a probe: all candidates compute it alike, and to get 144 MiB of fresh memory
for it (AlexNet) takes longer than all the rest."""


@dataclass(frozen=True)
class _Time:
    """Seconds of a step, by the clock and of the processors."""

    wall: float
    cpu: float


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
        f"{PROBE_VERSION} {cpu_model()} {torch.__version__} {all_threads} {image_shape} {num_classes} {fixed} {_shape_of(model)}",
        lambda: fastest(model, image_shape, fixed, all_threads),
    )


def fastest(model: Any, image_shape: tuple[int, int, int], fixed: Mapping[str, Any], all_threads: int) -> Arithmetic:
    """Return the fastest arithmetic on the CPU that agrees with `fixed`, and how it was found. The model is left as it was.

    The number formats and memory orders are ranked on one thread by processor time, which other processes disturb least. Then a step of
    the winner on all threads is compared by the clock with one alone. Where others are on the processors, it stays at one thread: two
    that wait for each other at each of a network's loops took 100 times as long (cnn5 and resnet18 on 2 busy Zen 4 cores).
    """
    began = time.perf_counter()
    deadline = began + BUDGET_SECONDS
    formats = ["contiguous", "channels_last"] if any(p.ndim == 4 for p in model.parameters()) else ["contiguous"]
    precisions = ["float32", "bfloat16"] if has_bfloat16() else ["float32"]  # elsewhere it is emulated, and slower
    candidates = [
        Arithmetic("cpu", precision, memory_format, 1)
        for memory_format in ([fixed["memory_format"]] if "memory_format" in fixed else formats)
        for precision in ([fixed["precision"]] if "precision" in fixed else precisions)
    ]
    threads = fixed.get("threads", 1)
    with private_randomness():
        steps = {candidate: _step_of(model, image_shape, candidate) for candidate in candidates}
        raced, spent = time.perf_counter(), time.process_time()
        num_images, times = _race(steps, deadline)
        busy = time.perf_counter() - raced > BUSY * (time.process_time() - spent)
        best = _choose(times)
        milliseconds = {f"{c.precision} {c.memory_format}, threads 1": 1e3 * seconds.cpu for c, seconds in times.items()}
        if "threads" not in fixed and all_threads > 1 and not busy:
            size = _affordable(times[best].wall / num_images, num_images, deadline)
            alone = times[best].wall if size == num_images else _timed(steps[best], size).wall
            together = _together(steps[best], size, alone, all_threads, deadline)
            threads = all_threads if together < (WORTH_THREADS if size >= ENOUGH_IMAGES else 1) * alone else 1
            for number, seconds_together in ((1, alone), (all_threads, together)):
                milliseconds[f"{best.precision} {best.memory_format}, threads {number}, {size} images"] = 1e3 * seconds_together
    found = {"num_images": num_images, "milliseconds": {name: round(value, 3) for name, value in milliseconds.items()}, "busy": busy}
    return replace(best, threads=threads, probe={"seconds": round(time.perf_counter() - began, 3), **found})


Step = Callable[[int, int], _Time]
"""Run one step on so many images and threads."""


def _race(steps: Mapping[Arithmetic, Step], deadline: float) -> tuple[int, dict[Arithmetic, _Time]]:
    """Time all steps on one image, then the promising ones on larger and larger batches; return the last batch size and its times."""
    patience = BUDGET_SECONDS / 4 / len(steps)
    num_images, times = BATCHES[0], {candidate: _timed(step, BATCHES[0], patience) for candidate, step in steps.items()}
    for size in BATCHES[1:]:
        best = min(spent.cpu for spent in times.values())
        running = [candidate for candidate, spent in times.items() if spent.cpu <= HOPELESS * best]
        longest = max(times[candidate].wall for candidate in running) * size / num_images
        if time.perf_counter() + longest * (2 * len(running) + STEPS_FOR_THREADS) > deadline:
            break
        num_images, times = size, {candidate: _timed(steps[candidate], size) for candidate in running}
    return num_images, times


def _timed(step: Step, num_images: int, patience: float = math.inf) -> _Time:
    """Return the time of a step on one thread after one that prepares the kernels for this batch size, or of that one where it is long."""
    first = step(num_images, 1)
    return step(num_images, 1) if first.wall <= patience else first


def _choose(times: Mapping[Arithmetic, _Time]) -> Arithmetic:
    """Return the fastest; of those that are nearly as fast, one in channels_last."""
    best = min(times, key=lambda candidate: times[candidate].cpu)
    near = [candidate for candidate in times if candidate.channels_last and times[candidate].cpu <= NEARLY * times[best].cpu]
    return min(near, key=lambda candidate: times[candidate].cpu, default=best)


def _affordable(seconds_an_image: float, least: int, deadline: float) -> int:
    """Return the largest batch on which one thread and all can be compared in the time that is left; never less than `least`.

    On few images two threads gain nothing: airbench's step on 4 took 16.6 ms on two and 15.4 on one, and on 500 half the time.
    """
    left = deadline - time.perf_counter()
    return max(size for size in BATCHES if size == least or (size > least and size * seconds_an_image * STEPS_FOR_THREADS <= left))


def _together(step: Step, num_images: int, alone: float, all_threads: int, deadline: float) -> float:
    """Return the seconds by the clock of a step on all threads: the best of three, or fewer where they stand in wait or time is up."""
    best = math.inf
    for _ in range(3):
        best = min(best, step(num_images, all_threads).wall)
        if best > COLLAPSED * alone or time.perf_counter() > deadline:
            break
    return best


def _step_of(model: Any, image_shape: tuple[int, int, int], arithmetic: Arithmetic) -> Step:
    """Return what runs forward and backward of a copy of the model; the copy shares all weights that keep their place in memory."""
    shared = [p for p in model.parameters() if p.ndim != 4 or not arithmetic.channels_last]
    copy = arithmetic.place(deepcopy(model, {id(parameter): parameter for parameter in shared}))
    wanted = [p for p in copy.parameters() if p.requires_grad and (p.ndim == 4 or p.numel() < LARGE)]
    copy.train()

    def step(num_images: int, threads: int) -> _Time:
        images = torch.zeros(num_images, *image_shape)
        images = images.contiguous(memory_format=torch.channels_last) if arithmetic.channels_last else images
        with replace(arithmetic, threads=threads).on_threads():
            began, spent = time.perf_counter(), time.process_time()
            with arithmetic.autocast():
                logits = copy(images)
            torch.autograd.grad(cross_entropy(logits.float(), torch.zeros(num_images, dtype=torch.int64)), wanted)
            return _Time(time.perf_counter() - began, time.process_time() - spent)

    return step


def has_bfloat16() -> bool:
    """Tell whether this CPU has instructions for bfloat16; a build of torch without oneDNN does not even know the question."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _shape_of(model: Any) -> str:
    return f"{type(model).__name__} {[tuple(p.shape) for p in model.parameters()]}"


def _cached(key: str, find: Callable[[], Arithmetic]) -> Arithmetic:
    """Return what was found on this machine before, else what `find` finds. A cache that cannot be had only costs the time to find it.

    What was found beside busy processes holds for that run alone.
    """
    with suppress(StorageError, OSError, ValueError, TypeError, KeyError):
        known = Arithmetic(**json.loads(_cache_path(key).read_text(encoding="utf-8")))
        if known.probe is None or not known.probe["busy"]:
            return known
    found = find()
    with suppress(StorageError):
        path = _cache_path(key)
        make_dir(path.parent)
        write_json(path, asdict(found))
    return found


def _cache_path(key: str) -> Path:
    return cache_dir() / "arithmetic" / f"{mix(*key.encode()):016x}.json"
