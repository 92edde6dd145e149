"""Confusion and calibration of a run against scikit-learn and scipy."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, precision_recall_fscore_support

import firstlight as fl
from firstlight.__main__ import main
from firstlight.errors import DataError
from firstlight.inspection.answers import answers_of
from firstlight.inspection.confusion import inspect_confusion, print_confusion
from firstlight.inspection.opened import opened

CLASSES = list(range(10))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network on the digits, wrong on some."""
    words = ["model={name: mlp, hidden: [16]}", "train.epochs=6", "train.test_at_end=false", "split.val_fraction=0.3"]
    return fl.train("quickstart", *words, name="digits", runs_dir=tmp_path_factory.mktemp("inspected")).path


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    """What the command prints of the validation images as one JSON object."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit, match=r"^0$"):
        main(["inspect", "confusion", str(run), "--json"])
    return dict(json.loads(out.getvalue()))


def answers(run: Path, split: str = "val") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels and logits of a split."""
    with opened(run, "test", split=split) as o:
        found = answers_of(o)
    return found.labels, found.logits.astype(np.float64)


def calibration_error(confidence: np.ndarray[Any, Any], correct: np.ndarray[Any, Any]) -> float:
    """ECE by scikit-learn's bins."""
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15)
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    return float(np.abs(accuracy - mean) @ counts[counts > 0] / counts.sum())


def scores(labels: np.ndarray[Any, Any], logits: np.ndarray[Any, Any], temperature: float = 1.0) -> dict[str, float]:
    probabilities = softmax(logits / temperature, axis=1)
    return {
        "ece": calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels),
        "nll": log_loss(labels, probabilities, labels=CLASSES),
        "brier": brier_score_loss(labels, probabilities, labels=CLASSES, scale_by_half=False),
    }


