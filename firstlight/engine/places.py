"""Where runs and data are looked for."""

import os
from pathlib import Path

from firstlight.data.places import data_dir_of

__all__ = ["data_dir_of", "runs_dir_of"]


def runs_dir_of(chosen: str | Path | None) -> Path:
    """Return the folder of runs: the one given, FIRSTLIGHT_RUNS, or ./runs."""
    return Path(chosen or os.environ.get("FIRSTLIGHT_RUNS") or "runs").expanduser()
