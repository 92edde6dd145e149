"""Answers on images without labels: a table of them as a file, and a competition's part that must be what the run was trained on."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from firstlight.errors import DataError
from firstlight.tracking.console import Console

Train = Callable[..., fl.Run]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return path


def test_a_table_holds_what_was_returned(train: Train, tmp_path: Path, photo: Path) -> None:
    run = train()
    rows = fl.predict(run.path, [photo], out=tmp_path / "new" / "answers.json")
    assert json.loads((tmp_path / "new" / "answers.json").read_text()) == rows
    assert fl.predict(run.path, [photo], out=tmp_path / "answers.csv") == rows
    with (tmp_path / "answers.csv").open(newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["image"], row["label"]) == (str(photo), rows[0]["label"])
    assert {name: float(row[name]) for name in map(str, range(10))} == pytest.approx(rows[0]["probabilities"], abs=1e-6)


def write_kaggle(folder: Path, part: str, num: int) -> None:
    """Write a part of Kaggle's digits: noise, the labels 0 to 9 in turn."""
    (folder / "digit-recognizer").mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (num, 784))
    labels = np.arange(num)[:, None] % 10
    table, names = (np.hstack([labels, pixels]), ["label"]) if part == "train" else (pixels, [])
    with (folder / "digit-recognizer" / f"{part}.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([[*names, *(f"pixel{number}" for number in range(784))], *table.tolist()])


def test_a_competitions_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Fault 20: the settings of a run that was trained at 14 pixels were changed since."""
    write_kaggle(tmp_path, "train", 60)
    write_kaggle(tmp_path, "test", 3)
    places: dict[str, Any] = {"runs_dir": tmp_path / "runs", "data_dir": tmp_path}
    settings = ["data=kaggle_digits", "model=linear", "input.image_size=14", "train.epochs=1", "train.test_at_end=false"]
    run = fl.train("quickstart", *settings, "device.name=cpu", name="k", console=Console(quiet=True), **places)
    assert [row["image"] for row in fl.predict("k", **places)] == ["test[0]", "test[1]", "test[2]"]
    assert (run.path / "predictions-test.png").stat().st_size > 1000
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("image_size: 14", "image_size: 15"))
    with pytest.raises(DataError, match=r"Kaggle digits \(3 .*: its images are 1 x 15 x 15, but the run was trained on 1 x 14 x 14; put"):
        fl.predict("k", **places)
