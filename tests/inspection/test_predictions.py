"""Predictions of a run: the sheet, the table, one image; against a plain forward pass and scikit-learn."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import log_loss

import firstlight as fl
from firstlight.__main__ import main
from firstlight.data.build import load_training_data
from firstlight.engine.restore import config_of
from firstlight.errors import ConfigError, DataError
from firstlight.inspection.answers import Answers
from firstlight.inspection.predictions import inspect_image, inspect_predictions, write_table
from firstlight.tracking.run import load_run

NUM_VAL = 431
"""Validation images: three tenths of the digits' 1,438 training images."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear network on the digits, wrong on some."""
    folder = tmp_path_factory.mktemp("inspected")
    words = ["model=linear", "train.epochs=2", "train.test_at_end=false", "split.val_fraction=0.3"]
    return fl.train("quickstart", *words, name="digits", runs_dir=folder).path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on red and blue images in class folders."""
    folder = tmp_path_factory.mktemp("photos")
    for name, color in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
        (folder / "data" / name).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (8, 8), tuple(max(value - index, 0) for value in color)).save(folder / "data" / name / f"{name[0]}{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTLIGHT_CACHE", str(folder / "cache"))
        words = [f"data.path={folder / 'data'}", "model=linear", "train.epochs=3", "split.val_fraction=0.25", "train.test_at_end=false"]
        fl.train("quickstart", "data=folder", *words, name="photos", runs_dir=folder)
        yield folder / "photos"


def reference(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities [N, K] of the validation images, by a forward pass written out."""
    data = load_training_data(config_of(load_run(run)), run)
    assert data.val is not None and data.val.labels is not None
    images = data.val.images.double() / 255
    record = data.record.normalize
    seen = (images - torch.tensor(record.mean).view(1, -1, 1, 1)) / torch.tensor(record.std).view(1, -1, 1, 1)
    with torch.no_grad():
        return data.val.labels.numpy(), softmax(fl.load_model(run).double()(seen).numpy(), axis=1)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_table_has_every_image_with_the_figures_of_a_plain_forward_pass(run: Path) -> None:
    """C9, F5, issue 6: label, prediction, probabilities, loss, margin and entropy to 1e-6."""
    found = inspect_predictions(run, num=1)
    rows = rows_of(run / "inspection" / "predictions-val.csv")
    labels, probabilities = reference(run)
    ordered = np.sort(probabilities, axis=1)
    columns: dict[str, Any] = {
        "probability": ordered[:, -1],
        "label_probability": probabilities[np.arange(NUM_VAL), labels],
        "loss": [log_loss([label], row[None], labels=list(range(10))) for label, row in zip(labels, probabilities, strict=True)],
        "margin": ordered[:, -1] - ordered[:, -2],
        "entropy": entropy(probabilities, axis=1),
    } | {f"p_{label}": probabilities[:, label] for label in range(10)}
    assert [int(row["index"]) for row in rows] == list(range(NUM_VAL))
    assert [row["label"] for row in rows] == [str(label) for label in labels]
    assert [row["predicted"] for row in rows] == [str(label) for label in probabilities.argmax(axis=1)]
    assert [row["right"] == "yes" for row in rows] == (probabilities.argmax(axis=1) == labels).tolist()
    assert list(rows[0]) == ["index", "label", "predicted", "right", *columns]
    for name, values in columns.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, atol=1e-6, rtol=1e-5, err_msg=name)
    assert found["accuracy"] == pytest.approx(fl.evaluate(run)["accuracy"]) and 0.3 < found["accuracy"] < 0.99


def test_the_parquet_table_is_the_same(run: Path) -> None:
    inspect_predictions(run, num=1)
    table = parquet.read_table(run / "inspection" / "predictions-val.parquet").to_pydict()
    rows = rows_of(run / "inspection" / "predictions-val.csv")
    assert list(table) == list(rows[0]) and table["label"] == [row["label"] for row in rows]
    np.testing.assert_allclose(table["entropy"], [float(row["entropy"]) for row in rows], rtol=1e-6)
    np.testing.assert_allclose(table["p_3"], [float(row["p_3"]) for row in rows], rtol=1e-6, atol=1e-12)


def test_a_sheet_of_twenty_spread_over_the_split(run: Path) -> None:
    """D20: true and predicted label; the JSON holds what a report shows."""
    found = inspect_predictions(run)
    assert [row["index"] for row in found["predictions"]] == np.linspace(0, NUM_VAL - 1, 20).round().astype(int).tolist()
    kept = json.loads((run / "inspection" / "predictions-val.json").read_text())
    assert kept == found and {"run", "what", "split", "num_images", "says", "files"} <= kept.keys()
    assert {Path(file).suffix for file in kept["files"]} == {".png", ".svg", ".csv", ".parquet", ".json"}
    assert all(Path(file).stat().st_size > 500 for file in kept["files"])
    assert f"of {NUM_VAL} val images right" in kept["says"]


