"""How fast a training is at batch 1, 2, 4, ..., where the time of a step goes, and what binds it, against measured limits of the machine.

Each batch size is measured in a fresh process (profiling/point.py), so that running out of memory is a result. Reading order:
profile_throughput, measure, Point, knee_of, explain.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from firstlight.config.describe import to_dict
from firstlight.data.build import load_training_data
from firstlight.data.training_data import TrainingData
from firstlight.engine.children import OUT_OF_MEMORY, Child
from firstlight.engine.device import Arithmetic
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of
from firstlight.errors import ConfigError, FirstlightError, OutOfMemoryError
from firstlight.profiling.handover import pack
from firstlight.profiling.kernels import Kernel
from firstlight.profiling.roofs import Roofs
from firstlight.profiling.subject import Subject, find_subject
from firstlight.tracking.console import Console

CAUSES = ("data wait", "overhead", "memory", "compute")
"""What can bind a step. Overhead: what is neither waiting nor kernels, and what kernels take that does not grow with the batch and is no
traffic of weights. Memory and compute: the rest of each kernel, by the roof that is nearer to it."""
SLACK = 3.0
"""Times its roof that a kernel may take for weights, whatever the batch, before the rest counts as overhead: few kernels reach more than
a third of the roof."""
KNEE = 0.9
"""The knee is the smallest batch with so much of the best speed."""
GAIN = 1.05
"""Two doublings in a row that bring less than this over the best so far end the search, where no limit was asked for."""
PATIENCE = 2
NEAR = 16
"""The largest batch is found to one part in so many."""
FEW = 8
"""Images from which on a kernel does not count as small."""
NUM_TOP = 5
"""Kinds of kernels that are listed for each batch size, those that take longest."""


@dataclass(frozen=True)
class Point:
    """One batch size: what its step took, or `why` there is none.

    whole_seconds: a step in each round; parts: seconds by part; seconds: the median step; fixed_seconds: what each kernel takes however
    few images there are.
    """

    batch_size: int
    roofs: Roofs
    why: str | None = None
    num_steps: int = 0
    whole_seconds: Sequence[float] = ()
    seconds: float = 0.0
    parts: dict[str, float] | None = None
    sum_over_whole: float = 0.0
    busy: bool = False
    kernels: Sequence[Kernel] = ()
    fixed_seconds: Sequence[float] = ()
    num_calls: int = 0
    call_seconds: float = 0.0
    peak_mib: float = 0.0
    step_mib: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether its steps ended."""
        return self.why is None

    @property
    def images_per_second(self) -> float:
        """Of the median round."""
        return self.batch_size / self.seconds

    @property
    def spread(self) -> tuple[float, float]:
        """The images/s of the slowest and the fastest round."""
        return self.batch_size / max(self.whole_seconds), self.batch_size / min(self.whole_seconds)

    @cached_property
    def causes(self) -> dict[str, float]:
        """The seconds of a step by what took them; they add up to the step."""
        assert self.parts is not None
        fixed = self.fixed_seconds or [0.0] * len(self.kernels)
        computing = moving = 0.0
        for kernel, overhead in zip(self.kernels, fixed, strict=True):
            working = max(kernel.seconds - overhead, 0.0)
            if self._computes(kernel):
                computing += working
            else:
                moving += working
        wait = min(self.parts["data wait"], self.seconds)
        room = self.seconds - wait
        scale = min(1.0, room / (computing + moving)) if computing + moving else 1.0  # two measurements; the step is the one that holds
        return {
            "data wait": wait,
            "overhead": max(room - computing - moving, 0.0),
            "memory": moving * scale,
            "compute": computing * scale,
        }

    @property
    def binds(self) -> str:
        """The cause that takes most of the step."""
        return max(CAUSES, key=self.causes.__getitem__)

    @property
    def flops(self) -> int:
        """Floating-point operations of a step, 2 a multiply-add."""
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def num_bytes(self) -> int:
        """Bytes that its kernels read and write."""
        return sum(kernel.num_bytes for kernel in self.kernels)

    @property
    def ceilings(self) -> dict[str, float]:
        """Images/s that each cause alone would allow: the roofs of compute and memory, the measured overhead and data wait."""
        least = [self.roofs.least_seconds(kernel) for kernel in self.kernels]
        seconds = {
            "data wait": self.causes["data wait"],
            "overhead": self.causes["overhead"],
            "memory": sum(by_bytes for _, by_bytes in least),
            "compute": sum(by_flops for by_flops, _ in least),
        }
        return {cause: self.batch_size / value for cause, value in seconds.items() if value > 0}

    def sentence(self) -> str:
        """Return what binds a step, and by how much."""
        if self.why is not None:
            return f"batch {self.batch_size:,}: {self.why}"
        share = self.causes[self.binds] / self.seconds
        head = f"batch {self.batch_size:,}: {self.binds} binds, {share:.0%} of a step of {_time(self.seconds)}"
        return f"{head}; {self._detail()}"

    def _detail(self) -> str:
        kernels = self.causes["memory"] + self.causes["compute"]
        if self.binds == "data wait":
            return (
                f"a batch is there after {_time(self.causes['data wait'])}, and learned in {_time(self.seconds - self.causes['data wait'])}"
            )
        if self.binds == "overhead":
            return f"Python, {self.num_calls} calls of torch and setting up kernels, which then work for {_time(kernels)}"
        if self.binds == "memory":
            moving = [kernel for kernel in self.kernels if not self._computes(kernel)]
            rate = sum(kernel.num_bytes for kernel in moving) / max(self.causes["memory"], 1e-12)
            return f"kernels that move numbers, at {rate / 1e9:,.1f} GB/s; {self.flops / max(self.num_bytes, 1):.2g} FLOP a byte"
        computing = [kernel for kernel in self.kernels if self._computes(kernel)]
        rate = sum(kernel.flops for kernel in computing) / max(self.causes["compute"], 1e-12)
        reached = f"{rate / 1e9:,.0f} GFLOP/s, {rate / self.roofs.flops:.0%} of the best rate here"
        return f"multiply-adds, at {reached}; {self.flops / max(self.num_bytes, 1):.2g} FLOP a byte"

    def _computes(self, kernel: Kernel) -> bool:
        by_flops, by_bytes = self.roofs.least_seconds(kernel)
        return by_flops >= by_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data, by names that say their unit."""
        if self.why is not None:
            return {"batch_size": self.batch_size, "why": self.why, "says": self.sentence()}
        assert self.parts is not None
        low, high = self.spread
        return {
            "batch_size": self.batch_size,
            "images_per_second": self.images_per_second,
            "slowest_images_per_second": low,
            "fastest_images_per_second": high,
            "num_rounds": len(self.whole_seconds),
            "steps_a_round": self.num_steps,
            "step_seconds": self.seconds,
            "part_seconds": self.parts,
            "parts_over_step": self.sum_over_whole,
            "busy": self.busy,
            "cause_seconds": self.causes,
            "binds": self.binds,
            "flops": self.flops,
            "bytes": self.num_bytes,
            "flops_per_byte": self.flops / max(self.num_bytes, 1),
            "num_calls": self.num_calls,
            "call_seconds": self.call_seconds,
            "ceilings": self.ceilings,
            "kernels": self._top(),
            "peak_mib": self.peak_mib,
            "step_mib": self.step_mib,
            "says": self.sentence(),
        }

    def _top(self) -> list[dict[str, Any]]:
        seconds: dict[str, float] = {}
        for kernel in self.kernels:
            seconds[kernel.name] = seconds.get(kernel.name, 0.0) + kernel.seconds
        longest = sorted(seconds.items(), key=lambda item: -item[1])[:NUM_TOP]
        times = Counter(kernel.name for kernel in self.kernels)
        return [{"name": name, "times": times[name], "seconds": value} for name, value in longest]


def profile_throughput(
    source: str | None,
    *overrides: str,
    memory_mib: float | None = None,
    limit: int | None = None,
    out: Path | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure growing batches of an experiment or a run, draw them, and return the figures as plain data.

    memory_mib: what a step may take beyond data and network, else what is free; limit: the largest batch to try. With either the search
    goes on past the knee, until there is no more memory or no more images. Raises OutOfMemoryError where not even one image fits.
    """
    from firstlight.plotting.throughput import plot_throughput

    if memory_mib is not None and memory_mib <= 0:
        raise ConfigError(f"--memory is {memory_mib:g} MiB, which leaves nothing to measure; take a number above 0")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}, which leaves nothing to measure; take 1 or more")
    subject = find_subject(source, overrides, runs_dir)
    with out_of_memory("reading the data", "try a smaller input.image_size, or fewer images"):
        data = load_training_data(subject.config, data_dir_of(data_dir))
    said = console or Console(quiet=True)
    roofs, arithmetic, tried = measure(subject, data, memory_mib=memory_mib, limit=limit, console=said)
    points = with_fixed_seconds(sorted(tried, key=lambda point: point.batch_size))
    fitting = [point for point in points if point.fits]
    if not fitting:
        raise OutOfMemoryError(f"not even a batch of one image of {subject.name} fits; try a smaller network or more memory")
    failed = [point.batch_size for point in points if point.why == OUT_OF_MEMORY]
    says = explain(subject.name, fitting, failed)
    knee = None if still_grows(fitting) else knee_of(fitting)
    figure = plot_throughput(
        [point.to_json() for point in fitting], failed=failed, knee=None if knee is None else knee.batch_size, title=says
    )
    figures = {
        "num_images": data.record.num_train,
        "says": says,
        "largest": fitting[-1].batch_size,
        "out_of_memory": failed,
        "fastest": max(fitting, key=lambda point: point.images_per_second).batch_size,
        "knee": None if knee is None else knee.batch_size,
        "binds": (knee or fitting[-1]).binds,
        "arithmetic": arithmetic.describe(),
        "remarks": remarks(fitting, graph=subject.config.device.graph),
        "roofs": asdict(roofs),
        "points": [point.to_json() for point in points],
    }
    return subject.keep("throughput", figures, figure, out)


