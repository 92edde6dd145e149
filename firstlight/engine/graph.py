"""The making of a batch and the step on it as one CUDA graph: one launch in place of hundreds, where a GPU waits for Python.

`train_step` is what the graph holds, so a replayed step is the plain one. What changes from step to step lies in memory of its own
(the draws of the batch, the learning rate; the seed of dropout lies in the generator); all else is as it was when the graph was captured.
LaneGraph does the same for the step of many networks (engine/vectorized.py), whose learning rates have memory of their own anyway.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from firstlight.config.schema import Config
from firstlight.data.augment import Drawn
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import StepResult, train_step
from firstlight.engine.vectorized import LaneFigures, Lanes
from firstlight.errors import ConfigError

WARM_UP = 3
"""Plain steps of a size before it is captured: they make the optimizer's memory, and let the libraries choose their kernels."""
CAPTURED = ("sgd", "adam", "adamw", "muon")
"""Optimizers that take the learning rate from the device."""


def check_graph(config: Config, device: str, *, streamed: bool = False) -> None:
    """Raise ConfigError where the steps of a config cannot be captured; streamed: whether the pixels come from a file."""
    if streamed:
        raise ConfigError("device.graph: a graph takes its images from the device's memory, and these are streamed; set device.graph=false")
    if device != "cuda":
        raise ConfigError(f"device.graph: CUDA graphs need a CUDA device, and this run is on {device}; set device.graph=false")
    if config.optim.name not in CAPTURED:
        raise ConfigError(f"device.graph: {config.optim.name} is not captured; set device.graph=false, or take {', '.join(CAPTURED)}")
    if config.train.accumulate > 1:
        raise ConfigError("device.graph: a graph is one batch and one step; set device.graph=false or train.accumulate=1")


class StepGraph:
    """Steps of one training, each size of batch and image captured after its first WARM_UP steps.

    On the CPU, which has no graphs, the same memory is filled and the same program run, so that tests can follow it.
    """

    def __init__(self, state: TrainState, setup: Setup) -> None:
        self._state, self._setup = state, setup
        self._programs: dict[tuple[int, int | None], _Program] = {}
        self._num_plain: dict[tuple[int, int | None], int] = {}
        self._stream = _stream_on(setup.arithmetic.device)

    def forget(self) -> None:
        """Drop what was captured: the optimizer's memory was replaced, as a restored checkpoint does."""
        self._programs, self._num_plain = {}, {}

    def step(self, drawn: Drawn, lr: float) -> StepResult:
        """Make the batch and learn from it, as train_step does, without a wait for the device."""
        state, setup = self._state, self._setup
        size = (len(drawn.indices), setup.image_size(state.step))
        program = self._programs.get(size)
        if program is None and self._num_plain.get(size, 0) < WARM_UP:
            self._num_plain[size] = self._num_plain.get(size, 0) + 1
            with _aside(self._stream):
                return train_step(state, setup.train_loader.make(drawn), setup, share=1.0, lr=lr)
        if program is None:
            program = self._programs[size] = _Program(state, setup, drawn, self._stream)
        return program.run(drawn, lr)


def _stream_on(device: str) -> torch.cuda.Stream | None:
    return torch.cuda.Stream() if device == "cuda" else None


@contextmanager
def _aside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run on the stream that captures: what autograd remembers of a stream must not lie outside of the graph."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _captured(run_once: Callable[[], None], stream: torch.cuda.Stream) -> Callable[[], None]:
    """Return what replays the kernels of `run_once`, whose Python code is run and whose kernels are not."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        run_once()
    replay: Callable[[], None] = graph.replay
    return replay


class _Program:
    """One captured step with the memory that it reads and writes."""

    def __init__(self, state: TrainState, setup: Setup, drawn: Drawn, stream: torch.cuda.Stream | None) -> None:
        self._state = state
        self._drawn = Drawn._make(None if values is None else values.clone() for values in drawn)
        self._lr = torch.zeros((), device=drawn.indices.device)
        self._said: tuple[Tensor, ...] = ()
        self._replay: Callable[[], None] = self._once(setup)
        if stream is not None:
            self._replay = _captured(self._replay, stream)
            state.step -= 1  # that was the Python code

    def run(self, drawn: Drawn, lr: float) -> StepResult:
        """Fill the memory, replay, and copy out what the step says, which the next one overwrites."""
        for kept, values in zip(self._drawn, drawn, strict=True):
            if kept is not None and values is not None:
                kept.copy_(values)
        self._lr.fill_(lr)
        step = self._state.step
        self._replay()
        self._state.step = step + 1
        for group in self._state.optimizer.param_groups:
            group["lr"] = lr  # a number again, for whoever saves it
        loss, hits, norms = (values.clone() for values in self._said)
        return StepResult(loss, hits, norms.unbind())

    def _once(self, setup: Setup) -> Callable[[], None]:
        state = self._state

        def run_once() -> None:
            result = train_step(state, setup.train_loader.make(self._drawn), setup, share=1.0, lr=self._lr)
            self._said = (result.loss, result.hits, torch.stack(list(result.grad_norms)))

        return run_once


class LaneGraph:
    """Steps of lanes without dropout, each size of batch captured after its first WARM_UP steps; on the CPU without a capture."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._programs: dict[int, _LaneProgram] = {}
        self._num_plain: dict[int, int] = {}
        self._stream = _stream_on(lanes.device.type)

    def step(self, images: Tensor, labels: Tensor, lrs: Tensor, *, seeds: tuple[int, int, int]) -> LaneFigures:
        """Learn from a batch, as Lanes.step does, without a wait for the device."""
        self._lanes.set_rates(lrs)
        size = labels.size(0)
        if size not in self._programs and self._num_plain.get(size, 0) < WARM_UP:
            self._num_plain[size] = self._num_plain.get(size, 0) + 1
            with _aside(self._stream):
                return self._lanes.step_at_rates(images, labels, seeds=seeds)
        if size not in self._programs:
            self._programs[size] = _LaneProgram(self._lanes, images, labels, seeds, self._stream)
        return self._programs[size].run(images, labels)


class _LaneProgram:
    """One captured step of lanes with the memory that it reads and writes."""

    def __init__(self, lanes: Lanes, images: Tensor, labels: Tensor, seeds: tuple[int, int, int], stream: torch.cuda.Stream | None) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        self._said: LaneFigures | None = None

        def run_once() -> None:
            self._said = lanes.step_at_rates(self._images, self._labels, seeds=seeds)

        self._replay = run_once if stream is None else _captured(run_once, stream)

    def run(self, images: Tensor, labels: Tensor) -> LaneFigures:
        """Fill the memory, replay, and copy out what the step says, which the next one overwrites."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()
        assert self._said is not None
        return LaneFigures(self._said.loss.clone(), self._said.hits.clone(), self._said.grad_norm.clone())
