"""The child of engine/finders.py: it reads an experiment from the first line of stdin, then batch sizes, one a line.

To each it answers with a line of JSON: images/s and the peak of its memory. Where memory runs out it says so and ends, and where the
system kills it the parent sees its end.
"""

import sys
import time
from contextlib import suppress
from copy import copy
from pathlib import Path

import torch

from firstlight.engine.children import OUT_OF_MEMORY, answer, answer_errors, read_asked
from firstlight.engine.memory import (
    give_back_freed_memory,
    host_memory,
    is_out_of_memory,
    keep_freed_memory,
    out_of_memory,
    peak_memory_mib,
)
from firstlight.engine.seeding import seed_batch
from firstlight.engine.sources import load_config
from firstlight.engine.step import train_step
from firstlight.engine.train import Prepared, prepare
from firstlight.errors import OutOfMemoryError

MIN_STEPS, LEAST_SECONDS = 2, 0.2
"""Steps that are timed at least, after one to warm up, and how long small ones are repeated."""
SPARE = 0.9
"""Part of the free memory that a step may take where nothing else is said; the rest is for the other programs."""


def main() -> None:
    """Prepare the experiment, limit this process's memory, and answer until stdin ends."""
    asked = read_asked()
    with answer_errors(), out_of_memory("building the network", "try a smaller one, or fewer images"):
        prepared = prepare(load_config(asked["source"], *asked["overrides"]), Path(asked["data_dir"]))
    with prepared.setup.arithmetic.on_threads():
        with give_back_freed_memory():
            measure(prepared, 2)  # threads and libraries take their part before the limit is set
            forget_steps(prepared)
        limit_memory(prepared.setup.arithmetic.device, asked["memory_mib"])
        answer({"num_images": len(prepared.setup.train_loader.labels), "device": prepared.setup.arithmetic.device})
        with keep_freed_memory(ahead=0):
            for line in sys.stdin.buffer:
                try:
                    speed = measure(prepared, int(line))
                except Exception as error:
                    if isinstance(error, OutOfMemoryError) or is_out_of_memory(error):
                        answer({"why": OUT_OF_MEMORY})
                        return
                    answer({"why": f"{type(error).__name__}: {' '.join(str(error).split())}"})
                    continue
                answer({"images_per_second": speed, "peak_mib": peak_memory_mib()})


def measure(prepared: Prepared, batch_size: int) -> float:
    """Return the images/s of training steps on batches of a size, making the batches included."""
    state, setup = prepared.state, prepared.setup
    loader = copy(setup.train_loader)
    loader.batch_size = batch_size
    state.model.train()
    state.step = setup.total_steps  # images at their full size, where training begins with smaller ones
    num_images, num_steps, began = 0, -1, time.perf_counter()
    for epoch in range(10**9):
        for number, batch in enumerate(loader.batches(epoch, reuse_buffers=True)):
            seed_batch(setup.order_seed, epoch, number, device=setup.arithmetic.device)
            train_step(state, batch, setup, share=1, lr=1e-9).loss.item()  # waits for the device
            num_steps += 1
            if num_steps == 0:
                num_images, began = 0, time.perf_counter()
                continue
            num_images += len(batch.labels)
            seconds = time.perf_counter() - began
            if num_steps >= MIN_STEPS and seconds > LEAST_SECONDS:
                return num_images / seconds
    raise AssertionError("unreachable")


def forget_steps(prepared: Prepared) -> None:
    """Let nothing of earlier steps stay in memory: no gradients, no memory of the optimizer."""
    prepared.state.optimizer.zero_grad(set_to_none=True)
    prepared.state.optimizer.state.clear()
    if prepared.setup.arithmetic.device == "cuda":
        torch.cuda.empty_cache()


def limit_memory(device: str, memory_mib: float | None) -> None:
    """Let this process take so much memory beyond what it has by now; on the CPU what is free where nothing is said.

    On a GPU the limit is the device itself, unless something is said. Where the system knows no limit (Windows, macOS) there is none.
    """
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        wanted = total if memory_mib is None else torch.cuda.memory_reserved() + memory_mib * 2**20
        torch.cuda.set_per_process_memory_fraction(min(wanted / total, 1.0))
        return
    budget = memory_mib * 2**20 if memory_mib is not None else available_memory()
    with suppress(ImportError, OSError, ValueError):
        import resource

        size = host_memory("VmData")
        if budget is not None and size is not None:  # not RLIMIT_AS, which counts what the C library only reserves: 64 MiB a thread
            resource.setrlimit(resource.RLIMIT_DATA, (int(size + budget), resource.getrlimit(resource.RLIMIT_DATA)[1]))


def available_memory(root: Path = Path("/")) -> float | None:
    """Return the bytes that this process may still take, of the machine's and of its control group's; None where nothing says."""
    found = []
    with suppress(OSError, ValueError):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):
        group = root / "sys/fs/cgroup"
        most, taken = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        found.append(int(most) - int(taken))
    return SPARE * min(found) if found else None


if __name__ == "__main__":
    main()
