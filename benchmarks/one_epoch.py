"""One epoch of each large network on 5,000 images of CIFAR-10: the loss falls, and memory stays flat.

`python -m benchmarks.one_epoch`. Full runs are for GPUs.

Each network trains in a process of its own whose allocator gives freed memory back at once, so that the resident memory is what is
in use. glibc as it is keeps freed blocks for later: with it resnet18 (31 steps) swings between 833 and 975 MiB while 436 are in use, up and
down from the first step to the last, and two samples of that say nothing of growth.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import firstlight as fl
from benchmarks.record import Row, write_result
from firstlight.tracking.console import Bar, Console

NETWORKS = ("cifar10_cnn5", "alexnet", "resnet18")
SETTINGS = ("split.num_train=5000", "split.val_fraction=0.02", "train.epochs=1", "train.batch_size=64", "train.log_every=1")
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
"""Settings of glibc under which a block of 1 MiB and more goes back to the system as soon as it is free."""
WARM_UP_STEPS = 10
"""Steps after which every buffer of a step has been allocated."""


class MemoryConsole(Console):
    """A console that notes the resident memory of the process at every step."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.mib: list[float] = []

    @contextmanager
    def progress(self, what: str, total: int, *, done: int = 0) -> Iterator[Bar]:
        """Note memory in place of drawing a bar."""
        yield _Note(self.mib)


class _Note(Bar):
    def __init__(self, mib: list[float]) -> None:
        super().__init__(None, None)
        self._mib = mib

    def update(self, done: int, now: str = "") -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        self._mib.append(pages * 4096 / 2**20)


def measure(name: str) -> list[Row]:
    """Train one epoch and return the loss at both ends and the growth of memory."""
    console = MemoryConsole()
    with tempfile.TemporaryDirectory() as folder:
        run = fl.train(name, *SETTINGS, runs_dir=folder, console=console)
        losses = [row["loss"] for row in run.steps]
        seconds, source = run.summary["seconds"], run.info["data"]["source"]
    first, last = mean(losses[:8]), mean(losses[-8:])
    growth, whole = (max(mib) / console.mib[WARM_UP_STEPS] - 1 for mib in (console.mib, console.mib[:-1]))
    note = f"from {first:.2f} to {last:.2f} nats (means of 8 steps), {len(losses)} steps in {seconds:.0f} s; {source}"
    return [
        {
            "what": f"{name}: training loss, end of the epoch against its beginning",
            "value": round(last / first, 3),
            "unit": "x",
            "note": note,
        },
        {
            "what": f"{name}: growth of resident memory after step {WARM_UP_STEPS}",
            "value": round(100 * growth, 2),
            "unit": "%",
            "note": f"{100 * whole:.2f} % before the odd last batch, which needs its own kernels; peak {max(console.mib):,.0f} MiB in use",
        },
    ]


def measure_apart(name: str) -> list[Row]:
    """Measure a network in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.one_epoch", name]
    done = subprocess.run(command, env={**os.environ, **GIVE_BACK}, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout)
    return rows


def main() -> None:
    """Measure the three networks and record them."""
    rows = [row for name in NETWORKS for row in measure_apart(name)]
    write_result("one_epoch", "Large networks: one epoch on 5,000 images", "python -m benchmarks.one_epoch", rows)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in NETWORKS:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
