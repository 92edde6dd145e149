"""What to be wary of in a study: a best value at an end, trials that broke or learned nothing, seeds that spread more than settings."""

import math
from collections.abc import Sequence
from typing import Any

from firstlight.engine.health import learned_nothing
from firstlight.studies.points import PointResult
from firstlight.studies.settings import show_value
from firstlight.studies.space import Interval, Parameter
from firstlight.studies.statistics import estimate
from firstlight.studies.store import Row
from firstlight.studies.study import Study

NEAR_EDGE = 0.05
"""Outer part of a range in which a draw counts as at its end; draws hardly ever meet the end itself."""
NAMED = 5
"""Trials that a sentence names."""


def warnings_of(study: Study, points: Sequence[PointResult], num_classes: int | None) -> list[str]:
    """Return one line for each thing to be wary of; points: best first."""
    rows = [row for point in points for row in point.rows]
    return [*_edges(study, points), *_broken(rows), *_at_chance(rows, num_classes), *_noise(points)]


def _edges(study: Study, points: Sequence[PointResult]) -> list[str]:
    """C4: the best value lies at an end of its range; below a 0 nothing lies."""
    if not points or points[0].objective is None:
        return []
    ends = [
        key
        for key, value in points[0].point.items()
        if key in study.space.parameters and value != 0 and _is_at_edge(study.space.parameters[key], value, study.sampler)
    ]
    return [
        f"the best value of {key}, {show_value(points[0].point[key])}, lies at an end of its range; the true best may lie beyond: widen it"
        for key in ends
    ]


def _is_at_edge(parameter: Parameter, value: Any, sampler: str) -> bool:
    if value in parameter.edges():
        return True
    if sampler == "grid" or not isinstance(parameter, Interval):
        return False
    low, high, place = (math.log(x) if parameter.log else x for x in (parameter.low, parameter.high, value))
    return not NEAR_EDGE < (place - low) / (high - low) < 1 - NEAR_EDGE


def _broken(rows: Sequence[Row]) -> list[str]:
    counts = {state: sum(row["state"] == state for row in rows) for state in ("diverged", "failed", "pruned")}
    said = " and ".join(f"{count} of {len(rows)} trials {state}" for state, count in counts.items() if count)
    return [said] if said else []


def _at_chance(rows: Sequence[Row], num_classes: int | None) -> list[str]:
    """F7: trials whose validation loss is stuck at ln(classes)."""
    if num_classes is None:
        return []
    figures = [(row["trial"], row["figures"]) for row in rows]
    stuck = [trial for trial, row in figures if learned_nothing(row.get("val_loss"), row.get("val_accuracy"), num_classes)]
    named = ", ".join(stuck[:NAMED]) + (", ..." if len(stuck) > NAMED else "")
    what = f"a validation loss of ln({num_classes}) = {math.log(num_classes):.3f}"
    return [f"{len(stuck)} of {len(rows)} trials ended at {what}: they learned nothing ({named})"] if stuck else []


def _noise(points: Sequence[PointResult]) -> list[str]:
    spread = [point.objective.std for point in points if point.objective is not None and point.objective.n > 1]
    means = [point.objective.mean for point in points if point.objective is not None]
    if not spread or len(means) < 2:
        return []
    between, within = estimate(means).std, math.sqrt(sum(std * std for std in spread) / len(spread))
    if within <= between:
        return []
    return [f"seeds spread more (deviation {within:.4f}) than the settings do ({between:.4f}): run more seeds before you choose"]
