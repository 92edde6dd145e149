"""Mistakes of a run: which, in which order, with which training images beside them."""

import csv
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

import firstlight as fl
from firstlight.__main__ import main
from firstlight.errors import ConfigError
from firstlight.inspection.answers import answers_of
from firstlight.inspection.mistakes import _with_neighbours, inspect_mistakes, print_mistakes
from firstlight.inspection.opened import opened
from firstlight.inspection.penultimate import features_of
from firstlight.inspection.predictions import inspect_predictions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network on the digits, wrong on some."""
    words = ["model={name: mlp, hidden: [16]}", "train.epochs=6", "train.test_at_end=false", "split.val_fraction=0.3"]
    return fl.train("quickstart", *words, name="digits", runs_dir=tmp_path_factory.mktemp("inspected")).path


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    """What the command prints as one JSON object, beside the tables of mistakes (`table`) and predictions (`all`)."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit, match=r"^0$"):
        main(["inspect", "mistakes", str(run), "--json"])
    figures = dict(json.loads(out.getvalue()))
    assert figures == json.loads((run / "inspection" / "mistakes-val.json").read_text())
    inspect_predictions(run, num=1)
    return figures | {"table": rows_of(run / "inspection" / "mistakes-val.csv"), "all": rows_of(run / "inspection" / "predictions-val.csv")}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def features(run: Path, split: str) -> np.ndarray[Any, Any]:
    with opened(run, "test", split=split) as o:
        return features_of(o.model, o.loader(), o.arithmetic).double().numpy()


def test_the_table_has_every_mistake_worst_first(found: dict[str, Any]) -> None:
    """C9: with the figures of the table of predictions."""
    rows, wrong = found["table"], [row for row in found["all"] if row["right"] == "no"]
    assert len(rows) == len(wrong) == found["num_mistakes"] > 25
    expected = sorted(wrong, key=lambda row: -float(row["loss"]))
    assert [row["index"] for row in rows] == [row["index"] for row in expected]
    assert [row["label_probability"] for row in rows] == [row["label_probability"] for row in expected]


def test_the_worst_are_drawn_by_confusion_the_most_frequent_first(found: dict[str, Any]) -> None:
    """C9: grouped by confusion pair."""
    rows = found["table"]
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row["label"], row["predicted"]] = counts.get((row["label"], row["predicted"]), 0) + 1
    assert {(row["label"], row["predicted"]): row["images"] for row in found["pairs"]} == counts
    assert [row["images"] for row in found["pairs"]] == sorted(counts.values(), reverse=True)
    drawn = found["mistakes"]
    assert {row["index"] for row in drawn} == {int(row["index"]) for row in rows[:20]}
    order = [(row["label"], row["predicted"]) for row in found["pairs"]]
    places = [order.index((row["label"], row["predicted"])) for row in drawn]
    assert places == sorted(places)
    assert all(a["loss"] >= b["loss"] for a, b, i, j in zip(drawn, drawn[1:], places, places[1:], strict=False) if i == j)


def test_the_shares_are_those_of_the_true_class(found: dict[str, Any]) -> None:
    labels = [row["label"] for row in found["all"]]
    assert all(row["share"] == pytest.approx(row["images"] / labels.count(row["label"])) for row in found["pairs"])


@pytest.mark.parametrize("split", ["val", "train"])
def test_each_mistake_has_its_nearest_training_images(run: Path, split: str) -> None:
    """C9: by the cosine in the penultimate layer, as scikit-learn finds them; a training image is not its own neighbour."""
    found = inspect_mistakes(run, split=split, num=6)
    training, own = features(run, "train"), features(run, split)
    search = NearestNeighbors(n_neighbors=6, metric="cosine").fit(training)
    for row in found["mistakes"]:
        distances, places = search.kneighbors(own[row["index"]][None])
        kept = [(place, 1 - d) for place, d in zip(places[0], distances[0], strict=True) if split == "val" or place != row["index"]][:5]
        np.testing.assert_allclose([other["similarity"] for other in row["neighbours"]], [s for _, s in kept], atol=1e-6)
        assert all(other["index"] != row["index"] for other in row["neighbours"]) or split == "val"
    with opened(run, "test", split="train") as o:
        assert o.dataset.labels is not None
        labels = o.dataset.labels.tolist()
    assert all(other["label"] == str(labels[other["index"]]) for row in found["mistakes"] for other in row["neighbours"])


def test_one_confusion_alone(run: Path, found: dict[str, Any]) -> None:
    pair = found["pairs"][1]
    found = inspect_mistakes(run, pair=f"{pair['label']},{pair['predicted']}", num=8, saliency="gradient")
    assert len(found["mistakes"]) == min(pair["images"], 8) > 1
    assert {(row["label"], row["predicted"]) for row in found["mistakes"]} == {(pair["label"], pair["predicted"])}
    assert f"{pair['label']} taken for {pair['predicted']}: {pair['images']}" in found["says"]