def measure(
    subject: Subject, data: TrainingData, *, memory_mib: float | None, limit: int | None, console: Console
) -> tuple[Roofs, Arithmetic, list[Point]]:
    """Return the limits of the machine, the arithmetic that was settled on, and every batch size that was tried, in that order."""
    settled, roofs = subject.arithmetic, None
    most = min(limit or len(data.train), len(data.train))
    points: list[Point] = []

    def attempt(size: int) -> bool:
        nonlocal settled, roofs
        with _child(subject, data, settled, memory_mib) as child:
            if roofs is None or settled is None:
                settled, roofs = Arithmetic(**child.ready["arithmetic"]), _ask_roofs(child)
                console.line(f"device: {settled.describe()}")
                console.line(show_roofs(roofs))
            points.append(_ask_point(child, size, roofs))
        console.line(show_point(points[-1]))
        if points[-1].why not in (None, OUT_OF_MEMORY):
            raise FirstlightError(f"a step on {size} images failed: {points[-1].why}; try `firstlight train` with train.batch_size={size}")
        return points[-1].fits

    size, largest = 1, 0
    failed: int | None = None
    while failed is None:
        if not attempt(size):
            failed = size
        elif size == most or (memory_mib is None and limit is None and is_past_the_knee(points)):
            break
        else:
            largest, size = size, min(2 * size, most)
    while failed is not None and failed - largest > max(1, largest // NEAR):
        middle = (largest + failed) // 2
        largest, failed = (middle, failed) if attempt(middle) else (largest, middle)
    assert roofs is not None and settled is not None
    return roofs, settled, points


def with_fixed_seconds(points: Sequence[Point]) -> list[Point]:
    """Return the points with what each kernel takes whatever the batch: its time at one image less what the next images add, each.

    The growth is taken between batch 1 and the largest one of at most FEW images. What the roofs allow a kernel on one image, SLACK times,
    is work and not overhead: a weight matrix that is read once a step, say. points: by growing batch size.
    """
    few = [point for point in points if point.fits and point.batch_size <= FEW]
    if len(few) < 2 or few[0].batch_size != 1:
        return list(points)
    first, last = few[0], few[-1]
    names = [kernel.name for kernel in first.kernels]
    if names != [kernel.name for kernel in last.kernels]:
        return list(points)
    fixed = []
    for one, many in zip(first.kernels, last.kernels, strict=True):
        growth = max(many.seconds - one.seconds, 0.0) / (last.batch_size - 1)
        fixed.append(max(one.seconds - growth - SLACK * max(first.roofs.least_seconds(one)), 0.0))
    return [replace(point, fixed_seconds=fixed) if [kernel.name for kernel in point.kernels] == names else point for point in points]


def is_past_the_knee(points: Sequence[Point]) -> bool:
    """Tell whether the last PATIENCE batch sizes, each twice the one before, brought less than GAIN over the best of those before them."""
    speeds = [point.images_per_second for point in points]
    if len(speeds) <= PATIENCE:
        return False
    return all(speed < GAIN * max(speeds[: len(speeds) - PATIENCE]) for speed in speeds[-PATIENCE:])


def knee_of(points: Sequence[Point]) -> Point:
    """Return the smallest batch that reaches the share KNEE of the best speed. points: growing batches that fit."""
    best = max(point.images_per_second for point in points)
    return next(point for point in points if point.images_per_second >= KNEE * best)


def still_grows(points: Sequence[Point]) -> bool:
    """Tell whether the largest batch is faster, by GAIN, than all of at most two thirds of it: then there is no knee to be seen yet."""
    last = points[-1]
    before = [point.images_per_second for point in points if point.batch_size * 3 <= last.batch_size * 2]
    return bool(before) and last.images_per_second >= GAIN * max(before)


def explain(name: str, points: Sequence[Point], failed: Sequence[int]) -> str:
    """Return the finding in one sentence: where the knee is and what binds there, and the largest batch."""
    first, last = points[0], points[-1]
    knee = last if still_grows(points) else knee_of(points)
    share = knee.causes[knee.binds] / knee.seconds
    speed = f"{knee.images_per_second:,.0f} images/s"
    if still_grows(points):
        head = f"{name} still gains from a larger batch at {last.batch_size:,} ({speed}): {knee.binds} takes {share:.0%} of a step there"
    elif len(points) == 1:
        head = f"{name} at batch 1 ({speed}): {knee.binds} takes {share:.0%} of a step"
    elif knee is first:
        head = f"{name} is as fast at batch 1 as at any other ({speed}): {knee.binds} takes {share:.0%} of a step"
    else:
        before = f"{first.binds} binds at batch 1, " if first.binds != knee.binds else ""
        head = f"{name}: knee at batch {knee.batch_size:,} ({speed}); {before}{knee.binds} there ({share:.0%} of a step)"
    largest = f"the largest batch that fits is {last.batch_size:,}" if failed else f"batches up to {last.batch_size:,} were tried, all fit"
    return f"{head}; {largest}"


def remarks(points: Sequence[Point], *, graph: bool) -> list[str]:
    """Return what to know before the figures are believed."""
    busy = [f"{point.batch_size:,}" for point in points if point.busy]
    found = [f"other processes were on the processors while batch {', '.join(busy)} ran; the figures are too low there"] if busy else []
    return [*found, *(["device.graph is on, but the steps were measured without the CUDA graph, which has no parts"] if graph else [])]


def show_roofs(roofs: Roofs) -> str:
    """Return one line about the limits of the machine."""
    cache, memory = max(rate for _, rate in roofs.copy_bytes), roofs.copy_bytes[-1][1]
    return (
        f"limits: {roofs.gemm_flops / 1e9:,.0f} GFLOP/s in a matrix product, {roofs.conv_flops / 1e9:,.0f} in a convolution; copies "
        f"{memory / 1e9:,.1f} GB/s in memory, {cache / 1e9:,.0f} in cache; {roofs.call_seconds * 1e6:.1f} us a call"
    )


def show_point(point: Point) -> str:
    """Return one line about a batch size, while the others are still to come."""
    if not point.fits:
        return point.sentence()
    return f"batch {point.batch_size:,}: {point.images_per_second:,.0f} images/s, peak {point.peak_mib:,.0f} MiB"


@contextmanager
def _child(subject: Subject, data: TrainingData, settled: Arithmetic | None, memory_mib: float | None) -> Iterator[Child]:
    header, payload = pack(data)
    with tempfile.TemporaryDirectory() as scratch:
        asked = {
            "config": to_dict(subject.config),
            "arithmetic": None if settled is None else asdict(settled),
            "memory_mib": memory_mib,
            "scratch": scratch,
            "data": header,
        }
        child = Child("firstlight.profiling.point", asked, payload)
        try:
            yield child
        finally:
            child.close()


def _ask_roofs(child: Child) -> Roofs:
    """Let a child measure the limits of the machine, before it does anything else."""
    found = child.tell(b"roofs\n")
    if found is None or "why" in found:
        raise FirstlightError(f"the limits of this machine could not be measured: {child.end()}; free some memory")
    return Roofs(found["gemm_flops"], found["conv_flops"], tuple(map(tuple, found["copy_bytes"])), found["call_seconds"])


def _ask_point(child: Child, size: int, roofs: Roofs) -> Point:
    """Let a child measure one batch size, which is all that it lives for."""
    found = child.tell(f"{size}\n".encode())
    if found is None:
        return Point(size, roofs, child.end())
    if "why" in found:
        return Point(size, roofs, found["why"])
    kernels = [Kernel(**kernel) for kernel in found.pop("kernels")]
    return Point(roofs=roofs, kernels=kernels, **found)


def _time(seconds: float) -> str:
    """Return a time in the unit in which it is easy to read."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
