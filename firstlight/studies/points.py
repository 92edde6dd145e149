"""The points of a study with what became of their trials, best first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firstlight.config.yaml import brief
from firstlight.errors import ConfigError
from firstlight.studies.settings import is_same, show_point, show_value
from firstlight.studies.space import Point
from firstlight.studies.statistics import Estimate, bootstrap, estimate
from firstlight.studies.store import Row
from firstlight.studies.study import OBJECTIVES, Study

BOUNDS = {"val_accuracy": (0.0, 1.0), "val_loss": (0.0, math.inf)}
"""What an objective can be at all; intervals are cut there."""
INTERVALS: dict[str, Callable[[Sequence[float]], Estimate]] = {"t": estimate, "bootstrap": bootstrap}


@dataclass(frozen=True)
class PointResult:
    """All seeds of one point. objective: over the seeds that finished, None where none did."""

    point: Point
    rows: tuple[Row, ...]
    objective: Estimate | None

    def values(self) -> dict[int, float]:
        """Return the objective by seed."""
        return {row["seed"]: row["objective"] for row in self.rows if is_finished(row)}


def is_finished(row: Row) -> bool:
    """Tell whether a trial came to its end with a figure; one that was pruned has a figure of less training, which does not compare."""
    return row["state"] == "finished" and row["objective"] is not None


def gather(study: Study, rows: Sequence[Row], interval: str = "t") -> list[PointResult]:
    """Return the points of the rows, best first, those without a figure last; interval: `t` or `bootstrap`."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(repr(sorted(row["point"].items())), []).append(row)
    low, high = BOUNDS[study.objective]
    results = []
    for group in grouped.values():
        values = [row["objective"] for row in group if is_finished(row)]
        ordered = tuple(sorted(group, key=lambda row: row["seed"]))
        results.append(PointResult(group[0]["point"], ordered, INTERVALS[interval](values).within(low, high) if values else None))
    sign = -1 if OBJECTIVES[study.objective] is max else 1
    results.sort(key=lambda result: math.inf if result.objective is None else sign * result.objective.mean)
    return results


def select(points: Sequence[PointResult], setting: Mapping[str, Any]) -> list[PointResult]:
    """Return the points that have these values; numbers are the same where they are written the same. Raises ConfigError for none."""
    found = [point for point in points if all(key in point.point and is_same(point.point[key], value) for key, value in setting.items())]
    if not found:
        for key, value in setting.items():
            tried = list(dict.fromkeys(show_value(point.point[key]) for point in points if key in point.point))
            if show_value(value) not in tried:
                varied = dict.fromkeys(name for point in points for name in point.point)
                what = f"tried were {brief(', '.join(tried))}" if tried else f"it varies {', '.join(varied)}"
                raise ConfigError(f"no point of the study has {key}={show_value(value)}; {what}")
        raise ConfigError(f"no point of the study has {show_point(setting)} together; take one of the rows of points.csv")
    return found
