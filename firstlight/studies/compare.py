"""Two settings of a study on request, each of them one point, or all points that have some values."""

from collections.abc import Mapping, Sequence
from typing import Any

from firstlight.errors import ConfigError
from firstlight.studies.answer import Answer, flat
from firstlight.studies.points import PointResult, select
from firstlight.studies.settings import show_point
from firstlight.studies.statistics import compare_paired, estimate


def compare_groups(found: Answer, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two settings, each of them one point or, where it names some parameters alone, all points that have these values.

    Trials are paired that share the seed and all other parameters; with several seeds the pairs of a seed are averaged first, so that n
    counts seeds. Raises ConfigError where a setting is not in the study, or nothing can be paired.
    """
    sides = [_figures(select(found.points, setting), setting) for setting in (a, b)]
    shared = sorted(sides[0].keys() & sides[1].keys())
    names = [show_point(setting) for setting in (a, b)]
    if not shared or a == b:
        raise ConfigError(f"--compare {names[0]!r} {names[1]!r}: no two trials differ in that alone and finished; name two other settings")
    seeds = sorted({seed for seed, _ in shared})
    by_seed = len(seeds) > 1
    groups = [[key for key in shared if key[0] == seed] for seed in seeds] if by_seed else [[key] for key in shared]
    figures = [[sum(side[key] for key in group) / len(group) for group in groups] for side in sides]
    comparison = compare_paired(*figures)
    what = "seed" if by_seed or len(shared) == 1 else "setting"
    said = comparison.sentence(*names, unit=found.study.objective, what=what)
    means = f"{names[0]}: {estimate(figures[0]).mean:.4f}, {names[1]}: {estimate(figures[1]).mean:.4f}; {len(shared)} pairs of trials"
    if not by_seed and len(shared) > 1:
        means += "; with one seed n counts the other settings, and nothing is said about seeds"
    figures_of = {"pairs": len(shared), **flat(comparison), "p": comparison.p, "effect": comparison.effect}
    return {"a": dict(a), "b": dict(b), **figures_of, "says": [said, means]}


def _figures(points: Sequence[PointResult], setting: Mapping[str, Any]) -> dict[tuple[int, str], float]:
    """Return the objective by seed and by the parameters that the setting does not name."""
    return {
        (seed, repr(sorted((key, value) for key, value in point.point.items() if key not in setting))): figure
        for point in points
        for seed, figure in point.values().items()
    }
