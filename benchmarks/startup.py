"""Line 12: what a command costs before it does anything, and the time from the shell to the first training step.

`python -m benchmarks.startup [--force] [--peers yolo,timm,...] [--pairs N]`. Whole processes take turns, A B A B, in the peers'
environment; the first turn of each, which fills the disk cache, is left out. `firstlight --help` stands against `yolo help` and the
imports with which a script in the other frameworks begins. The first step of `firstlight train` (the quickstart: config, data, network,
run folder, a step) stands against `import torch` alone, which is its limit: a hook ends the process behind the first call of train_step.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.pairs import PEERS_PYTHON, Measured, Pairs, child_environment, parser, ready_to_measure, record, row
from benchmarks.record import Row

MOST_SECONDS = 0.5
"""Processor time that `--help` may take."""
MOST_BEHIND_TORCH = 0.7
"""Seconds that the first step may come later than torch's own import."""
FIRST_STEP = """
import os, sys
from firstlight.engine import loop
step = loop.train_step
def first_step(*arguments, **settings):
    step(*arguments, **settings)
    os._exit(0)
loop.train_step = first_step
from firstlight.__main__ import main
main(["train", "--runs-dir", sys.argv[1]])
"""
PYTHON = str(PEERS_PYTHON)
HELP = [PYTHON, "-m", "firstlight", "--help"]
TORCH = [PYTHON, "-c", "import torch"]
PEERS = {
    "python": ("python -c pass", [PYTHON, "-c", "pass"]),
    "yolo": ("yolo help", [str(PEERS_PYTHON.with_name("yolo")), "help"]),
    "torch": ("import torch", TORCH),
    "timm": ("import timm", [PYTHON, "-c", "import timm"]),
    "lightning": ("import lightning", [PYTHON, "-c", "import lightning"]),
    "keras": ("import keras", [PYTHON, "-c", "import keras"]),
    "fastai": ("import fastai.vision.all", [PYTHON, "-c", "import fastai.vision.all"]),
}
NEEDED: dict[str, Row] = {"yolo": {"most": 0.3}}


@dataclass
class Processes:
    """The costs of two commands that take turns: wall seconds, and the processor's (user and system)."""

    ours: list[dict[str, float]] = field(default_factory=list)
    theirs: list[dict[str, float]] = field(default_factory=list)

    def pairs(self, clock: str = "seconds") -> Pairs:
        """Return the costs by one clock."""
        return Pairs(tuple(each[clock] for each in self.ours), tuple(each[clock] for each in self.theirs))


def main() -> None:
    """Measure, print, and write results/startup.json."""
    arguments = parser(__doc__, tuple(PEERS), pairs=7).parse_args()
    start = ready_to_measure(arguments)
    start["torch"] = versions()["torch"]
    rows: list[Row] = []
    helps = {name: take_turns(HELP, PEERS[name][1], arguments.pairs) for name in arguments.peers}
    for name, one in helps.items():
        if not rows:
            cpu = one.pairs("cpu_seconds")
            rows.append(row("firstlight --help, processor time", cpu.ours, "s", most=MOST_SECONDS))
            rows.append(row("firstlight --help", one.pairs().ours, "s"))
        rows.append(row(PEERS[name][0], one.pairs().theirs, "s"))
        rows.append(row(f"firstlight --help over {PEERS[name][0]}", one.pairs().share, "x", **NEEDED.get(name, {})))
    with tempfile.TemporaryDirectory() as folder:
        rows += rows_of_first_step(take_turns([PYTHON, "-c", FIRST_STEP, folder], TORCH, arguments.pairs))
    none: dict[str, Measured] = {}
    record("startup", "Line 12: start-up", "python -m benchmarks.startup", rows, none, arguments, start)


def rows_of_first_step(one: Processes) -> list[Row]:
    """Return the time to the first step, and how much of it is not torch's import."""
    wall, cpu = one.pairs(), one.pairs("cpu_seconds")
    behind = [ours - theirs for ours, theirs in zip(wall.ours, wall.theirs, strict=True)]
    cpu_behind = median(ours - theirs for ours, theirs in zip(cpu.ours, cpu.theirs, strict=True))
    limit = f"{100 * median(wall.times_faster):.3g} %"
    return [
        row("from the shell to the first step of the quickstart", wall.ours, "s", limit=limit, note="the limit is import torch"),
        row("the same, behind import torch", behind, "s", most=MOST_BEHIND_TORCH, note=f"{cpu_behind:.3g} s of processor time"),
    ]


def take_turns(ours: list[str], theirs: list[str], num: int) -> Processes:
    """Run two commands in turn, and leave out the first turn of each."""
    found = Processes()
    for _ in range(num + 1):
        found.ours.append(process_cost(ours))
        found.theirs.append(process_cost(theirs))
    return Processes(found.ours[1:], found.theirs[1:])


def process_cost(command: list[str]) -> dict[str, float]:
    """Return the wall seconds and the processor seconds of a process, and of those that it waited for."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=child_environment(1))
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return {
        "seconds": wall,
        "cpu_seconds": after.children_user - before.children_user + after.children_system - before.children_system,
    }


def versions() -> dict[str, Any]:
    """Return the torch of the peers' environment, which both arms import."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    return {"torch": subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()}


if __name__ == "__main__":
    main()
