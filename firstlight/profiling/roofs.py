"""What this machine can do at best, measured within a second: matrix products, convolutions, copies, and calls that do next to nothing."""

import bisect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from firstlight.engine.device import Arithmetic
from firstlight.profiling.kernels import Kernel
from firstlight.profiling.parts import synchronize

REPEAT_SECONDS = 0.05
"""How long each candidate is repeated; its fastest call counts, since a roof is what nothing gets through."""


@dataclass(frozen=True)
class Roofs:
    """Measured limits of a machine in one arithmetic.

    gemm_flops, conv_flops: floating-point operations a second, 2 a multiply-add; copy_bytes: pairs of the bytes that a copy reads and
    writes, growing, and its bytes a second; call_seconds: of an operation on one number.
    """

    gemm_flops: float
    conv_flops: float
    copy_bytes: tuple[tuple[int, float], ...]
    call_seconds: float

    @property
    def flops(self) -> float:
        """The compute roof: the better of matrix product and convolution."""
        return max(self.gemm_flops, self.conv_flops)

    def bandwidth(self, num_bytes: int) -> float:
        """Return the bytes a second of an operation that moves so many: less fit into a cache, which is faster than memory."""
        sizes = [size for size, _ in self.copy_bytes]
        place = bisect.bisect_left(sizes, num_bytes)
        if place in (0, len(sizes)):
            return self.copy_bytes[min(place, len(sizes) - 1)][1]
        (low, slow), (high, fast) = self.copy_bytes[place - 1 : place + 1]
        share = math.log(num_bytes / low) / math.log(high / low)
        return float(slow * (fast / slow) ** share)

    def least_seconds(self, kernel: Kernel) -> tuple[float, float]:
        """Return what a kernel takes at least for its multiply-adds and for its bytes; the larger one is its roof."""
        return kernel.flops / self.flops, kernel.num_bytes / self.bandwidth(kernel.num_bytes)


def measure_roofs(arithmetic: Arithmetic) -> Roofs:
    """Measure the limits of this machine on the device, threads and number format of an arithmetic."""
    device, cuda = torch.device(arithmetic.device), arithmetic.device == "cuda"
    dtype = torch.bfloat16 if arithmetic.precision == "bfloat16" else torch.float32
    with arithmetic.on_threads(), torch.no_grad():
        gemm = max(_gemm(size, device, dtype) for size in ((1024, 4096, 8192) if cuda else (256, 512, 1024)))
        conv = max(
            _conv(width, num, device, dtype, arithmetic) for width, num in (((64, 512), (256, 512)) if cuda else ((64, 8), (128, 8)))
        )
        scalar = torch.ones(1, device=device)
        call = _fastest(lambda: torch.neg(scalar), device, calls=200)
        sizes = [2**power for power in range(15, 29 if cuda else 27, 2)]
        copies = tuple((2 * size, 2 * size / _copy(size, device, call)) for size in sizes)
    return Roofs(gemm, conv, copies, call)


def _gemm(size: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: left @ right, device)


def _conv(width: int, num_images: int, device: torch.device, dtype: torch.dtype, arithmetic: Arithmetic) -> float:
    """Return the rate of a 3x3 convolution of 16x16 pixels with as many outputs as inputs."""
    layer = arithmetic.place(torch.nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)).to(dtype)
    images = torch.rand(num_images, width, 16, 16, device=device).to(dtype)
    images = images.contiguous(memory_format=torch.channels_last) if arithmetic.channels_last else images
    return 2 * 9 * width**2 * 256 * num_images / _fastest(lambda: layer(images), device)


def _copy(size: int, device: torch.device, call_seconds: float) -> float:
    """Return the seconds of copying so many bytes, less what a call takes."""
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    calls = max(1, 2**20 // size)
    seconds = _fastest(lambda: target.copy_(source), device, calls=calls)
    return max(seconds - call_seconds, seconds / 2)


def _fastest(function: Callable[[], object], device: torch.device, *, calls: int = 1) -> float:
    """Return the seconds of the fastest call, where so many are timed at once."""
    function()
    synchronize(device.type)
    least, ends, num = math.inf, time.perf_counter() + REPEAT_SECONDS, 0
    while num < 3 or time.perf_counter() < ends:
        began = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize(device.type)
        least, num = min(least, (time.perf_counter() - began) / calls), num + 1
    return least
