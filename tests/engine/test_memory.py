"""Out of memory is one line with exit code 6: during what, how much was taken, and what to do, on the host and on a device."""

import errno
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import firstlight as fl
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import evaluate_model
from firstlight.engine.memory import out_of_memory, smaller_batch
from firstlight.errors import OutOfMemoryError

PIB = 1 << 50
LIMITED = """
import resource, sys
import firstlight.engine.train  # torch and all that a training imports take their address space first
from firstlight.__main__ import main
kib = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (kib * 1024 + (256 << 20),) * 2)
main(sys.argv[1:])
"""
"""The command `firstlight` with 256 MiB of address space for itself."""


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "take",
    [
        pytest.param(lambda: torch.empty(PIB, dtype=torch.uint8), id="torch's CPU allocator"),
        pytest.param(lambda: np.empty(PIB, dtype=np.uint8), id="numpy"),
        pytest.param(lambda: bytearray(PIB), id="Python"),
        pytest.param(raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")), id="CUDA"),
        pytest.param(raising(RuntimeError("CUDA error: out of memory")), id="CUDA's driver"),
        pytest.param(raising(RuntimeError("MPS backend out of memory (MPS allocated: 6.5 GB, max allowed: 9.1 GB).")), id="MPS"),
        pytest.param(raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")), id="cuBLAS"),
        pytest.param(raising(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), id="cuDNN"),
        pytest.param(raising(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")), id="cuDNN 9"),
        pytest.param(raising(RuntimeError("std::bad_alloc")), id="C++"),
        pytest.param(raising(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), id="the system"),
    ],
)
def test_every_way_to_run_out_of_memory_is_one_error(take: Callable[[], object]) -> None:
    """Faults 25 and 26. Host errors are the real ones; those of devices are the texts that torch gives them."""
    with (
        pytest.raises(OutOfMemoryError, match=r"^out of memory while painting \(peak until then [\d,]+ MiB\); buy a brush$"),
        out_of_memory("painting", "buy a brush"),
    ):
        take()


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(errno.ENOSPC, "full"), KeyError("x")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=re.escape(str(error))), out_of_memory("painting", "buy a brush"):
        raise error


def test_of_nested_stages_the_inner_one_speaks() -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"^out of memory while reading"),
        out_of_memory("training", "x"),
        out_of_memory("reading", "y"),
    ):
        raise MemoryError


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "num_images", "remedy"),
    [
        (64, 1, 1000, "try train.batch_size=32 (train.accumulate=2 keeps the step the same)"),
        (64, 3, 1000, "try train.batch_size=32 (train.accumulate=6 keeps the step the same)"),
        (5000, 1, 999, "try train.batch_size=500 (train.accumulate=2 keeps the step the same)"),
        (1, 1, 1000, "try a smaller network or a smaller input.image_size"),
    ],
    ids=["half", "accumulated", "batch above the data", "one image"],
)
def test_the_remedy_of_a_training_halves_what_a_batch_really_holds(batch_size: int, accumulate: int, num_images: int, remedy: str) -> None:
    assert smaller_batch(batch_size, accumulate, num_images) == remedy


@pytest.mark.parametrize(
    ("batch_size", "remedy"), [(500, "a smaller network or a smaller input.image_size"), (512, "a smaller train.batch_size")]
)
def test_an_evaluation_names_its_own_batch_and_remedy(batch_size: int, remedy: str) -> None:
    """Fault 26: batches of 500 and fewer do not come from train.batch_size, so that making it smaller would change nothing."""

    class Greedy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.empty(len(images), PIB)

    loader = Loader(fl.load_data("digits", "test"), batch_size=batch_size, seed=0, normalize=Normalize((0.3,), (0.4,)))
    with pytest.raises(OutOfMemoryError, match=rf"^out of memory while evaluating batches of {batch_size} .*; try {remedy}, or a machine"):
        evaluate_model(Greedy(), loader, 10, Arithmetic("cpu"))


def limited(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process with 256 MiB for itself."""
    env = {**os.environ, "COLUMNS": "200", "FIRSTLIGHT_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-c", LIMITED, *words]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["model={name: mlp, hidden: [100000]}", "train.batch_size=2048"],
            r"training with train.batch_size=2048 \(.*\); try train.batch_size=647 \(train.accumulate=2 keeps the step the same\)",
        ),
        (
            ["model={name: mlp, hidden: [1000000, 1000]}"],
            r"building the network \(.*\); try a smaller one \(its settings stand under `model`\)",
        ),
        (["input.image_size=1000"], r"reading the data \(.*\); try a smaller input.image_size, or fewer images"),
    ],
    ids=["training", "building", "reading"],
)
def test_a_command_that_runs_out_of_memory_says_so_in_one_line(tmp_path: Path, settings: list[str], message: str) -> None:
    """Faults 25 and 26: a real process under RLIMIT_AS; exit code 6, no traceback, and run.json says that the run failed."""
    fixed = "device={name: cpu, precision: float32, memory_format: contiguous, threads: 1}"
    done = limited("train", "quickstart", fixed, *settings, "--name", "large", "--runs-dir", str(tmp_path), cwd=tmp_path)
    *_, last = done.stderr.splitlines()
    assert done.returncode == 6, done.stderr
    assert re.search(rf"^error: out of memory while {message}$", last)
    assert "Traceback" not in done.stderr
    if (tmp_path / "large").exists():
        assert json.loads((tmp_path / "large" / "run.json").read_text())["state"] == "failed"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_a_command_without_a_stage_of_its_own_says_so_too(tmp_path: Path) -> None:
    """Fault 26: 20 photos of 16 MiB, decoded at once."""
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4096, 4096)).save(path)
    done = limited("data", "describe", "photos", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.splitlines()[-1] == "error: out of memory; close other programs, use smaller images, or a machine with more memory"
    assert "Traceback" not in done.stderr


ALLOCATIONS = """
import resource
from pathlib import Path
import torch
from firstlight.engine.memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB, 16,384 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

new_pages()
before = resident_mib()
with keep_freed_memory():
    pages = [new_pages() for _ in range(60)]  # until small blocks no longer part the large ones
    kept = resident_mib() - before
print(min(pages[30:]), kept, resident_mib() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator's settings are glibc's")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_at_the_end() -> None:
    """E10: within the block a large tensor touches no new page; behind it the memory is the system's again. In a process of its own."""
    out = subprocess.run([sys.executable, "-c", ALLOCATIONS], capture_output=True, text=True, check=True).stdout
    new_pages, kept, left = map(float, out.split())
    assert new_pages < 100
    assert kept > 60
    assert left < 10
