"""How the trials of a study are trained: side by side as lanes of one program where that was timed to be faster, else each alone.

Reading order: make_plan, _that_fit.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from firstlight.config.describe import to_dict
from firstlight.config.schema import Config
from firstlight.data.build import load_training_data
from firstlight.engine.lanes import GroupKey, Load, Times, group_key, num_bytes, time_both
from firstlight.files import SIDE_BY_SIDE, may_open
from firstlight.studies.trial import Trial

MAX_BYTES = 2 << 30
"""Weights, optimizer memory and gradients of the lanes of one program; more lanes become several programs."""
FILES_A_LANE = 3
"""Files that a run holds open while it is trained: its lock, its rows, its log."""
OTHER_FILES = 5 * SIDE_BY_SIDE + 40
"""Files that are open beside those: of the checkpoints that are written at a time, of the libraries and the study."""
Way = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Group:
    """Trials that are trained as one program on so many threads."""

    trials: tuple[Trial, ...]
    threads: int


@dataclass(frozen=True)
class Plan:
    """groups: trials to be trained side by side; alone: all others, in their order; remarks: why, a line for each group."""

    groups: tuple[Group, ...]
    alone: tuple[Trial, ...]
    remarks: tuple[str, ...]


def make_plan(
    trials: Sequence[tuple[Trial, Config]], data_dir: Path, *, way: Way = "auto", processes: int = 1, load: Load = load_training_data
) -> Plan:
    """Return how trials, each with its experiment, are best trained here.

    way: lanes where they are faster, wherever they are possible, or nowhere; processes: how many would share the work otherwise; load:
    reads the data for the timing, a LastData where they are trained on next.
    """
    kinds: dict[tuple[GroupKey | None, int | None], list[tuple[Trial, Config]]] = {}
    for trial, config in trials:
        kinds.setdefault((None if way == "off" else group_key(config, cuda=way == "on"), trial.pause_after), []).append((trial, config))
    groups: list[Group] = []
    alone: list[tuple[Trial, Config]] = []
    remarks: list[str] = []
    timed: dict[str, Times] = {}
    for (key, _), kind in kinds.items():
        if key is None or len(kind) < 2:
            alone += kind
            continue
        like = json.dumps([key.rest, sorted(str(to_dict(config.model)) for _, config in kind)])
        if like not in timed:
            timed[like] = time_both(_sample([config for _, config in kind]), data_dir, load)
        times = replace(timed[like], num_lanes=min(timed[like].num_lanes, _most_lanes(timed[like].num_lanes)))
        remarks.append(_sentence(len(kind), times, processes, way))
        if way == "on" or times.together < times.alone / processes:
            groups += [Group(tuple(part), times.threads) for part in _that_fit(kind, times.num_lanes)]
        else:
            alone += kind
    said = tuple(f"{times} x {remark}" if times > 1 else remark for remark, times in Counter(remarks).items())
    return Plan(tuple(groups), tuple(trial for trial, _ in alone), said)


def _sample(configs: Sequence[Config]) -> list[Config]:
    """Return as many of the configs as fit into MAX_BYTES together, evenly out of all, and two at least."""
    num = min(len(configs), max(2, MAX_BYTES // max(map(num_bytes, configs))))
    return [configs[place * len(configs) // num] for place in range(num)]


def _that_fit(trials: Sequence[tuple[Trial, Config]], num_lanes: int) -> list[list[Trial]]:
    """Return the trials in parts of at most so many, whose memory stays below MAX_BYTES."""
    parts: list[list[Trial]] = [[]]
    used = 0
    for trial, config in trials:
        needed = num_bytes(config)
        if len(parts[-1]) == num_lanes or (parts[-1] and used + needed > MAX_BYTES):
            parts.append([])
            used = 0
        parts[-1].append(trial)
        used += needed
    return parts


def _most_lanes(wanted: int) -> int:
    """Return how many lanes, of `wanted`, one program may have whose runs hold their files open."""
    return max(2, (may_open(FILES_A_LANE * wanted + OTHER_FILES) - OTHER_FILES) // FILES_A_LANE)


def _sentence(num: int, times: Times, processes: int, way: Way) -> str:
    size = "as one program" if times.num_lanes >= num else f"{times.num_lanes} to a program"
    together = f"{1e3 * times.together / times.num * num:.3g} ms a step {size} on {times.threads} thread{'s' if times.threads > 1 else ''}"
    alone = f"{1e3 * times.alone / times.num * num / processes:.3g} ms one after the other" + (
        f" in {processes} processes" if processes > 1 else ""
    )
    chosen = "side by side" if way == "on" or times.together < times.alone / processes else "each alone"
    return f"{num} trials {chosen}: {together}, {alone}"
