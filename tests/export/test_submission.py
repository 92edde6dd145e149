"""From the shipped experiment to a checked submission: what is written, what is refused before, what a score says."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from firstlight.export import submission
from firstlight.export.form import Form
from firstlight.export.submission import score_interval, validation_of
from firstlight.metrics.evaluation import wilson_interval

Command = Callable[..., Any]
Refused = Callable[..., str]


def rows_of(path: str | Path) -> list[list[str]]:
    with Path(path).open(newline="") as handle:
        return list(csv.reader(handle))


def rewritten(change: Callable[[list[str]], list[str]]) -> None:
    """Write other.csv: the lines of sample.csv, changed."""
    Path("other.csv").write_text("\n".join(change(Path("sample.csv").read_text().splitlines())) + "\n")


# What is written


def test_from_the_shipped_experiment_to_a_checked_submission(firstlight: Command, place: Path, trained: Any) -> None:
    """D21, E8: train, predict, submit, check; the labels are those of `predict`, and as good as validation says."""
    result = firstlight("submit", "kd", "--sample", "sample.csv", "--json").json
    assert (result["run"], result["files"], result["num_images"]) == ("runs/kd", ["submission.csv"], 500)
    header, *rows = rows_of("submission.csv")
    assert header == ["ImageId", "Label"]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 501)]
    assert [row[1] for row in rows] == [row["label"] for row in fl.predict("kd", runs_dir="runs")]
    score = mean(float(int(label) == answer) for (_, label), answer in zip(rows, trained.answers, strict=True))
    assert score > 0.9
    low, high = result["score_interval"]
    assert low <= score <= high
    assert sum(result["class_counts"].values()) == 500
    checked = firstlight("submit", "--check", "submission.csv", "--sample", "sample.csv", "--json").json
    assert {key: checked[key] for key in ("num_images", "first_id", "last_id")} == {"num_images": 500, "first_id": "1", "last_id": "500"}
    assert {word: num for word, num in result["class_counts"].items() if num} == checked["class_counts"]
    judged = firstlight("submit", "kd", "--score", str(score), "--json").json
    assert judged["plausible"] and judged["num_scored"] == 500


def test_the_validation_score_has_wilsons_interval(firstlight: Command, place: Path) -> None:
    """D21."""
    run = fl.load_run("runs/kd")
    result = firstlight("submit", "kd", "--json").json
    assert result["val_accuracy"] == run.summary["val_accuracy"] == fl.evaluate("runs/kd")["accuracy"]
    assert result["num_val"] == 130
    assert (
        result["val_interval"] == list(wilson_interval(round(result["val_accuracy"] * 130), 130)) == fl.evaluate("kd")["accuracy_interval"]
    )
    assert validation_of(run)["num_val"] == 130
    said = firstlight("submit", "kd").out
    assert f"validation: accuracy {result['val_accuracy']:.4f} of 130 images (95 % interval" in said
    assert json.loads(Path("runs/kd/submission.json").read_text())["sha256"] == result["sha256"]


def test_without_a_sample_the_columns_are_those_of_the_competition(firstlight: Command, place: Path) -> None:
    """D21: id base, columns."""
    assert firstlight("submit", "kd", "--out", "deep/a.csv").code == 0
    assert Path("deep/a.csv").read_text().startswith("ImageId,Label\n1,")
    words = ["--id-base", "0", "--id-column", "Id", "--label-column", "Category", "--labels", "name"]
    assert firstlight("submit", "kd", *words, "--out", "b.csv").code == 0
    assert Path("b.csv").read_text().startswith("Id,Category\n0,")
    assert [row[1] for row in rows_of("b.csv")[1:]] == [row[1] for row in rows_of("deep/a.csv")[1:]]


def test_ids_in_another_order_are_kept_once_it_is_said_what_they_mean(firstlight: Command, place: Path) -> None:
    """Fault 40: by number, or by row."""
    rewritten(lambda lines: [lines[0], *reversed(lines[1:])])
    assert firstlight("submit", "kd", "--sample", "sample.csv", "--out", "a.csv").code == 0
    assert firstlight("submit", "kd", "--sample", "other.csv", "--out", "b.csv", "--id-base", "1").code == 0
    assert firstlight("submit", "kd", "--sample", "other.csv", "--out", "c.csv", "--in-order").code == 0
    a, b, c = (rows_of(name)[1:] for name in ("a.csv", "b.csv", "c.csv"))
    assert b == a[::-1]
    assert [row[0] for row in c] == [row[0] for row in b] and [row[1] for row in c] == [row[1] for row in a]


def test_ids_that_are_names_of_images(firstlight: Command, place: Path) -> None:
    """D21: a folder of test images; ids are file names, or stems, in the order of the sample."""
    generator = np.random.default_rng(0)
    Path("images").mkdir()
    for name in ("b", "a", "c"):
        Image.fromarray(generator.integers(0, 256, (28, 28), dtype=np.uint8)).save(f"images/{name}.png")
    labels = {Path(row["image"]).stem: row["label"] for row in fl.predict("kd", ["images"], runs_dir="runs")}
    for suffix in ("", ".png"):
        Path("names.csv").write_text("Id,Category\n" + "".join(f"{name}{suffix},0\n" for name in "cab"))
        assert firstlight("submit", "kd", "images", "--sample", "names.csv").code == 0
        assert rows_of("submission.csv")[1:] == [[f"{name}{suffix}", labels[name]] for name in "cab"]


def test_labels_are_written_as_the_sample_writes_them() -> None:
    def words(*labels: str, asked: str | None = None) -> list[str]:
        form = Form("Id", "Category", tuple(map(str, range(len(labels)))), labels, "sample", tuple(range(2, len(labels) + 2)))
        return submission._label_words(form, ("ant", "bee"), submission.Wanted(labels=asked))

    assert words("0", "1") == words("", "") == words("-1", "0") == words("x", asked="index") == ["0", "1"]
    assert words("ant", "bee") == words("bee", "") == words("0", asked="name") == ["ant", "bee"]
    with pytest.raises(fl.FirstlightError, match=r"line 3: label 'wasp' is no index 0\.\.1, and not all .* \(ant, bee, \.\.\.\); say"):
        words("0", "wasp")


# What is refused, with nothing written


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:-1], "has 499 ids for 500 images of Kaggle digits (500 unlabelled test images): 1 too few"),
        (lambda lines: [*lines, "501,0"], "has 501 ids for 500 images"),
        (lambda lines: [*lines, "500,0"], "line 502: id '500' stands in line 501 too"),
        (lambda lines: [lines[0], *lines[2:], "502,0"], "line 501: id 502 follows 500, so ids are left out"),
        (
            lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
            "line 3: id 1 follows 2, so it is not sure which image an id names; add",
        ),
        (lambda lines: [*lines[:9], "x,0", *lines[10:]], "line 10: id 'x' is neither a number nor the name of a test image"),
        (lambda lines: [*lines[:9], "9,cat", *lines[10:]], "line 10: label 'cat' is no index 0..9"),
        (lambda lines: lines[1:], "is no header"),
        (lambda lines: [line.replace(",", ";") for line in lines], "semicolons"),
    ],
    ids=["fewer", "more", "twice", "a gap", "another order", "a text", "a class that is none", "no header", "semicolons"],
)
def test_a_sample_that_does_not_fit_is_refused(refused: Refused, place: Path, change: Callable[[list[str]], list[str]], says: str) -> None:
    """Fault 40: count, order, uniqueness, range; fault 39: the header."""
    rewritten(change)
    refused(3, "submit", "kd", "--sample", "other.csv", says=("other.csv", says))


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, "submit", "submit needs a run"),
        (2, "submit nothing", "no run at nothing"),
        (3, "submit kd --sample nowhere.csv", "cannot read nowhere.csv"),
        (2, "submit kd --sample sample.csv --id-column Id", "--id-column is Id, but sample.csv calls the column 'ImageId'"),
        (3, "submit kd --sample sample.csv --id-base 0", "line 501: id 500, but 500 images counted from 0 have the ids 0 to 499"),
        (2, "submit kd --id-base -1", "--id-base is -1"),
        (2, "submit kd --in-order", "--in-order speaks of a sample"),
        (2, "submit kd --encoding latin-1", "--encoding speaks of a sample"),
        (2, "submit kd --id-column Label", "both columns would be called Label"),
        (2, "submit kd --id-base 1 --in-order --sample sample.csv", "leave one out"),
        (2, "submit kd --sample sample.csv --out sample.csv", "is the sample itself"),
        (2, "submit kd --out runs", "--out runs is a folder"),
        (2, "submit kd --score 93", "--score is 93; give the share of right images, 0 to 1, such as 0.93 for 93 %"),
        (2, "submit kd --score 0.9", "has handed in nothing yet"),
        (2, "submit kd --score 0.9 --scored 0", "--scored is 0"),
        (2, "submit kd --scored 100", "add --score"),
        (2, "submit --check sample.csv", "needs --sample FILE"),
        (2, "submit kd --check sample.csv --sample sample.csv", "neither a run nor --score"),
        (3, "submit kd sample.csv", "line 1 must be the header pixel0,pixel1,...,pixel783"),
    ],
)
def test_refused_in_one_line(refused: Refused, code: int, words: str, says: str) -> None:
    refused(code, *words.split(), says=(says,))


def test_a_failure_leaves_the_old_file(firstlight: Command, place: Path) -> None:
    """Fault 40: atomic."""
    Path("submission.csv").write_text("old")
    rewritten(lambda lines: lines[:-1])
    assert firstlight("submit", "kd", "--sample", "other.csv").code == 3
    assert Path("submission.csv").read_text() == "old"


# A file that stands


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: ["Id,Label", *lines[1:]], "the header is 'Id,Label', but that of sample.csv is 'ImageId,Label'"),
        (lambda lines: lines[:-1], "has 499 ids for 500 images of the sample sample.csv: 1 too few"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2: id '2', which comes elsewhere in the sample; expected '1'"),
        (lambda lines: [*lines[:-1], "501,0"], "line 501: id '501', which the sample does not have; expected '500'"),
        (lambda lines: [*lines[:-1], "500,"], "line 501: label '' is no class"),
        (lambda lines: [*lines[:-1], "500,nan"], "line 501: label 'nan' is no class"),
        (lambda lines: [*lines[:-1], "500,3.0"], "line 501: label '3.0', but the labels of the sample are whole numbers"),
        (lambda lines: [*lines[:-1], "499,0"], "line 501: id '499' stands in line 500 too"),
    ],
)
def test_a_submission_that_does_not_fit_its_sample(
    refused: Refused, place: Path, change: Callable[[list[str]], list[str]], says: str
) -> None:
    """Fault 40: count, order, duplicate, NaN, class."""
    rewritten(change)
    refused(3, "submit", "--check", "other.csv", "--sample", "sample.csv", says=("other.csv", says))


def test_the_sample_handed_in_unchanged_is_warned_of(firstlight: Command, place: Path) -> None:
    out = firstlight("submit", "--check", "sample.csv", "--sample", "sample.csv").out
    assert "warning: all 500 rows have the label 0" in out and "warning: its labels are those of sample.csv" in out


# What validation says of the score


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("num_val", "num_scored"), [(4200, 2800), (500, 500), (10_000, 200)])
def test_the_interval_of_a_score_holds_19_of_20(accuracy: float, num_val: int, num_scored: int) -> None:
    """D21: against draws from two binomials of one accuracy."""
    draws = np.random.default_rng(0).binomial([num_val, num_scored], accuracy, (2000, 2)) / [num_val, num_scored]
    intervals = {val: score_interval(val, num_val, num_scored) for val in set(draws[:, 0])}
    held = sum(intervals[val][0] <= score <= intervals[val][1] for val, score in draws)
    assert 0.935 < held / 2000 < 0.985


@pytest.mark.parametrize(("right", "num_val", "num_scored"), [(950, 1000, 300), (130, 130, 500), (0, 7, 3), (4150, 4200, 28_000)])
def test_the_interval_of_a_score_is_scipys(right: int, num_val: int, num_scored: int) -> None:
    """D21: against scipy's beta-binomial."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.betabinom(num_scored, right + 0.5, num_val - right + 0.5).ppf([0.025, 0.975]) / num_scored
    assert score_interval(right / num_val, num_val, num_scored) == pytest.approx(tuple(expected), abs=1e-9)


