"""The answers of a finished run on images without labels: files that the user names, or the unlabelled test part of its data."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.config.schema import Config
from firstlight.data.build import load_experiment_part, load_images, make_loader
from firstlight.data.dataset import Dataset
from firstlight.engine.evaluate import predict_probabilities
from firstlight.engine.finished import draw_predictions
from firstlight.engine.matching import check_match
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import arithmetic_of, config_of, data_record, load_model, normalize_of
from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_figure, write_json, write_text
from firstlight.tracking.run import Run, find_run

Row = dict[str, Any]

UNLABELLED = ("kaggle_digits", "hdf5", "medium_imagenet")
"""The data sets whose test part may have no labels, so that reading it opens no seal."""
NO_IMAGE = "no image was named; give image files or folders (test images with labels: `firstlight evaluate RUN --split test`)"


def predict(
    run: str | Path,
    images: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> list[Row]:
    """Return, for each image, its most probable class and the probability of every class.

    images: files or folders, converted to the channels and the size that the run was trained on; none means the unlabelled test part of
    the run's data (a competition's), of which 20 predictions are drawn into the run as predictions-test.png.
    out: also write a .csv or .json file.
    """
    if out is not None and Path(out).suffix not in (".csv", ".json"):
        raise ConfigError(f"--out {out} ends in neither .csv nor .json; name the table by its kind")
    found = find_run(run, runs_dir_of(runs_dir))
    config, arithmetic = config_of(found), arithmetic_of(found)
    with (
        arithmetic.on_threads(),
        out_of_memory("reading the images and the network", "name fewer images, or use a machine with more memory"),
    ):
        dataset, names = _images_of(found, config, images, data_dir_of(data_dir))
        model = arithmetic.place(load_model(found))
        loader = make_loader(dataset, config, normalize_of(found), device=arithmetic.device, channels_last=arithmetic.channels_last)
        probabilities = predict_probabilities(model, loader, arithmetic, config.evaluation).tolist()
        title = f"{found.name}: 20 predictions of {len(dataset):,} images without labels"
        figure = None if images else draw_predictions(model, dataset, config, found, title=title)
    rows = [_row(name, values, dataset.class_names) for name, values in zip(names, probabilities, strict=True)]
    if figure is not None:
        write_figure(found.path / "predictions-test.png", figure)
    if out is not None:
        write_predictions(Path(out), rows)
    return rows


def _images_of(run: Run, config: Config, images: Sequence[str | Path], data_dir: Path) -> tuple[Dataset, list[str]]:
    record = data_record(run)
    if images:
        dataset, paths = load_images([Path(image) for image in images], tuple(record["image_shape"]), record["class_names"])
        return dataset, [str(path) for path in paths]
    if config.data.name not in UNLABELLED:
        raise ConfigError(NO_IMAGE)
    dataset = load_experiment_part(config, "test", data_dir)
    if dataset.labels is not None:  # sealed: nothing of it is looked at
        raise ConfigError(NO_IMAGE)
    check_match(dataset, record)
    return dataset, [f"test[{index}]" for index in range(len(dataset))]


def _row(name: str, probabilities: list[float], class_names: Sequence[str]) -> Row:
    best = max(range(len(class_names)), key=probabilities.__getitem__)
    return {
        "image": name,
        "label": class_names[best],
        "probability": probabilities[best],
        "probabilities": dict(zip(class_names, probabilities, strict=True)),
    }


def write_predictions(path: Path, rows: list[Row]) -> None:
    """Write predictions as CSV (one column a class) or JSON, by the suffix."""
    make_dir(path.parent)
    if path.suffix == ".json":
        write_json(path, rows)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "label", "probability", *rows[0]["probabilities"]])
    for row in rows:
        table.writerow([row["image"], row["label"], *(f"{value:.6f}" for value in (row["probability"], *row["probabilities"].values()))])
    write_text(path, text.getvalue())
