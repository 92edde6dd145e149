"""The memory in use and its peak, of the GPU or of this process, and a way to let the peak begin anew."""

import os
from contextlib import suppress

import torch

from firstlight.engine.memory import host_memory


def memory_in_use(device: str) -> int:
    """Return the bytes in use: of the GPU, else of the host."""
    return torch.cuda.memory_allocated() if device == "cuda" else host_memory("VmRSS") or 0


def reset_peak(device: str) -> bool:
    """Let the peak of this process begin anew; tell whether the system could (CUDA and Linux can)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return True
    with suppress(OSError):
        handle = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            return os.write(handle, b"5") == 1  # proc(5): VmHWM is what is in use now
        finally:
            os.close(handle)
    return False