def test_a_confusion_that_does_not_occur_is_a_picture_that_says_so(run: Path, found: dict[str, Any]) -> None:
    pairs = {(row["label"], row["predicted"]) for row in found["pairs"]}
    label, guess = next((a, b) for a in "0123456789" for b in "0123456789" if a != b and (a, b) not in pairs)
    found = inspect_mistakes(run, pair=f"{label},{guess}")
    assert found["mistakes"] == [] and found["says"].split("; ")[1] == f"{label} taken for {guess}: 0"
    assert f"no mistake of the kind {label},{guess}" in (run / "inspection" / "mistakes-val.svg").read_text()


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on red and blue images, with one blue image among the red ones of validation (a test folder, so that none trains on it)."""
    folder = tmp_path_factory.mktemp("photos")
    for part, num in (("train", 24), ("test", 12)):
        for name, color in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
            (folder / "data" / part / name).mkdir(parents=True)
            for index in range(num):
                shown = (0, 0, 203) if (part, name, index) == ("test", "red", 7) else tuple(v + 2 * index if v else 0 for v in color)
                Image.new("RGB", (8, 8), shown).save(folder / "data" / part / name / f"{index:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTLIGHT_CACHE", str(folder / "cache"))
        words = [f"data.path={folder / 'data'}", "model={name: mlp, hidden: [8]}", "train.epochs=10", "train.test_at_end=false"]
        fl.train("quickstart", "data=folder", *words, name="photos", runs_dir=folder)
        yield folder / "photos"


def test_a_wrong_label_is_doubted(mislabelled: Path) -> None:
    """C9: all nearest training images are of the predicted class, and the network is sure."""
    found = inspect_mistakes(mislabelled, split="test")
    (row,) = found["mistakes"]
    assert (row["label"], row["predicted"]) == ("red", "blue")
    assert [other["label"] for other in row["neighbours"]] == ["blue"] * 5
    table = rows_of(mislabelled / "inspection" / "mistakes-test.csv")
    doubted = row["probability"] >= np.median([float(r["probability"]) for r in _right(mislabelled)])
    assert row["possible_label_error"] is bool(doubted) and table[0]["possible_label_error"] == ("yes" if doubted else "no")
    assert doubted and found["possible_label_errors"] == [row["index"]] and found["says"].endswith("; 1 label worth checking")


def test_labels_that_were_changed_are_among_the_doubted(tmp_path: Path) -> None:
    """C9: of 5 % changed labels at least three in ten are doubted, and of those that are doubted at least four in five are changed."""
    run = fl.train("quickstart", "train.epochs=5", "train.test_at_end=false", "split.val_fraction=0.3", name="cnn", runs_dir=tmp_path).path
    rng = np.random.default_rng(0)
    with opened(run, "mistakes") as o:
        assert o.dataset.labels is not None
        changed = rng.random(len(o.dataset)) < 0.05
        other = torch.from_numpy((o.dataset.labels.numpy() + rng.integers(1, 10, len(changed))) % 10)
        labels = torch.where(torch.from_numpy(changed), other, o.dataset.labels)
        planted = replace(o, dataset=replace(o.dataset, labels=labels))
        answers = answers_of(planted)
        rows = _with_neighbours(planted, answers, np.flatnonzero(~answers.correct).tolist(), planted.training_images())
    doubted = [row["index"] for row in rows if row["possible_label_error"]]
    assert changed.sum() > 15 and changed[doubted].mean() >= 0.8 and changed[doubted].sum() >= 0.3 * changed.sum()


def _right(run: Path) -> list[dict[str, str]]:
    inspect_predictions(run, split="test", num=1)
    return [row for row in rows_of(run / "inspection" / "predictions-test.csv") if row["right"] == "yes"]


def test_a_network_without_mistakes(mislabelled: Path) -> None:
    """Issue 6, bad input: nothing to show is said, in words and picture."""
    found = inspect_mistakes(mislabelled, split="train")
    assert found["says"].startswith("photos: all ") and found["mistakes"] == [] and found["pairs"] == []
    assert len(rows_of(mislabelled / "inspection" / "mistakes-train.csv")) == 0
    assert "no train image is wrong" in (mislabelled / "inspection" / "mistakes-train.svg").read_text()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"num": 0}, "--num is 0"),
        ({"num": 201}, r"allowed are 1\.\.200"),
        ({"pair": "4"}, "name two classes"),
        ({"pair": "4,x"}, "no class 'x'"),
    ],
)
def test_wrong_words_are_refused(run: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        inspect_mistakes(run, **wrong)


def test_a_network_on_raw_tensors(tmp_path: Path) -> None:
    words = ["model={name: scratch_mlp, hidden: [16]}", "train.epochs=1", "train.test_at_end=false"]
    run = fl.train("quickstart", *words, name="raw", runs_dir=tmp_path).path
    found = inspect_mistakes(run, num=3)
    assert len(found["mistakes"]) == 3 and all(len(row["neighbours"]) == 5 for row in found["mistakes"])


def test_the_printed_figures(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_mistakes(found)
    assert "nearest" in (out := capsys.readouterr().out) and found["says"] in out
