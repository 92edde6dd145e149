"""Out of memory, on whichever side, as one error with the batch size that was tried."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from firstlight.errors import OutOfMemoryError


@contextmanager
def out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn the three ways in which torch and Python run out of memory into OutOfMemoryError."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemoryError(_message(batch_size)) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # the CPU's allocator raises no class of its own
            raise
        raise OutOfMemoryError(_message(batch_size)) from error


def _message(batch_size: int) -> str:
    smaller = max(1, batch_size // 2)
    return f"out of memory with train.batch_size={batch_size}; try train.batch_size={smaller} (train.accumulate=2 keeps the step the same)"
