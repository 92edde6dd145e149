"""The figures of a finished run on labelled images: validation, or the sealed test set, with a sheet of its predictions."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.config.schema import Config
from firstlight.data.build import load_training_data, make_loader
from firstlight.data.dataset import Dataset
from firstlight.data.training_data import TrainingData
from firstlight.engine.evaluate import evaluate_model, predict_probabilities
from firstlight.engine.matching import check_match
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import arithmetic_of, config_of, data_record, load_model, normalize_of
from firstlight.engine.sealed import open_test_set
from firstlight.errors import ConfigError, DataError
from firstlight.files import write_figure, write_json
from firstlight.metrics.evaluation import Evaluation
from firstlight.plotting.images import plot_predictions
from firstlight.tracking.run import Run, find_run
from firstlight.tracking.writer import record_test_opening

SPLITS = ("val", "test")
MORE_MEMORY = "close other programs, or use a machine with more memory"
SHEET_SIZE = 20
"""Images on the sheet of predictions, spread evenly over the split."""
SAME_IMAGES = ("val_hash", "content_hash")
"""What names the validation images in the record of a run: their places, and (in newer runs) the pixels and labels themselves."""


def evaluate(
    run: str | Path, *, split: str = "val", which: str = "best", runs_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> dict[str, Any]:
    """Return loss, accuracy, top-k accuracy, confusion matrix and per-class figures of a run on `val` or on the sealed `test` set.

    Each opening of the test set is written into the run. The figures are kept in the run as evaluation-<split>.json, and 20 images with
    true and predicted label as predictions-<split>.png (of the last weights as evaluation-<split>-last.json, ...).
    """
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; allowed: {', '.join(SPLITS)}")
    found = find_run(run, runs_dir_of(runs_dir))
    config, arithmetic, began = config_of(found), arithmetic_of(found), time.monotonic()
    with arithmetic.on_threads(), out_of_memory(f"reading the {split} images and the network", MORE_MEMORY):
        dataset = labelled_part(found, config, split, data_dir_of(data_dir))
        model = arithmetic.place(load_model(found, which=which))
        loader = make_loader(dataset, config, normalize_of(found), device=arithmetic.device, channels_last=arithmetic.channels_last)
        result = evaluate_model(model, loader, dataset.num_classes, arithmetic, config.evaluation)
        if split == "test":
            record_test_opening(found, {"by": f"evaluate ({which})", "accuracy": result.accuracy, "num_images": result.num_images})
        figure = draw_predictions(model, dataset, config, found, title=f"{found.name}, {split}: {_sentence(result)}")
    what = split if which == "best" else f"{split}-{which}"
    path, sheet = found.path / f"evaluation-{what}.json", found.path / f"predictions-{what}.png"
    figures = {"run": str(found.path), "split": split, "checkpoint": which, "seconds": round(time.monotonic() - began, 3)}
    figures |= result.to_json(dataset.class_names) | ({"test_accuracy": result.accuracy} if split == "test" else {})
    figures |= {"warnings": list(dataset.warnings)} if dataset.warnings else {}
    figures["files"] = [str(path), str(sheet)]
    write_json(path, figures)
    write_figure(sheet, figure)
    return figures


def draw_predictions(model: Any, dataset: Dataset, config: Config, run: Run, *, title: str) -> Any:
    """Return a sheet of SHEET_SIZE images, evenly spread, with predicted label and probability, and the true label where there is one."""
    arithmetic = arithmetic_of(run)
    chosen = dataset.subset(spread(len(dataset), SHEET_SIZE))
    loader = make_loader(chosen, config, normalize_of(run), device=arithmetic.device, channels_last=arithmetic.channels_last)
    best = predict_probabilities(model, loader, arithmetic, config.evaluation).max(1)
    guesses = [dataset.class_names[label] for label in best.indices.tolist()]
    labels = None if chosen.labels is None else [dataset.class_names[label] for label in chosen.labels.tolist()]
    return plot_predictions([chosen.pixels(index) for index in range(len(chosen))], labels, guesses, best.values.tolist(), title=title)


def spread(num: int, wanted: int) -> Tensor:
    """Return at most `wanted` indices, evenly spread over 0..num-1, int64."""
    return torch.linspace(0, num - 1, min(num, wanted)).round().to(torch.int64)


def _sentence(result: Evaluation) -> str:
    shown = f"; {SHEET_SIZE} of them" if result.num_images > SHEET_SIZE else ""
    return f"{result.accuracy:.2%} of {result.num_images:,} images right{shown}"


def labelled_part(run: Run, config: Config, split: str, data_dir: Path) -> Dataset:
    """Return the `train`, `val` or `test` images of a run with their labels, as it was trained on them.

    Whoever asks for `test` records the opening in the run. Raises DataError where the run has no such part, or the data changed since.
    """
    if split == "test":
        return open_test_set(config, data_dir, data_record(run))
    data = load_training_data(config, data_dir)
    if split == "val" and data.val is None:
        raise DataError(
            f"run {run.path} was trained without validation (split.val_fraction=0); there is nothing to evaluate but --split test"
        )
    check_same_images(data, run)
    return data.train if split == "train" or data.val is None else data.val


def check_same_images(data: TrainingData, run: Run) -> None:
    """Raise DataError where images that were read for a run are not those that it was trained and validated on."""
    check_match(data.train, data_record(run))
    old, new = data_record(run), data.record.to_json()
    if any(old[key] != new[key] for key in SAME_IMAGES if key in old and key in new):
        raise DataError(
            f"the validation images are not those of run {run.path}: the data changed since; put the old data back, or train anew"
        )
