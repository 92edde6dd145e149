"""Several runs beside each other: their curves on the same axes, their figures in one table, the settings in which they differ.

compare_images needs what `inspect predictions` left in the runs.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_figure
from firstlight.plotting.curves import plot_curves
from firstlight.tracking.run import Run, find_run


def compare(runs: Sequence[str | Path], *, runs_dir: str | Path = "runs", out: str | Path | None = None) -> dict[str, Any]:
    """Draw the curves of two or more runs on the same axes; return the picture's path, a row a run, and the settings that differ."""
    found = [find_run(run, Path(runs_dir)) for run in runs]
    if len(found) < 2:
        raise ConfigError("compare needs two runs or more; `firstlight runs` lists them")
    empty = [str(run.path) for run in found if not run.epochs]
    if empty:
        raise ConfigError(f"no epoch is recorded yet in {', '.join(empty)}, nothing to compare; leave out or resume what stopped early")
    path = Path(out) if out is not None else found[0].path.parent / "compare.png"
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--out {path} is no picture; end it in .png, .svg or .pdf")
    make_dir(path.parent)
    write_figure(path, plot_curves(dict(zip(names_of(found), (run.epochs for run in found), strict=True))))
    return {"runs": [run_row(run) for run in found], "differences": differences([run.config for run in found]), "files": [str(path)]}


def run_row(run: Run) -> dict[str, Any]:
    """Return the line of a run in a table: what it trained on what, how far, and how well; None for what a damaged run does not say."""
    summary = run.info.get("summary") or {}
    best = max((row["val_accuracy"] for row in run.epochs if row.get("val_accuracy") is not None), default=None)
    return {
        "run": str(run.path),
        "name": run.name,
        "state": run.state,
        "data": _kind(run, "data"),
        "model": _kind(run, "model"),
        "epochs": len(run.epochs),
        "val_accuracy": summary.get("val_accuracy", best),
        "test_accuracy": summary.get("test_accuracy"),
        "num_parameters": (run.info.get("network") or {}).get("num_parameters"),
        "seconds": run.info.get("seconds"),
        "started": run.info.get("started"),
        "notes": run.info.get("notes") or [],
    }


def _kind(run: Run, section: str) -> str | None:
    """Return the name under a section of a run's config; None where the run is damaged and does not say it."""
    kind = run.config.get(section)
    return kind.get("name") if isinstance(kind, Mapping) else None


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys in which resolved configs differ, each with its value in every run (None where a run has no such key)."""
    flat = [_flatten(config) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config if key != "name")
    values = {key: [config.get(key) for config in flat] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def compare_images(runs: Mapping[str, Run], split: str = "val") -> list[dict[str, Any]]:
    """Return a row for each run but the first whose predictions were kept: on which images of a split the two were right (McNemar 1947).

    runs: by the name that the rows call them, the one that all are compared with first; those with other images are left out.
    """
    answers = {name: found for name, run in runs.items() if (found := kept_answers(run, split))}
    if len(answers) < 2:
        return []
    (best, ours), *others = answers.items()
    rows = []
    for name, theirs in others:
        if [label for label, _ in ours] == [label for label, _ in theirs]:
            pairs = [(mine, yours) for (_, mine), (_, yours) in zip(ours, theirs, strict=True)]
            only_best, only_this = pairs.count((True, False)), pairs.count((False, True))
            figures = {"both_right": pairs.count((True, True)), "only_best": only_best, "only_this": only_this}
            rows.append(
                {"run": name, "against": best, **figures, "both_wrong": pairs.count((False, False)), "p": mcnemar(only_best, only_this)}
            )
    return rows


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p of the exact McNemar test: how likely chance splits so unevenly the images that one of two got right."""
    num = only_a + only_b
    ways = sum(math.comb(num, fewer) for fewer in range(min(only_a, only_b) + 1))
    return min(1.0, float(2 * ways / 2**num))


def kept_answers(run: Run, split: str) -> list[tuple[str, bool]]:
    """Return the label of each image and whether it was found, from what `inspect predictions` left; else nothing."""
    try:
        with (run.path / "inspection" / f"predictions-{split}.csv").open(newline="", encoding="utf-8") as table:
            return [(row["label"], row["label"] == row["predicted"]) for row in csv.DictReader(table)]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of runs; where several share one, their paths."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
