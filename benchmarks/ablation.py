"""What each setting of the fast recipe is worth: the recipe as it is, against the recipe with one setting undone.

`python -m benchmarks.ablation [--recipe cifar10_fast_85] [--seeds 2] [--images 12000] [--threads 2] [NAME ...]`. All are trained with
the same seeds on so many of the training images and compared on 5,000 others, so a difference is free of what the seed alone brings; the
test set stays shut. A difference comes with the spread of its pairs: one within it is no finding. Rows that are not named are kept.
The further looks at each image are compared on the weights of the recipe itself. Processor seconds are those of a whole `fl.train`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import cache
from typing import Any

import firstlight as fl
from benchmarks.pairs import spread
from benchmarks.record import RESULTS, Row, write_result
from firstlight.config.schema import EvaluationConfig
from firstlight.data.build import load_training_data, make_loader
from firstlight.engine.evaluate import evaluate_model
from firstlight.engine.places import data_dir_of
from firstlight.engine.restore import arithmetic_of, config_of, normalize_of
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run

TITLE = "What each setting of the fast recipe is worth"
COMMAND = "python -m benchmarks.ablation"
HELD_OUT = ("split.val_fraction=0.1", "evaluation.views=one")

UNDONE: dict[str, tuple[str, ...]] = {
    "input.whiten: no whitening layer": ("input.whiten=0",),
    "optim: SGD with Nesterov momentum in place of Muon": ("optim=sgd", "optim.lr=0.1", "optim.momentum=0.9", "optim.nesterov=true"),
    "train.freeze_norm_scale: scales are trained": ("train.freeze_norm_scale=false",),
    "train.label_smoothing: none": ("train.label_smoothing=0",),
    "train.ema_decay: weights averaged over some 20 steps": ("train.ema_decay=0.95",),
    "augment.flip: drawn at each epoch in place of alternating": ("augment.flip=true",),
    "train.early_size: full size from the first step": ("train.early_size=null",),
    "optim.normalize: filters keep their own norm": ("optim.normalize=false",),
    "augment.crop: no moved windows": ("augment.crop=0",),
}
"""The name of each row, and the overrides behind it."""
VIEWS = {"mirror": ("mirror", 1.0), "mirror_shift": ("mirror_shift", 1.0), "mirror_shift where below 0.9": ("mirror_shift", 0.9)}
"""Ways to look again: evaluation.views and evaluation.views_below."""


def main() -> None:
    """Train, compare, print, and write results/ablation.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("names", nargs="*", help=f"settings, as {', '.join(sorted({_setting(name) for name in UNDONE}))} (default: all)")
    words.add_argument("--recipe", default="cifar10_fast_85")
    words.add_argument("--seeds", type=int, default=2, help="trainings of each (default 2)")
    words.add_argument("--images", type=int, default=12_000, help="images to train on (default 12000, a quarter of the recipe's steps)")
    words.add_argument("--threads", type=int, default=2, help="threads of a training (default 2)")
    arguments = words.parse_args()
    if unknown := set(arguments.names) - {_setting(name) for name in UNDONE}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(sorted({_setting(name) for name in UNDONE}))}")
    rows = {row["what"]: row for row in _recorded()}
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def trained(overrides: tuple[str, ...], seed: int) -> tuple[Run, float]:
            began = time.process_time()
            place: dict[str, Any] = {"runs_dir": folder, "console": Console(quiet=True)}
            size = (f"split.num_train={arguments.images}", f"device.threads={arguments.threads}")
            run = fl.train(arguments.recipe, *HELD_OUT, *size, *overrides, f"seed={seed}", **place)
            return run, time.process_time() - began

        seeds = range(arguments.seeds)
        base = [trained((), seed) for seed in seeds]
        found = [_accuracy(run) for run, _ in base]
        what = f"{arguments.recipe} on {arguments.images:,} images, as it is: held-out accuracy, one look"
        note = f"{spread(found)}; {_mean_seconds(base):.0f} processor seconds"
        new = [{"what": what, "value": round(statistics.mean(found), 4), "unit": "", "n": len(found), "note": note}]
        new += [_views_row(name, [run for run, _ in base], *VIEWS[name]) for name in VIEWS]
        for name, overrides in UNDONE.items():
            if not arguments.names or _setting(name) in arguments.names:
                new.append(_row(name, base, [trained(overrides, seed) for seed in seeds]))
            for row in new:
                rows[row["what"]] = row
            write_result("ablation", TITLE, COMMAND, list(rows.values()))
    for row in new:
        print(f"{row['what']}: {row['value']:+.4f} ({row['note']})")


def _row(name: str, base: list[tuple[Run, float]], others: list[tuple[Run, float]]) -> Row:
    """Return what a setting undone changes, seed by seed."""
    differences = [_accuracy(other) - _accuracy(run) for (other, _), (run, _) in zip(others, base, strict=True)]
    seconds = _mean_seconds(others) / _mean_seconds(base)
    row = {"what": name, "value": round(statistics.mean(differences), 4), "unit": "accuracy", "n": len(differences)}
    return {**row, "note": f"{_signed(differences)}; {seconds:.2f} x the processor seconds"}


def _views_row(name: str, runs: list[Run], views: str, below: float) -> Row:
    """Return what further looks add to the accuracy of the same weights."""
    looks, differences, seconds = EvaluationConfig(views=views, views_below=below), [], []  # type: ignore[arg-type]
    for run in runs:
        once, plain = _looked(run, EvaluationConfig())
        again, longer = _looked(run, looks)
        differences.append(again - once)
        seconds.append(longer / plain)
    row = {"what": f"evaluation.views: {name}", "value": round(statistics.mean(differences), 4), "unit": "accuracy", "n": len(runs)}
    return {**row, "note": f"{_signed(differences)}; {statistics.median(seconds):.1f} x the time of one look"}


def _looked(run: Run, looks: EvaluationConfig) -> tuple[float, float]:
    """Return the held-out accuracy of a run's weights with such looks, and its processor seconds."""
    config, arithmetic = config_of(run), arithmetic_of(run)
    data = load_training_data(config, data_dir_of(None))
    assert data.val is not None
    with arithmetic.on_threads():
        model = arithmetic.place(fl.load_model(run.path))
        loader = make_loader(data.val, config, normalize_of(run), device=arithmetic.device, channels_last=arithmetic.channels_last)
        began = time.process_time()
        result = evaluate_model(model, loader, data.val.num_classes, arithmetic, looks)
        return result.accuracy, time.process_time() - began


def _accuracy(run: Run) -> float:
    return float(run.summary["val_accuracy"])


def _mean_seconds(trained: list[tuple[Run, float]]) -> float:
    return statistics.mean(seconds for _, seconds in trained)


def _signed(values: list[float]) -> str:
    return f"{min(values):+.4f} to {max(values):+.4f}"


def _setting(name: str) -> str:
    return name.partition(":")[0]


def _recorded() -> list[Row]:
    path = RESULTS / "ablation.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return rows


if __name__ == "__main__":
    main()
