"""What a study says: its trials by point with their spread over seeds, the best of them, and what to be wary of.

Reading order: answer, Answer, hparams, point_rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from firstlight.errors import ConfigError
from firstlight.studies.cautions import warnings_of
from firstlight.studies.points import PointResult, gather, select
from firstlight.studies.settings import show_point
from firstlight.studies.statistics import CONFIDENCE, Comparison, compare_paired, holm
from firstlight.studies.store import Row
from firstlight.studies.study import Study

NAMED = 5
"""Points that a sentence names."""


@dataclass(frozen=True)
class Versus:
    """A point beside the one that all are compared with: the difference is that one's figure minus the point's.

    p: corrected for all comparisons; NaN where there is one shared seed.
    """

    comparison: Comparison
    p: float
    sentence: str


@dataclass(frozen=True)
class Answer:
    """The points of a study, best first; those without a figure at the end. against: what all are compared with, if not the best."""

    study: Study
    points: tuple[PointResult, ...]
    warnings: tuple[str, ...] = ()
    against: PointResult | None = None

    @property
    def best(self) -> PointResult | None:
        """The best point, if any trial finished."""
        return self.points[0] if self.points and self.points[0].objective is not None else None

    @property
    def reference(self) -> PointResult | None:
        """The point that all are compared with."""
        return self.against or self.best

    @property
    def rows(self) -> list[Row]:
        """The trials, those of the best point first."""
        return [row for point in self.points for row in point.rows]

    @cached_property
    def comparisons(self) -> list[Versus | None]:
        """Each point against the reference over the seeds that both have, Holm-corrected; None where they share none.

        Against the best the correction counts all pairs of points, because the best was chosen among all of them.
        """
        pairs = [self._pair(point) for point in self.points]
        num_points = sum(point.objective is not None for point in self.points)
        num_tests = num_points * (num_points - 1) // 2 if self.against is None else None
        tested = [pair for pair in pairs if pair is not None and pair.difference.n > 1]
        corrected = dict(zip(map(id, tested), holm([pair.p for pair in tested], num_tests), strict=True))
        found: list[Versus | None] = []
        for point, pair in zip(self.points, pairs, strict=True):
            if pair is None or self.reference is None:
                found.append(None)
                continue
            p = corrected.get(id(pair))
            names = (show_point(point.point), show_point(self.reference.point))
            said = pair.sentence(*names, unit=self.study.objective, corrected=p if len(tested) > 1 else None)
            found.append(Versus(pair, math.nan if p is None else p, said))
        return found

    def _pair(self, point: PointResult) -> Comparison | None:
        if self.reference is None or point is self.reference:
            return None
        theirs, ours = point.values(), self.reference.values()
        shared = sorted(theirs.keys() & ours.keys())
        return compare_paired([theirs[seed] for seed in shared], [ours[seed] for seed in shared]) if shared else None

    def sentences(self) -> list[str]:
        """Return what the study found, in lines that claim no more than the figures do."""
        if self.best is None:
            return ["no trial ended with a figure"]
        lines = [f"best {self.study.objective}: {self.best.objective} at {show_point(self.best.point)}"]
        compared = [(point, versus) for point, versus in zip(self.points, self.comparisons, strict=True) if versus is not None]
        if not compared:
            return lines
        if all(versus.comparison.difference.n < 2 for _, versus in compared):
            return [*lines, "one seed a point says nothing about noise; the order of the points may be chance: run more seeds"]
        if self.against is not None:
            said = [versus.sentence for _, versus in compared]
            return [*lines, *said[:NAMED], *([f"{len(said) - NAMED} more comparisons in points.csv"] if len(said) > NAMED else [])]
        lines.append(f"next best: {compared[0][1].sentence}")
        equal = [point for point, versus in compared if not versus.p < 1 - CONFIDENCE]
        if len(compared) > 1 and equal:
            named = "; ".join(show_point(point.point) for point in equal[:NAMED])
            more = f"; and {len(equal) - NAMED} more" if len(equal) > NAMED else ""
            lines.append(f"{len(equal)} of {len(compared)} other points are not told apart from the best by these seeds: {named}{more}")
        elif len(compared) > 1:
            lines.append(f"all {len(compared)} other points are worse than the best beyond seed noise")
        return lines


def answer(
    study: Study,
    rows: Sequence[Row],
    num_classes: int | None = None,
    *,
    interval: str = "t",
    against: Mapping[str, Any] | None = None,
) -> Answer:
    """Return what the rows of a study say. interval: `t` or `bootstrap`; against: the point that all are compared with, else the best.

    Raises ConfigError where `against` is not exactly one point of the study.
    """
    results = gather(study, rows, interval)
    chosen = None if against is None else _only(select(results, against), against)
    return Answer(study, tuple(results), tuple(warnings_of(study, results, num_classes)), chosen)


def hparams(found: Answer) -> list[dict[str, Any]]:
    """Return the table of trials by falling validation accuracy (E7): val_acc, val_loss, then each parameter, then which trial it was."""

    def order(row: Row) -> tuple[bool, float, float]:
        accuracy, loss = (row["figures"].get(key) for key in ("val_accuracy", "val_loss"))
        return (row["state"] != "finished", math.inf if accuracy is None else -accuracy, math.inf if loss is None else loss)

    return [
        {
            "val_acc": row["figures"].get("val_accuracy"),
            "val_loss": row["figures"].get("val_loss"),
            **{key: row["point"].get(key) for key in found.study.space.parameters},
            "seed": row["seed"],
            "trial": row["trial"],
            "state": row["state"],
            "seconds": row["seconds"],
        }
        for row in sorted(found.rows, key=order)
    ]


def point_rows(found: Answer) -> list[dict[str, Any]]:
    """Return a row a point, best first: parameters, mean with its interval over seeds, and the comparison with the best or `against`."""
    rows = []
    for point, versus in zip(found.points, found.comparisons, strict=True):
        settings = {key: point.point.get(key) for key in found.study.space.parameters}
        figures = dict.fromkeys(("mean", "std", "low", "high")) if point.objective is None else vars(point.objective)
        table = {**settings, **{key: figures[key] for key in ("mean", "std", "low", "high")}, "n": len(point.values())}
        table |= dict.fromkeys(("difference", "difference_low", "difference_high", "p", "p_corrected"))
        table["says"] = "compared with this point" if point is found.reference else "no seed in common"
        if versus is not None:
            table |= {**flat(versus.comparison), "p": versus.comparison.p, "p_corrected": versus.p, "says": versus.sentence}
        rows.append({key: None if isinstance(value, float) and math.isnan(value) else value for key, value in table.items()})
    return rows


def flat(comparison: Comparison) -> dict[str, float]:
    """Return the difference with its interval as columns of a table."""
    difference = comparison.difference
    return {"difference": difference.mean, "difference_low": difference.low, "difference_high": difference.high}


def _only(points: list[PointResult], setting: Mapping[str, Any]) -> PointResult:
    if len(points) > 1:
        missing = ", ".join(key for key in points[0].point if key not in setting)
        raise ConfigError(f"--against {show_point(setting)} is {len(points)} points; name one by all its parameters ({missing} too)")
    if points[0].objective is None:
        raise ConfigError(f"--against {show_point(setting)}: no trial of it finished; name another point")
    return points[0]
