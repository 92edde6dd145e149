"""Ending trials early that do worse than others did by then: the median rule (Golovin et al. 2017, Vizier, section 3.2.2)."""

import statistics

from firstlight.studies.store import Log
from firstlight.studies.trial import Trial

LEAST_OTHERS = 5
"""Trials that must have come to an epoch before others are judged by them."""


def is_behind(trial: Trial, epoch: int, value: float | None, log: Log, *, better: str) -> str:
    """Say why a trial with this objective after an epoch ends there; empty where it goes on.

    It ends where the objective is worse than the median of the trials that have a row and came as far. Its own seeds count as others.
    """
    log.look()
    others = [curve[epoch - 1] for row in log.rows.values() if row["trial"] != trial.name and len(curve := row.get("curve", ())) >= epoch]
    if value is None or len(others) < LEAST_OTHERS:
        return ""
    median = statistics.median(others)
    worse = value < median if better == "max" else value > median
    return f"{value:.4f} after epoch {epoch} is worse than the median of {len(others)} others, {median:.4f}" if worse else ""
