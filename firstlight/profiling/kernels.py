"""The operations of torch in a training step: how long each kernel runs, what it computes and what it moves.

A dispatch mode sees each call below autograd, where a call is little but its kernel. What a call on a single number takes is measured
between them and taken off. Reading order: Watcher, _Watch, bytes_of, multiply_adds_of.
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

TURN_SECONDS, MOST_STEPS = 0.06, 20
"""How long steps are watched at a turn, and how many at most; at least one."""
TINY_EVERY = 4
"""Behind every so many operations, one on a single number is timed."""
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
    """All kernels of a step, in order. num_calls: of all operations, those without a kernel too; call_seconds: of one on a number."""

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
    """One operation as it was seen: its name, what it computes and moves; 0 and 0 for those without a kernel."""

    __slots__ = ("flops", "is_kernel", "name", "num_bytes")

    def __init__(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        self.name = name_of(function)
        self.is_kernel = not function.is_view and not self.name.startswith(EMPTY)
        self.flops = 2 * multiply_adds_of(function, args, result) if self.is_kernel else 0
        self.num_bytes = bytes_of(function, args, kwargs, result) if self.is_kernel else 0


class _Watch(TorchDispatchMode):
    """Times every operation of the block; with `sizes`, notes what each computes and moves as well."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler, 2 s of it, on the first call

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._number = torch.ones(1, device=device)
        self.sizes = True
        self.calls: list[_Call] = []
        self._times: list[Any] = []
        self._tiny: list[float] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        run = self._on_gpu if self._device == "cuda" else self._on_host
        result = run(func, args, kwargs)
        if self.sizes:
            self.calls.append(_Call(func, args, kwargs, result))
        return result

    def _on_host(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        began = time.perf_counter()
        result = func(*args, **kwargs)
        synchronize(self._device)
        self._times.append(time.perf_counter() - began)
        if len(self._times) % TINY_EVERY == 0:
            began = time.perf_counter()
            torch.neg(self._number)
            synchronize(self._device)
            self._tiny.append(time.perf_counter() - began)
        return result

    def _on_gpu(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(AHEAD_CYCLES)
        began.record()
        result = func(*args, **kwargs)
        ended.record()
        self._times.append((began, ended))
        return result

    def take_seconds(self) -> list[float]:
        """Return the seconds of each operation since the last time, and behind them those of one on a number.

        On a GPU its own time counts alone, and so nothing is taken off: that is 0.
        """
        times, tiny = self._times, self._tiny
        self._times, self._tiny = [], []
        if self._device != "cuda":
            return [*times, statistics.median(tiny) if tiny else 0.0]
        torch.cuda.synchronize()
        return [*(began.elapsed_time(ended) / 1000 for began, ended in times), 0.0]


class Watcher:
    """Watches steps of a training, a few at each turn between rounds that nobody watches."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._watch = _Watch(training.setup.arithmetic.device)
        self._turns: list[list[float]] = []
        training.step_on(training.next_batch())  # the optimizer's first step is another one than the rest
        self._step()  # in which torch sets itself up for the mode
        self._watch.sizes = False
        began = time.perf_counter()
        self._step()
        self._num_steps = min(max(round(TURN_SECONDS / (time.perf_counter() - began)), 1), MOST_STEPS)

    def turn(self) -> None:
        """Watch some steps."""
        rows = [self._step() for _ in range(self._num_steps)]
        self._turns.append([statistics.median(column) for column in zip(*rows, strict=True)])

    def result(self, whole_seconds: Sequence[float]) -> StepKernels:
        """Return the kernels of a step: the median over the turns of their share in the step that was measured whole beside them.

        whole_seconds: a step of each turn. What other processes slow down, they slow down both; so the shares hold.
        """
        shares = [[value / whole for value in turn] for turn, whole in zip(self._turns, whole_seconds, strict=True)]
        step = statistics.median(whole_seconds)
        *seconds, tiny = [step * statistics.median(column) for column in zip(*shares, strict=True)]
        kernels = tuple(
            Kernel(call.name, max(value - tiny, 0.0), call.flops, call.num_bytes)
            for call, value in zip(self._watch.calls, seconds, strict=True)
            if call.is_kernel
        )
        return StepKernels(kernels, len(seconds), tiny)

    def _step(self) -> list[float]:
        batch = self._training.next_batch()
        with self._watch:
            self._training.step_on(batch)
        return self._watch.take_seconds()


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
    return int(result.numel() * math.prod(args[1].shape[1:]))


def _convolution_backward(args: Sequence[Any], result: Any) -> int:
    slope, _, weight = args[:3]
    wanted = args[10]  # by the images, by the weights, by the bias
    return int(slope.numel() * math.prod(weight.shape[1:]) * sum(wanted[:2]))


MULTIPLY_ADDS: Mapping[str, Callable[[Sequence[Any], Any], int]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addmm_", "baddbmm_"), _added_product),
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
}
"""How many multiply-adds an operation makes; what is elementwise, pools or normalises counts nothing, as in torch.utils.flop_counter."""


def multiply_adds_of(function: Any, args: Sequence[Any], result: Any) -> int:
    """Return how many multiply-adds an operation made."""
    count = MULTIPLY_ADDS.get(name_of(function))
    return 0 if count is None else count(args, result)


def name_of(function: Any) -> str:
    """Return the name of an operation without the library that it is from."""
    return str(function._schema.name.partition("::")[2])