def test_the_interval_of_a_score_is_wider_than_validations_and_meets_it_at_many_images() -> None:
    low, high = wilson_interval(950, 1000)
    narrow, wide = score_interval(0.95, 1000, 1_000_000), score_interval(0.95, 1000, 1000)
    assert narrow == pytest.approx((low, high), abs=2e-3)
    assert wide[0] < low < high < wide[1]


@pytest.mark.parametrize(
    ("score", "says"),
    [("0.09", "near chance (0.1000)"), ("0.7", "lower than validation explains"), (None, "is plausible")],
)
def test_a_score_is_judged_in_words(firstlight: Command, place: Path, score: str | None, says: str) -> None:
    """D21: outside, it says what that suggests."""
    score = score or str(fl.load_run("runs/kd").summary["val_accuracy"])
    outcome = firstlight("submit", "kd", "--score", score, "--scored", "500")
    assert outcome.code == 0 and says in outcome.out, outcome


def test_a_score_above_all_that_validation_explains(firstlight: Command, place: Path) -> None:
    path = Path("runs/kd/run.json")
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"summary": info["summary"] | {"val_accuracy": 0.6}}))
    assert "is higher than validation explains" in firstlight("submit", "kd", "--score", "0.9", "--scored", "500").out
    del info["summary"]["val_accuracy"]
    path.write_text(json.dumps(info))
    assert firstlight("submit", "kd", "--score", "0.9", "--scored", "500").code == 3
    assert "validation: none" in firstlight("submit", "kd").out
