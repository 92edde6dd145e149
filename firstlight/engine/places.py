"""Where runs and data are looked for."""

import os
from pathlib import Path

from firstlight.files import cache_dir


def runs_dir_of(chosen: str | Path | None) -> Path:
    """Return the folder of runs: the one given, FIRSTLIGHT_RUNS, or ./runs."""
    return Path(chosen or os.environ.get("FIRSTLIGHT_RUNS") or "runs")


def data_dir_of(chosen: str | Path | None) -> Path:
    """Return the folder of data: the one given, FIRSTLIGHT_DATA, or data/ in the user's cache folder."""
    return Path(chosen or os.environ.get("FIRSTLIGHT_DATA") or cache_dir() / "data")
