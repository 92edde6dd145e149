"""What one asks of a finished run: its figures on a split, and its answers on images without labels."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.config.schema import Config
from firstlight.data.build import load_images, load_training_data, make_loader
from firstlight.data.loader import Loader
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import evaluate_model, predict_probabilities
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import config_of, data_record, load_model, normalize_of
from firstlight.engine.test_set import open_test_set
from firstlight.errors import ConfigError, DataError
from firstlight.files import make_dir, write_json, write_text
from firstlight.metrics.evaluation import Evaluation
from firstlight.tracking.run import Run, find_run
from firstlight.tracking.writer import record_test_opening

SPLITS = ("val", "test")


def evaluate(
    run: str | Path, *, split: str = "val", which: str = "best", runs_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> dict[str, Any]:
    """Return loss, accuracy, top-k accuracy and per-class figures of a run on `val` or on the sealed `test` set.

    Each opening of the test set is written into the run. The result is also kept in the run, as evaluation-<split>.json.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; allowed: {', '.join(SPLITS)}")
    found = find_run(run, runs_dir_of(runs_dir))
    config, arithmetic, began = config_of(found), Arithmetic(**found.info["arithmetic"]), time.monotonic()
    model = arithmetic.place(load_model(found, which=which))
    with out_of_memory(config.train.batch_size):
        loader = _loader(found, config, split, arithmetic, data_dir_of(data_dir))
        result = evaluate_model(model, loader, len(data_record(found)["class_names"]), arithmetic)
    if split == "test":
        record_test_opening(found, {"by": f"evaluate ({which})", "accuracy": result.accuracy, "num_images": result.num_images})
    figures = {"run": str(found.path), "split": split, "checkpoint": which, "seconds": round(time.monotonic() - began, 3)}
    figures |= {**result.to_json(), "classes": _classes(result, data_record(found)["class_names"])}
    if split == "test":
        figures["test_accuracy"] = result.accuracy
    path = found.path / f"evaluation-{split}.json"
    figures["files"] = [str(path)]
    write_json(path, figures)
    return figures


def predict(
    run: str | Path, images: Sequence[str | Path], *, out: str | Path | None = None, runs_dir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Return, for each image file, its most probable class and the probability of every class.

    Images are converted to the channels and the size that the run was trained on. out: also write a .csv or .json file.
    """
    found = find_run(run, runs_dir_of(runs_dir))
    config, arithmetic, record = config_of(found), Arithmetic(**found.info["arithmetic"]), data_record(found)
    if not images:
        raise ConfigError("no image was named; give one or more image files or folders")
    if out is not None and Path(out).suffix not in (".csv", ".json"):
        raise ConfigError(f"--out {out} ends in neither .csv nor .json; name the table by its kind")
    model = arithmetic.place(load_model(found))
    dataset, paths = load_images([Path(image) for image in images], tuple(record["image_shape"]), record["class_names"])
    loader = make_loader(dataset, config, normalize_of(found), device=arithmetic.device, channels_last=arithmetic.channels_last)
    names: list[str] = record["class_names"]
    rows = []
    for path, values in zip(paths, predict_probabilities(model, loader, arithmetic).tolist(), strict=True):
        best = max(range(len(names)), key=values.__getitem__)
        rows.append(
            {"image": str(path), "label": names[best], "probability": values[best], "probabilities": dict(zip(names, values, strict=True))}
        )
    if out is not None:
        write_predictions(Path(out), rows)
    return rows


def _classes(result: Evaluation, names: list[str]) -> list[dict[str, Any]]:
    columns = zip(names, result.support.tolist(), result.precision.tolist(), result.recall.tolist(), result.f1.tolist(), strict=True)
    return [dict(zip(("class", "images", "precision", "recall", "f1"), row, strict=True)) for row in columns]


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write predictions as CSV (one column a class) or JSON, by the suffix."""
    make_dir(path.parent)
    if path.suffix == ".json":
        write_json(path, rows)
        return
    header = ["image", "label", "probability", *rows[0]["probabilities"]]
    lines = [
        [row["image"], row["label"], f"{row['probability']:.6f}", *(f"{p:.6f}" for p in row["probabilities"].values())] for row in rows
    ]
    write_text(path, "".join(",".join(_csv_cell(cell) for cell in line) + "\n" for line in [header, *lines]))


def _csv_cell(cell: str) -> str:
    return json.dumps(cell, ensure_ascii=False).replace('\\"', '""') if any(mark in cell for mark in ',"\n\r') else cell


def _loader(run: Run, config: Config, split: str, arithmetic: Arithmetic, data_dir: Path) -> Loader:
    if split == "test":
        return open_test_set(config, data_dir, normalize_of(run), arithmetic)
    data = load_training_data(config, data_dir)
    if data.val is None:
        raise DataError(
            f"run {run.path} was trained without validation (split.val_fraction=0); there is nothing to evaluate but --split test"
        )
    if data.record.val_hash != data_record(run)["val_hash"]:
        raise DataError(
            f"the validation images are not those of run {run.path}: the data changed since; put the old data back, or train anew"
        )
    return make_loader(data.val, config, normalize_of(run), device=arithmetic.device, channels_last=arithmetic.channels_last)