@pytest.mark.parametrize(
    ("sort", "key", "falling"), [("confident", "probability", True), ("unsure", "probability", False), ("loss", "loss", True)]
)
def test_a_selection_in_order(run: Path, sort: str, key: str, falling: bool) -> None:
    found = inspect_predictions(run, classes="3,8", only="wrong", sort=sort, num=5)
    chosen = [row for row in rows_of(run / "inspection" / "predictions-val.csv") if row["label"] in "38" and row["right"] == "no"]
    expected = sorted(chosen, key=lambda row: float(row[key]) * (-1 if falling else 1))
    assert [row["index"] for row in found["predictions"]] == [int(row["index"]) for row in expected[:5]]
    assert found["selected"] == len(chosen) > 5


def test_an_empty_selection_says_so_in_words_and_picture(photos: Path) -> None:
    """Issue 6, bad input."""
    found = inspect_predictions(photos, only="wrong")
    assert found["selected"] == 0 and found["predictions"] == [] and found["says"].endswith("; no wrong val images to show")
    assert "no wrong val images" in (photos / "inspection" / "predictions-val.svg").read_text()


def test_images_from_files_have_their_path_in_the_table(photos: Path) -> None:
    """C9: the images of a folder can be found again."""
    inspect_predictions(photos)
    rows = rows_of(photos / "inspection" / "predictions-val.csv")
    assert len(rows) == 8 and all(row["path"].startswith(f"{row['label']}/{row['label'][0]}") for row in rows)
    assert all((photos.parent / "data" / row["path"]).is_file() for row in rows)


def test_many_classes_are_left_out_of_the_table_unless_asked_for(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 21)).astype(np.float32)
    answers = Answers(logits, np.array([0, 5, 20]), tuple(f"class {number}" for number in range(21)))
    for wide in (False, True):
        for path in write_table(tmp_path / "table", answers, None, all_classes=wide):
            rows = rows_of(path) if path.suffix == ".csv" else parquet.read_table(path).to_pylist()
            assert len(rows) == 3 and ("p_class 20" in rows[0]) is wide


def test_one_image_beside_its_class_bars(run: Path) -> None:
    """B10."""
    found = inspect_image(run, "17")
    labels, probabilities = reference(run)
    assert found["index"] == 17 and found["label"] == str(labels[17]) and found["num_images"] == 1
    np.testing.assert_allclose(list(found["probabilities"].values()), probabilities[17], atol=1e-6)
    assert [Path(file).name for file in found["files"]] == ["image_17-val.png", "image_17-val.svg", "image_17-val.json"]


def test_an_image_file_of_another_size_and_without_colour(photos: Path, tmp_path: Path) -> None:
    """B10, issue 6, bad input: it is made to fit; the label is not known."""
    Image.new("L", (30, 20), 200).save(tmp_path / "grey.png")
    found = inspect_image(photos, str(tmp_path / "grey.png"))
    assert found["says"].startswith("grey.png: ") and "label" not in found
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert [Path(file).name for file in found["files"]] == ["image_grey-file.png", "image_grey-file.svg", "image_grey-file.json"]


def test_the_test_set_is_opened_on_record(run: Path) -> None:
    """D11: and only then."""
    before = len(load_run(run).info["test_openings"])
    inspect_predictions(run, split="train", num=1)
    assert len(load_run(run).info["test_openings"]) == before
    found = inspect_predictions(run, split="test", num=1)
    assert found["num_images"] == 359 and len(load_run(run).info["test_openings"]) == before + 1
    assert load_run(run).info["test_openings"][-1]["by"] == "inspect predictions (best)"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"classes": "3,ten"}, "there is no class 'ten'"),
        ({"num": 0}, "--num is 0"),
        ({"split": "valid"}, "--split is 'valid'"),
        ({"only": "best"}, "--only is right or wrong"),
    ],
)
def test_wrong_words_are_refused(run: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        inspect_predictions(run, **wrong)


@pytest.mark.parametrize(("image", "error"), [("431", ConfigError), ("nowhere.png", DataError), ("²", DataError)])
def test_an_image_that_is_not_there(run: Path, image: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="; "):
        inspect_image(run, image)


def test_the_command_prints_one_json_object_or_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str) -> str:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["inspect", "predictions", str(run), *words])
        return capsys.readouterr().out

    assert json.loads(printed("--num", "1", "--json"))["what"] == "predictions"
    assert "predictions-val.csv" in (out := printed("--num", "1")) and "label probability" in out
    assert "image_3-val.png" in printed("--image", "3")
