"""The operations of torch in a training step: how long each kernel runs, what it computes and what it moves.

A dispatch mode sees each call below autograd, where a call is little but its kernel. What a call takes that has no kernel at all (a view)
is measured in the same steps and taken off. Reading order: measure_kernels, _Watch, multiply_adds_of.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from firstlight.profiling.parts import Training, synchronize

MIN_STEPS, MOST_STEPS, MOST_SECONDS = 3, 50, 2.0
"""Steps that are watched, after one in which torch sets itself up for it."""
EMPTY = ("empty", "new_empty", "lift_fresh", "resize")
"""Beginnings of the names of operations that compute nothing and are no views."""
AHEAD_CYCLES = 200_000
"""What a GPU is kept busy with while a call is on its way, so that its kernel does not wait for the host: 0.1 ms at 2 GHz."""


@dataclass(frozen=True)
class Kernel:
    """One operation of a step. flops: 2 a multiply-add; num_bytes: of all tensors that it reads and writes, each once."""

    name: str
    seconds: float
    flops: int
    num_bytes: int


@dataclass(frozen=True)
class StepKernels:
    """All kernels of a step, in order. num_calls: of all operations, those without a kernel too; call_seconds: of one without."""

    kernels: tuple[Kernel, ...]
    num_calls: int
    call_seconds: float

    @property
    def seconds(self) -> float:
        """Of all kernels together."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def flops(self) -> int:
        """Floating-point operations of the step, 2 a multiply-add; elementwise ones count nothing."""
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def num_bytes(self) -> int:
        """Bytes that the kernels read and write."""
        return sum(kernel.num_bytes for kernel in self.kernels)


class _Call:
    """One operation as it was seen: its kind, what it computes and moves; 0 and 0 for those without a kernel."""

    __slots__ = ("flops", "function", "is_kernel", "num_bytes")

    def __init__(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        self.function = function
        self.is_kernel = not function.is_view and not function._schema.name.partition("::")[2].startswith(EMPTY)
        self.flops = 2 * multiply_adds_of(function, args, result) if self.is_kernel else 0
        self.num_bytes = bytes_of(function, args, kwargs, result) if self.is_kernel else 0


class _Watch(TorchDispatchMode):
    """Times every operation of the block; with `sizes`, notes what each computes and moves as well."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler, 2 s of it, on the first call

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device
        self.sizes = True
        self.calls: list[_Call] = []
        self.moments: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if self._device == "cuda":
            result = self._timed_on_gpu(func, args, kwargs)
        else:
            began = time.perf_counter()
            result = func(*args, **kwargs)
            synchronize(self._device)
            self.moments.append(time.perf_counter() - began)
        if self.sizes:
            self.calls.append(_Call(func, args, kwargs, result))
        return result

    def _timed_on_gpu(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(AHEAD_CYCLES)
        began.record()
        result = func(*args, **kwargs)
        ended.record()
        self.moments.append((began, ended))
        return result

    def take_seconds(self) -> list[float]:
        """Return the seconds of each operation since the last time."""
        moments, self.moments = self.moments, []
        if self._device != "cuda":
            return moments
        torch.cuda.synchronize()
        return [began.elapsed_time(ended) / 1000 for began, ended in moments]


def measure_kernels(training: Training) -> StepKernels:
    """Watch some steps of a training, whose batches are made before, and return the median of each kernel."""
    watch = _Watch(training.setup.arithmetic.device)
    rows: list[list[float]] = []
    deadline = math.inf
    for number in range(MOST_STEPS + 1):
        batch = training.next_batch()
        with watch:
            training.step_on(batch)
        seconds = watch.take_seconds()
        if number == 0:
            watch.sizes = False
            deadline = time.perf_counter() + MOST_SECONDS
            continue
        if len(seconds) == len(watch.calls):
            rows.append(seconds)
        if len(rows) >= MIN_STEPS and time.perf_counter() > deadline:
            break
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    idle = [seconds for call, seconds in zip(watch.calls, medians, strict=True) if not call.is_kernel]
    call_seconds = statistics.median(idle) if idle else 0.0
    kernels = tuple(
        Kernel(call.function._schema.name.partition("::")[2], max(seconds - call_seconds, 0.0), call.flops, call.num_bytes)
        for call, seconds in zip(watch.calls, medians, strict=True)
        if call.is_kernel
    )
    return StepKernels(kernels, len(watch.calls), call_seconds)


def bytes_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the bytes that an operation reads and writes: its tensors, those it changes in place twice, and what it returns."""
    taken = [(argument, value) for argument, value in zip(function._schema.arguments, args, strict=False)]
    taken += [(argument, kwargs[argument.name]) for argument in function._schema.arguments if argument.name in kwargs]
    total, known = 0, set()
    for argument, value in taken:
        written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in _tensors(value):
            known.add(id(tensor))
            total += _size(tensor) * (2 if written else 1)
    return total + sum(_size(tensor) for tensor in _tensors(result) if id(tensor) not in known)


def _size(tensor: Tensor) -> int:
    """Return the bytes of a tensor; one that is spread out over a dimension takes no more than what it is spread from."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _product(args: Sequence[Any], result: Any) -> int:
    return int(result.numel()) * int(args[0].shape[-1])


def _added_product(args: Sequence[Any], result: Any) -> int:
    return int(result.numel()) * int(args[1].shape[-1])


def _convolution(args: Sequence[Any], result: Any) -> int:
    return int(result.numel()) * math.prod(args[1].shape[1:])


def _convolution_backward(args: Sequence[Any], result: Any) -> int:
    slope, _, weight = args[:3]
    wanted = args[10]  # by the images, by the weights, by the bias
    return int(slope.numel()) * math.prod(weight.shape[1:]) * sum(wanted[:2])


MULTIPLY_ADDS: Mapping[str, Callable[[Sequence[Any], Any], int]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addmm_", "baddbmm_"), _added_product),
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
}
"""How many multiply-adds an operation makes; what is elementwise, pools or normalises counts nothing, as in torch.utils.flop_counter."""


def multiply_adds_of(function: Any, args: Sequence[Any], result: Any) -> int:
    """Return how many multiply-adds an operation made."""
    count = MULTIPLY_ADDS.get(function._schema.name.partition("::")[2])
    return 0 if count is None else count(args, result)
