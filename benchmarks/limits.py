"""What the arithmetic of a workload would cost alone: arms for benchmarks/pairs.py beside which a share of the limit is stated.

`python -m benchmarks.limits gemms|convs FOLDER [--threads N]`
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.turns import Turns
from benchmarks.workload import Workload


def gemms(workload: Workload, turns: Turns) -> None:
    """Do nothing but the matrix products of a step of an MLP: forward, gradient of the weights, gradient of the input but the first."""
    layers = [layer for layer in workload.build_model().modules() if isinstance(layer, nn.Linear)]
    products = []
    for number, layer in enumerate(layers):
        weight, inputs = layer.weight.detach(), torch.rand(workload.batch_size, layer.in_features)
        outputs = torch.rand(workload.batch_size, layer.out_features)
        products += [(inputs, weight.t(), torch.empty_like(outputs)), (outputs.t(), inputs, torch.empty_like(weight))]
        if number:
            products.append((outputs, weight, torch.empty_like(inputs)))

    def steps() -> int:
        for _ in range(workload.num_steps):
            for left, right, out in products:
                torch.mm(left, right, out=out)
        return workload.num_steps

    turns.repeat(steps)


def convs(workload: Workload, turns: Turns) -> None:
    """Run the convolution on which this machine does most arithmetic, and count in images of the workload (6 a multiply-add)."""
    best = max(cases(), key=lambda case: rate(*case))
    work, operations = convolution(*best)
    flops_per_image = workload.training_flops_per_image()

    def images() -> float:
        for _ in range(5):
            work()
        return 5 * operations / flops_per_image

    dtype, memory_format, channels, size = best
    name = f"{str(dtype).removeprefix('torch.')}, {str(memory_format).removeprefix('torch.')}, {channels} channels at {size} pixels"
    turns.repeat(images, convolution=name)


Case = tuple[torch.dtype, torch.memory_format, int, int]


def cases() -> list[Case]:
    """Return what is tried: number format, order in memory, channels, pixels a side."""
    has_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    dtypes = [torch.float32, torch.bfloat16] if has_bfloat16 else [torch.float32]
    orders = [torch.contiguous_format, torch.channels_last]
    return [(dtype, order, channels, size) for dtype in dtypes for order in orders for channels, size in ((64, 32), (128, 16), (256, 8))]


def convolution(dtype: torch.dtype, memory_format: torch.memory_format, channels: int, size: int) -> tuple[Callable[[], object], int]:
    """Return a 3x3 convolution of 64 images to call, and its operations (2 a multiply-add)."""
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(dtype).to(memory_format=memory_format)  # type: ignore[call-overload]
    images = torch.rand(64, channels, size, size).to(dtype).contiguous(memory_format=memory_format)

    def work() -> object:
        with torch.no_grad():
            return layer(images)

    return work, 2 * 64 * channels * channels * 9 * size * size


def rate(*case: torch.dtype | torch.memory_format | int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the operations a second of a convolution, the best of three; by time.process_time a processor's second of all threads."""
    work, operations = convolution(*case)  # type: ignore[arg-type]
    seconds = []
    for _ in range(4):
        began = clock()
        work()
        seconds.append(clock() - began)
    return operations / min(seconds)


def main() -> None:
    """Be the arm that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=("gemms", "convs"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    turns = Turns()
    torch.set_num_threads(words.threads)
    workload = Workload.read(words.folder)
    (gemms if words.arm == "gemms" else convs)(workload, turns)


if __name__ == "__main__":
    main()
