"""The child's side of a pair: it warms up, then on each word from stdin does one timed repetition and answers with a line of JSON.

A framework that owns its loop calls begin() and end() from its callbacks; others call repeat(). Nothing but answers goes to the
stdout that the parent reads: what a framework prints there is sent elsewhere.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


class Turns:
    """The repetitions of one arm. The first is the warm-up: it waits for no word, and its answer carries the guard."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self._num = 0
        self._wall = self._cpu = 0.0

    def begin(self) -> None:
        """Wait for the parent's word, then start the clocks; the process ends here when the parent has gone."""
        if self._num and not sys.stdin.readline():
            os._exit(0)  # a framework may catch SystemExit, and has nothing left to save
        self.restart()

    def restart(self) -> None:
        """Start the clocks anew, behind what a repetition needs and nobody wants to time."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self, count: float, guard: Callable[[], Mapping[str, Any]] = dict, **facts: Any) -> None:
        """Stop the clocks and answer: `count` is what was done (steps, images, scalars); the guard goes with the first answer."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        answer = {"seconds": wall, "cpu_seconds": cpu, "count": count, **facts}
        if self.is_warm_up:
            answer |= {"guard": dict(guard()), "versions": versions()}
        self._num += 1
        print(json.dumps(answer), file=self._answers, flush=True)

    @property
    def is_warm_up(self) -> bool:
        """Whether the first repetition is still to be ended."""
        return self._num == 0

    def repeat(self, work: Callable[[], float], guard: Callable[[], Mapping[str, Any]] = dict, **about: Any) -> None:
        """Do `work`, which returns its count, once a word; the guard is asked for once, behind the warm-up, and `about` goes with it."""
        while True:
            self.begin()
            count = work()
            if self.is_warm_up:
                self.end(count, guard=guard, **about)
            else:
                self.end(count)


def versions() -> dict[str, Any]:
    """Return the versions of what this process has imported of the frameworks, and torch's threads and vector instructions."""
    names = ("torch", "torchvision", "lightning", "keras", "fastai", "skorch", "timm", "tensorboard", "wandb", "optuna")
    found = {name: str(getattr(sys.modules[name], "__version__", "")) for name in names if name in sys.modules}
    if "torch" in sys.modules:
        import torch

        found |= {"threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()}  # type: ignore[dict-item]
    return found
