"""What the page that compares runs shows, as plain data: their figures, their curves on the same axes, what differs, how sure one can be.

Reading order: comparison_data, _over_seeds.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from firstlight.files import finite, is_locked
from firstlight.inspection.compare import compare_images, differences, run_row
from firstlight.metrics.evaluation import wilson_interval
from firstlight.studies.settings import show_point, show_value
from firstlight.studies.statistics import Comparison, compare_paired, estimate, holm
from firstlight.tracking.run import Run
from firstlight.tracking.values import number, one_line, part

MAX_EPOCHS = 1000
"""Points of a curve; of more, evenly spread ones."""
SEED_KEYS = ("seed", "init_seed", "order_seed")
"""Settings that are chance: runs that differ in these alone are one setting, run several times."""
MAX_KEYS = 4
"""Settings that name a group of runs; where more differ, it is called after its first run."""
MEASURES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")

Data = dict[str, Any]


def comparison_data(runs: Mapping[str, Run]) -> Data:
    """Return what a page says of several runs, in the order given; runs: by the id that the page knows them by.

    Damaged runs are named under `damaged` and left out of everything else.
    """
    damaged = [{"id": key, "name": run.name, "why": one_line(run.damage)} for key, run in runs.items() if run.damage]
    whole = {key: run for key, run in runs.items() if not run.damage}
    names = _names(whole)
    rows = [{**_row(run), "id": key, "name": names[key]} for key, run in whole.items()]
    found = differences([run.config for run in whole.values()]) if len(whole) > 1 else {}
    return finite(  # type: ignore[no-any-return]
        {
            "runs": rows,
            "damaged": damaged,
            "curves": [{"id": key, "name": names[key], **_curves(run)} for key, run in whole.items()],
            "differences": [
                {"key": key, "values": ["–" if value is None else show_value(value) for value in values]} for key, values in found.items()
            ],
            "same_images": _same_images(list(whole.values())),
            **_verdict(whole, names, found),
        }
    )


def stamp_of(path: Path) -> str:
    """Return a text that changes when a run has something new to show."""
    parts = [str(is_locked(path / "run.lock"))]
    for name in ("run.json", "config.yaml", "metrics.jsonl"):
        try:
            found = (path / name).stat()
            parts.append(f"{found.st_size}.{found.st_mtime_ns}")
        except OSError:
            parts.append("0")
    return "-".join(parts)


@lru_cache(maxsize=64)
def read_run(path: Path, stamp: str) -> Run:
    """Return a run that remembers what was read of it; another stamp stands for another state of its files."""
    return Run(path)


def _row(run: Run) -> Data:
    row = run_row(run)
    best = next((epoch for epoch in reversed(run.epochs) if epoch.get("best")), run.epochs[-1] if run.epochs else {})
    num_val = number(part(run.info, "data").get("num_val"))
    accuracy = number(row["val_accuracy"])
    interval = (
        wilson_interval(round(accuracy * num_val), round(num_val)) if accuracy is not None and num_val and 0 <= accuracy <= 1 else None
    )
    kept = {key: row[key] for key in ("state", "data", "model", "epochs", "val_accuracy", "test_accuracy", "num_parameters", "seconds")}
    return {**kept, "val_loss": best.get("val_loss"), "best_epoch": best.get("epoch"), "interval": interval, "num_val": num_val}


def _curves(run: Run) -> Data:
    epochs = run.epochs
    every = -(-len(epochs) // MAX_EPOCHS) or 1
    kept = epochs[::-1][::every][::-1]
    best = next((row["epoch"] for row in reversed(epochs) if row.get("best")), None)
    return {"epochs": [row["epoch"] for row in kept], "best": best, **{key: [row.get(key) for row in kept] for key in MEASURES}}


def _names(runs: Mapping[str, Run]) -> dict[str, str]:
    """Return short names of runs; where several share one, with the folder above."""
    names = [run.name for run in runs.values()]
    return {key: run.name if names.count(run.name) == 1 else f"{run.path.parent.name}/{run.name}" for key, run in runs.items()}


def _same_images(runs: Sequence[Run]) -> bool | None:
    """Tell whether all were validated on the same images, as the hashes in their records say; None where they say nothing."""
    seen = {(part(run.info, "data").get("val_hash"), part(run.info, "data").get("content_hash")) for run in runs}
    return None if (None, None) in seen else len(seen) == 1


def _verdict(runs: Mapping[str, Run], names: Mapping[str, str], found: Mapping[str, list[Any]]) -> Data:
    """Return what the runs say together: over seeds where settings have several, else image by image, else that nothing can be said.

    how: `seeds`, `images` or `none`; says: sentences; groups, pairs: the figures behind them.
    """
    if len(runs) < 2:
        return {"how": "none", "says": [], "groups": [], "pairs": []}
    best = max(runs, key=lambda key: number(run_row(runs[key])["val_accuracy"]) or 0.0)
    first = f"Best validation accuracy: {names[best]}, {number(run_row(runs[best])['val_accuracy']) or 0.0:.4f}."
    over_seeds = _over_seeds(runs, found)
    if over_seeds is not None:
        return over_seeds
    ordered = {names[key]: runs[key] for key in (best, *(key for key in runs if key != best))}
    pairs = compare_images(ordered)
    if pairs:
        corrected = holm([pair["p"] for pair in pairs], len(runs) * (len(runs) - 1) // 2)
        pairs = [{**pair, "p_corrected": p, "says": _say_images(pair, p)} for pair, p in zip(pairs, corrected, strict=True)]
        says = [
            first,
            *(pair["says"] for pair in pairs),
            "One run each: another seed may turn the order round; this counts images, not seeds.",
        ]
        return {"how": "images", "says": says, "groups": [], "pairs": pairs}
    remedy = "Run each setting with several seeds (seed=1, seed=2, ...), or `firstlight inspect predictions` each run, and look again."
    return {
        "how": "none",
        "says": [first, f"One run each says nothing about noise: their order may be chance. {remedy}"],
        "groups": [],
        "pairs": [],
    }


def _over_seeds(runs: Mapping[str, Run], found: Mapping[str, list[Any]]) -> Data | None:
    """Return the settings with their spread, compared seed by seed with the best; None where seeds say nothing about them."""
    keys = [key for key in found if key not in SEED_KEYS]
    groups: dict[str, Data] = {}
    for place, (run_id, run) in enumerate(runs.items()):
        point = {key: found[key][place] for key in keys}
        accuracy = number(run_row(run)["val_accuracy"])
        if accuracy is None or run.state != "finished":
            continue
        seed = tuple(run.config.get(key) for key in SEED_KEYS)
        called = show_point(point) if len(point) <= MAX_KEYS else f"as {run.name}"
        group = groups.setdefault(json.dumps(point, sort_keys=True, default=str), {"setting": called, "runs": [], "by_seed": {}})
        group["runs"].append(run_id)
        group["by_seed"][seed] = accuracy
    if len(groups) == 1 and len(*(group["by_seed"] for group in groups.values())) > 1:
        (only,) = groups.values()
        said = f"The same settings with other seeds: mean validation accuracy {estimate(list(only['by_seed'].values())).within(0.0, 1.0)}."
        return {"how": "seeds", "says": [said], "groups": [_group({**only, "setting": "all finished runs"})], "pairs": []}
    if len(groups) < 2:
        return None
    ordered = sorted(groups.values(), key=lambda group: -estimate(list(group["by_seed"].values())).mean)
    best, *others = ordered
    compared = [(group, _paired(group["by_seed"], best["by_seed"])) for group in others]
    tested = [(group, pair) for group, pair in compared if pair is not None and pair.difference.n > 1]
    if not tested:
        return None
    corrected = holm([pair.p for _, pair in tested], len(groups) * (len(groups) - 1) // 2)
    says = [
        pair.sentence(group["setting"], best["setting"], unit="validation accuracy", corrected=p if len(tested) > 1 else None)
        for (group, pair), p in zip(tested, corrected, strict=True)
    ]
    untested = len(others) - len(tested)
    if untested:
        says.append(f"{untested} more settings share fewer than two seeds with the best one, so nothing is said about them")
    pairs = [
        {"run": group["setting"], "against": best["setting"], **_difference(pair), "p_corrected": p, "says": said}
        for (group, pair), p, said in zip(tested, corrected, says, strict=False)
    ]
    first = f"Best setting: {best['setting']}, mean validation accuracy {estimate(list(best['by_seed'].values())).within(0.0, 1.0)}."
    return {"how": "seeds", "says": [first, *says], "groups": [_group(group) for group in ordered], "pairs": pairs}


def _paired(theirs: Mapping[Any, float], ours: Mapping[Any, float]) -> Comparison | None:
    shared = [seed for seed in theirs if seed in ours]
    return compare_paired([theirs[seed] for seed in shared], [ours[seed] for seed in shared]) if shared else None


def _difference(pair: Comparison) -> Data:
    found = pair.difference
    return {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n, "p": pair.p}


def _group(group: Data) -> Data:
    found = estimate(list(group["by_seed"].values())).within(0.0, 1.0)
    return {"setting": group["setting"], "runs": group["runs"], "mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _say_images(pair: Mapping[str, Any], p: float) -> str:
    only = f"{pair['against']} alone is right on {pair['only_best']:,} images, {pair['run']} alone on {pair['only_this']:,}"
    if p < 0.05:
        return f"{only}: more than chance would do (exact McNemar test, p = {p:.2g} corrected)"
    return f"{only}: no difference beyond chance (exact McNemar test, p = {p:.2g} corrected)"
