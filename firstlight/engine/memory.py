"""Memory of the host: kept from step to step, and, where there is no more, one error that says during what and what to do."""

import ctypes
import errno
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from firstlight.errors import OutOfMemoryError

TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "bad_alloc",  # C++ below torch
    "out of memory",  # CUDA's driver, and "MPS backend out of memory"
    "ALLOC_FAILED",  # CUBLAS_STATUS_, CUDNN_STATUS_, CUSOLVER_STATUS_
    "ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_
    "could not create a primitive",  # oneDNN: a convolution whose weights in its own order, or whose code, find no room
)
"""What torch and the libraries below it say where they have no class of their own for it."""


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Settings of glibc's allocator (mallopt(3))."""


@contextmanager
def keep_freed_memory(ahead: int = 2**26) -> Iterator[None]:
    """Let the C library keep what tensors free in the block for the next ones, and give it back to the system behind it.

    By default glibc returns every large block at once, and the kernel hands it out again page by page, cleared, which can take a quarter
    of a step. Elsewhere than on Linux with glibc nothing is changed. ahead: bytes that it takes beyond what is asked for, at each growth.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_TOP_PAD, ahead)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65536)  # glibc's own values
        libc.mallopt(_TRIM_THRESHOLD, 2**17)
        libc.mallopt(_TOP_PAD, 2**17)
        trim()


@contextmanager
def give_back_freed_memory() -> Iterator[None]:
    """Let the C library give every block of 4 MiB and more back as soon as it is freed, in the block.

    By default glibc keeps them in one heap once the first was freed, and what is read of a file in turn leaves holes there that nothing
    fills: over 8,000 images of 96 px, 221 MB, the peak grew by 0.8 GB. Elsewhere than on Linux with glibc nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 4 << 20)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # where glibc's own rule ends
        trim()


def trim() -> None:
    """Give what was freed back to the system, holes between what is still in use included; elsewhere than on glibc, nothing is done."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def out_of_memory(stage: str, remedy: str) -> Iterator[None]:
    """Turn every way in which Python, numpy and torch run out of memory in the block into OutOfMemoryError.

    stage: what the block does, such as "reading the data"; remedy: what to try. Of nested blocks the inner one speaks.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        peak = peak_memory_mib()
        taken = "" if math.isnan(peak) else f" (peak until then {peak:,.0f} MiB)"
        raise OutOfMemoryError(f"out of memory while {stage}{taken}; {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the device or the host had no memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS)
    )


def smaller_batch(batch_size: int, accumulate: int, num_images: int) -> str:
    """Return the remedy for a training on batches of `batch_size` of `num_images`: half of what a batch really holds."""
    images = min(batch_size, num_images)
    if images == 1:
        return "try a smaller network or a smaller input.image_size"
    return f"try train.batch_size={(images + 1) // 2} (train.accumulate={2 * accumulate} keeps the step the same)"


def peak_memory_mib() -> float:
    """Return the largest memory this process has used, in MiB: of the GPU where torch allocated there, else of the host."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if (found := host_memory("VmHWM")) is not None:  # the other figure begins, in a child, with what its parent had
        return round(found / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def host_memory(field: str) -> int | None:
    """Return the bytes in a field of Linux's /proc/self/status: VmRSS is used now, VmHWM the largest so far, VmData what can be written."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None