def test_matrix_and_scores_are_those_of_scikit_learn(run: Path, found: dict[str, Any]) -> None:
    """B8, C9, F5: counts exactly, scores to 1e-6, in the JSON and in the tables."""
    labels, logits = answers(run)
    predicted = logits.argmax(axis=1)
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(labels, predicted, labels=CLASSES))
    expected = precision_recall_fscore_support(labels, predicted, labels=CLASSES, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        np.testing.assert_allclose([row[key] for row in found["classes"]], values, atol=1e-6)
    with (run / "inspection" / "confusion-val-classes.csv").open(newline="") as handle:
        np.testing.assert_allclose([float(row["f1"]) for row in csv.DictReader(handle)], expected[2], atol=1e-6)
    with (run / "inspection" / "confusion-val-matrix.csv").open(newline="") as handle:
        assert [row[1:] for row in csv.reader(handle)][1:] == [[str(n) for n in row] for row in found["confusion"]]


def test_calibration_is_that_of_scikit_learn(run: Path, found: dict[str, Any]) -> None:
    """C9: ECE in 15 equal bins, Brier score and loss of all images of the split to 1e-6."""
    reliable = found["calibration"]
    for key, value in scores(*answers(run)).items():
        assert reliable[key] == pytest.approx(value, abs=1e-6), key
    assert sum(row["images"] for row in reliable["bins"]) == 431


def test_the_temperature_of_a_seeded_half_is_measured_on_the_other(run: Path, found: dict[str, Any]) -> None:
    """C9, Guo et al. 2017: no image is fitted on and measured."""
    reliable = found["calibration"]
    labels, logits = answers(run)
    order = np.random.default_rng(0).permutation(431)
    half, other = order[:215], order[215:]
    best = minimize_scalar(
        lambda t: log_loss(labels[half], softmax(logits[half] / t, axis=1), labels=CLASSES), bounds=(0.05, 20), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    assert reliable["temperature"] == pytest.approx(best.x, abs=1e-5)
    assert reliable["before"] == pytest.approx(scores(labels[other], logits[other]), abs=1e-6)
    assert reliable["after"] == pytest.approx(scores(labels[other], logits[other], reliable["temperature"]), abs=1e-6)
    assert abs(reliable["temperature"] - 1) > 0.05
    assert reliable["temperature_says"] == "fitted on 215 val images drawn by seed 0, measured on the other 216"


def test_on_the_test_set_the_temperature_comes_from_validation(run: Path) -> None:
    reliable = inspect_confusion(run, split="test")["calibration"]
    labels, logits = answers(run)
    at = {t: log_loss(labels, softmax(logits / t, axis=1), labels=CLASSES) for t in (0.99, 1.0, 1.01)}
    temperature = reliable["temperature"]
    assert at[1.0] > log_loss(labels, softmax(logits / temperature, axis=1), labels=CLASSES)
    assert reliable["after"] == pytest.approx(scores(*answers(run, "test"), temperature), abs=1e-6)
    assert reliable["before"]["ece"] == pytest.approx(reliable["ece"])
    assert reliable["temperature_says"] == "fitted on the 431 val images, measured on the 359 test images"


def test_risk_and_coverage(run: Path, found: dict[str, Any]) -> None:
    """Geifman and El-Yaniv 2017: the answers that may be given at a risk, counted one by one."""
    selective = found["selective"]
    labels, logits = answers(run)
    probabilities = softmax(logits, axis=1)
    order = np.argsort(-probabilities.max(axis=1))
    wrong = probabilities.argmax(axis=1)[order] != labels[order]
    risks = [wrong[:num].mean() for num in range(1, 432)]
    assert selective["aurc"] == pytest.approx(np.mean(risks), abs=1e-6)
    assert selective["coverage_at_risk"]["0.01"] == pytest.approx(max(num for num in range(1, 432) if risks[num - 1] <= 0.01) / 431)
    assert selective["curve"][-1] == pytest.approx({"coverage": 1.0, "risk": wrong.mean()})


def test_pictures_and_figures_are_kept_where_a_report_finds_them(run: Path, found: dict[str, Any]) -> None:
    kept = json.loads((run / "inspection" / "confusion-val.json").read_text())
    assert kept == found and found["says"].startswith("digits: ") and "calibration error" in found["says"]
    names = {Path(file).name for file in found["files"]}
    pictures = {f"confusion-val{part}.{kind}" for part in ("", "-classes", "-reliability", "-coverage") for kind in ("png", "svg")}
    assert names == pictures | {"confusion-val-classes.csv", "confusion-val-matrix.csv", "confusion-val.json"}


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on red, blue and green images: one green image, which trains; red and black look alike, so black is never said."""
    folder = tmp_path_factory.mktemp("photos")
    for name, color, num in (("blue", (0, 0, 250), 20), ("green", (0, 250, 0), 1), ("red", (250, 0, 0), 40), ("scarlet", (250, 0, 0), 8)):
        (folder / "data" / name).mkdir(parents=True)
        for index in range(num):
            Image.new("RGB", (8, 8), tuple(max(value - index, 0) for value in color)).save(folder / "data" / name / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTLIGHT_CACHE", str(folder / "cache"))
        words = [f"data.path={folder / 'data'}", "model=linear", "train.epochs=3", "train.test_at_end=false"]
        fl.train("quickstart", "data=folder", *words, "split.val_fraction=0.3", name="photos", runs_dir=folder)
        fl.train("quickstart", "data=folder", *words, "split.val_fraction=0", name="no-val", runs_dir=folder)
        yield folder / "photos"


def test_classes_without_images_and_classes_that_nobody_said(lopsided: Path) -> None:
    """Fault 33: all is defined, 0 where nothing can be counted, and said."""
    found = inspect_confusion(lopsided)
    assert found["remarks"] == [
        "no images of class green: recall counts as 0",
        "nothing was taken for class scarlet: precision counts as 0",
    ]
    rows = {row["class"]: row for row in found["classes"]}
    assert rows["green"]["images"] == 0 and rows["green"]["recall"] == rows["scarlet"]["precision"] == rows["scarlet"]["f1"] == 0
    assert found["pairs"][0]["label"] == "scarlet" and "NaN" not in (lopsided / "inspection" / "confusion-val.json").read_text()


def test_a_run_without_validation(lopsided: Path) -> None:
    """Issue 6, bad input: one line for the split that is not there; of another split all but the temperature is known."""
    run = lopsided.with_name("no-val")
    with pytest.raises(DataError, match="trained without validation"):
        inspect_confusion(run)
    found = inspect_confusion(run, split="train")
    assert found["calibration"]["temperature"] is None and found["num_images"] > 50
    assert found["calibration"]["temperature_says"] == "no validation images to fit one on"


def test_a_network_that_is_always_right_needs_no_temperature(tmp_path: Path) -> None:
    words = ["train.epochs=8", "train.test_at_end=false", "split.val_fraction=0.02"]
    run = fl.train("quickstart", *words, name="right", runs_dir=tmp_path).path
    found = inspect_confusion(run)
    assert found["accuracy"] == 1 and found["pairs"] == [] and found["calibration"]["temperature"] is None
    assert found["calibration"]["temperature_says"] == "all 14 images to fit one on are right, so none is too low"
    assert found["selective"]["says"] == "all images answered, none of them wrong" and found["selective"]["aurc"] == 0


def test_the_printed_figures(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_confusion(found)
    out = capsys.readouterr().out
    assert found["says"] in out and "most often confused" in out and f"temperature {found['calibration']['temperature']:.4g}" in out
