"""The answers of a finished run on images without labels, and the table of them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.engine.asked import asked
from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_figure, write_json, write_text

Row = dict[str, Any]


def predict(
    run: str | Path,
    images: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> list[Row]:
    """Return, for each image, its most probable class and the probability of every class.

    images: files or folders, converted to the channels and the size that the run was trained on, or one .csv of pixels; none means the
    unlabelled test part of the run's data (a competition's), of which 20 predictions are drawn into the run as predictions-test.png.
    out: also write a .csv or .json file.
    """
    if out is not None and Path(out).suffix not in (".csv", ".json"):
        raise ConfigError(f"--out {out} ends in neither .csv nor .json; name the table by its kind")
    with asked(run, images, runs_dir=runs_dir, data_dir=data_dir) as question:
        probabilities = [row for batch in question.probabilities() for row in batch.tolist()]
        title = f"{question.run.name}: 20 predictions of {len(question):,} images without labels"
        figure = None if images else question.sheet(title)
    rows = [_row(question.name(index), values, question.class_names) for index, values in enumerate(probabilities)]
    if figure is not None:
        write_figure(question.run.path / "predictions-test.png", figure)
    if out is not None:
        write_predictions(Path(out), rows)
    return rows


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
