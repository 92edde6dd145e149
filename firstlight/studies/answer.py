"""What a study says: its trials by point with their spread over seeds, the best of them, and what to be wary of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from firstlight.studies.space import Point
from firstlight.studies.statistics import Comparison, Estimate, compare_paired, estimate
from firstlight.studies.store import Row
from firstlight.studies.study import OBJECTIVES, Study

AT_CHANCE = 0.02
"""A validation loss so near (relatively) to ln(classes) is that of a network which learned nothing."""


@dataclass(frozen=True)
class PointResult:
    """All seeds of one point. objective: over the seeds that ended with a figure, None where none did."""

    point: Point
    rows: tuple[Row, ...]
    objective: Estimate | None

    @property
    def num_broken(self) -> int:
        """Seeds that diverged or failed."""
        return sum(row["state"] in ("diverged", "failed") for row in self.rows)

    def values(self) -> dict[int, float]:
        """Return the objective by seed."""
        return {row["seed"]: row["objective"] for row in self.rows if row["objective"] is not None}


@dataclass(frozen=True)
class Answer:
    """The points of a study, best first; those without a figure at the end."""

    study: Study
    points: tuple[PointResult, ...]
    warnings: tuple[str, ...]

    @property
    def best(self) -> PointResult | None:
        """The best point, if any trial ended with a figure."""
        return self.points[0] if self.points and self.points[0].objective is not None else None

    def against_best(self, other: PointResult) -> Comparison | None:
        """Compare another point with the best one over the seeds that both have; None where there is none."""
        best = self.best
        shared = sorted(best.values().keys() & other.values().keys()) if best else []
        return compare_paired([other.values()[s] for s in shared], [best.values()[s] for s in shared]) if best and shared else None

    def sentences(self) -> list[str]:
        """Return what the study found, in lines that claim no more than the figures do."""
        if self.best is None:
            return ["no trial ended with a figure"]
        assert self.best.objective is not None
        lines = [f"best {self.study.objective}: {self.best.objective} at {show_point(self.best.point)}"]
        others = [point for point in self.points[1:] if point.objective is not None]
        if others and self.study.seeds > 1 and (comparison := self.against_best(others[0])) is not None:
            said = comparison.sentence(show_point(others[0].point), show_point(self.best.point), unit=self.study.objective)
            lines.append(f"next best: {said}")
        return lines


def answer(study: Study, rows: Sequence[Row], num_classes: int | None = None) -> Answer:
    """Return what the rows of a study say."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(repr(sorted(row["point"].items())), []).append(row)
    results = []
    for group in grouped.values():
        values = [row["objective"] for row in group if row["objective"] is not None]
        ordered = tuple(sorted(group, key=lambda row: row["seed"]))
        results.append(PointResult(group[0]["point"], ordered, estimate(values) if values else None))
    worse_first = -1 if OBJECTIVES[study.objective] is max else 1
    results.sort(key=lambda result: math.inf if result.objective is None else worse_first * result.objective.mean)
    found = Answer(study, tuple(results), ())
    return Answer(study, found.points, tuple(_warnings(found, num_classes)))


def _warnings(found: Answer, num_classes: int | None) -> list[str]:
    warnings, rows = [], [row for point in found.points for row in point.rows]
    if found.best is not None:
        warnings += [
            f"the best value of {key}, {found.best.point[key]}, lies at an end of its range; the true best may lie beyond"
            for key in found.study.space.at_edge(found.best.point)
        ]
    broken = [row for row in rows if row["state"] in ("diverged", "failed")]
    if broken:
        kinds = {state: sum(row["state"] == state for row in broken) for state in ("diverged", "failed")}
        warnings.append(" and ".join(f"{count} of {len(rows)} trials {state}" for state, count in kinds.items() if count))
    if num_classes is not None:
        chance = math.log(num_classes)
        losses = [row["figures"].get("val_loss") for row in rows]
        stuck = sum(loss is not None and abs(loss - chance) < AT_CHANCE * chance for loss in losses)
        if stuck:
            warnings.append(f"{stuck} of {len(rows)} trials end at a validation loss of ln({num_classes}): they learned nothing")
    spread = [point.objective.std for point in found.points if point.objective is not None and point.objective.n > 1]
    means = [point.objective.mean for point in found.points if point.objective is not None]
    if spread and len(means) > 1:
        between = estimate(means).std
        within = math.sqrt(sum(std * std for std in spread) / len(spread))
        if within > between:
            warnings.append(
                f"seeds spread more (deviation {within:.4f}) than the settings do ({between:.4f}): run more seeds before you choose"
            )
    return warnings


def hparams(found: Answer) -> list[dict[str, Any]]:
    """Return the table of trials, best first: objective and figures, then the value of each parameter (E7)."""
    rows = [row for point in found.points for row in point.rows]
    sign = -1 if OBJECTIVES[found.study.objective] is max else 1
    rows.sort(key=lambda row: math.inf if row["objective"] is None else sign * row["objective"])
    table = []
    for row in rows:
        figures = {"trial": row["trial"], "val_acc": row["figures"].get("val_accuracy"), "val_loss": row["figures"].get("val_loss")}
        settings = {key: row["point"].get(key) for key in found.study.space.parameters}
        table.append({**figures, **settings, "seed": row["seed"], "state": row["state"], "seconds": row["seconds"]})
    return table


def show_point(point: Point) -> str:
    """Return a point as the command line would say it."""
    return " ".join(f"{key}={f'{value:.4g}' if isinstance(value, float) else value}" for key, value in point.items())
