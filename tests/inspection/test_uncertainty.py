"""`inspect uncertainty`: of a split and of one image, and what is refused."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from firstlight.__main__ import main
from firstlight.engine.finished import evaluate
from firstlight.errors import ConfigError, DataError, FirstlightError
from firstlight.inspection.answers import answers_of
from firstlight.inspection.one_image import one_image
from firstlight.inspection.opened import opened
from firstlight.inspection.uncertainty import SCORES, look_at_image, look_at_split, print_uncertainty, split_answers, uncertainty
from firstlight.tracking.console import Console
from firstlight.tracking.run import load_run

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def found(trained_run: Find) -> dict[str, Any]:
    return uncertainty(trained_run("dropout"), num_passes=8, num=6)


def rows_of(result: dict[str, Any]) -> list[dict[str, str]]:
    (path,) = [path for path in result["files"] if path.endswith(".csv")]
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_a_split_is_kept_as_pictures_a_table_and_figures(found: dict[str, Any], trained_run: Find) -> None:
    """C7, C9: PNG and SVG, a row an image, JSON with the finding."""
    names = [Path(path).name for path in found["files"]]
    assert names == [f"uncertainty-val{end}" for end in (".png", ".svg", "-sheet.png", "-sheet.svg", ".csv", ".json")]
    assert all(Path(path).stat().st_size > 0 for path in found["files"])
    kept = json.loads(Path(found["files"][-1]).read_text())
    assert kept == json.loads(json.dumps(found))
    assert (kept["run"], kept["what"], kept["split"], kept["num_images"]) == (str(trained_run("dropout")), "uncertainty", "val", 144)
    assert len(rows_of(found)) == 144 and len(kept["most_uncertain"]) == 6


def test_the_areas_are_those_of_the_table(found: dict[str, Any]) -> None:
    """The finding follows from the per-image table, by scikit-learn."""
    rows = rows_of(found)
    wrong = [row["label"] != row["predicted"] for row in rows]
    assert 0 < sum(wrong) == found["num_mistakes"] < 144 and found["accuracy"] == pytest.approx(1 - sum(wrong) / 144)
    for score in ("predictive_entropy", "mutual_information", "expected_entropy"):
        values = [float(row[score]) for row in rows]
        assert found["auroc"][score] == pytest.approx(roc_auc_score(wrong, values), abs=1e-3)  # six decimals make ties
        assert found["means"][score]["wrong"] == pytest.approx(np.mean([v for v, bad in zip(values, wrong, strict=True) if bad]), abs=1e-5)
    assert f"{found['num_mistakes']} mistakes with AUROC {found['auroc']['predictive_entropy']:.3f}" in found["says"]
    most = [row["predictive_entropy"] for row in found["most_uncertain"]]
    assert most == sorted(most, reverse=True) and most[0] == pytest.approx(max(float(row["predictive_entropy"]) for row in rows), abs=1e-5)


def test_without_dropout_the_accuracy_is_that_of_an_evaluation(found: dict[str, Any], trained_run: Find) -> None:
    assert found["accuracy_without_dropout"] == evaluate(trained_run("dropout"))["accuracy"]


def test_a_second_look_finds_the_same_bits(found: dict[str, Any], trained_run: Find) -> None:
    """Draws are functions of (seed, pass, batch)."""
    assert uncertainty(trained_run("dropout"), num_passes=8, num=6) == found


def test_one_image_has_votes_and_probabilities_of_its_passes(trained_run: Find) -> None:
    """B9: 100 samples for one image, histogram of predicted classes; passes differ."""
    result = uncertainty(trained_run("dropout"), image="7", num_passes=100)
    assert [Path(path).name for path in result["files"]] == [f"uncertainty-image7-val.{end}" for end in ("png", "svg", "csv", "json")]
    rows = rows_of(result)
    probabilities = np.array([[float(row[f"p_{number}"]) for number in range(10)] for row in rows])
    assert probabilities.shape == (100, 10) and len(np.unique(probabilities[:, 0])) > 10
    np.testing.assert_allclose(list(result["mean_probabilities"].values()), probabilities.mean(0), atol=1e-6)
    assert [result["votes"][str(number)] for number in range(10)] == np.bincount(probabilities.argmax(1), minlength=10).tolist()
    own = probabilities[:, int(result["predicted"])]
    assert result["probability"] == pytest.approx(dict(zip(("min", "p05", "median", "p95", "max"),
                                                           np.quantile(own, [0, 0.05, 0.5, 0.95, 1]), strict=True)), abs=1e-5)  # fmt: skip
    assert result["says"].startswith(f"{result['votes'][result['predicted']]} of 100 passes take val image 7 (true: {result['label']})")


def test_an_image_file_needs_no_label(trained_run: Find, tmp_path: Path) -> None:
    """B9: an image of the user's own."""
    with opened(trained_run("dropout"), "x") as o:
        pixels = o.dataset.pixels(7)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    result = uncertainty(trained_run("dropout"), image=str(tmp_path / "mine.png"), num_passes=20)
    numbered = uncertainty(trained_run("dropout"), image="7", num_passes=20)
    assert result["votes"] == numbered["votes"] and (result["label"], result["split"], result["num_images"]) == (None, "file", 1)
    assert "mine.png" in result["says"] and "uncertainty-mine-file.png" in result["files"][0]


def test_right_answers_alone_leave_nothing_to_tell_apart(trained_run: Find, capsys: pytest.CaptureFixture[str]) -> None:
    """No mistake, no area under the curve: the picture and the sentence say so."""
    with opened(trained_run("dropout"), "easy") as o:
        five = replace(o, dataset=o.dataset.subset(torch.arange(5)))
        answers = split_answers(five, 4, Console(quiet=True)).predicted
        result = look_at_split(replace(five, dataset=replace(five.dataset, labels=answers)), 4, 3, Console(quiet=True))
    assert "all 5 answers are right, so there is nothing to tell apart" in result["says"]
    assert [result["auroc"][score] for score in SCORES[:3]] == [None] * 3
    print_uncertainty(result)
    assert "predictive entropy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plain", "model.dropout=0; train it with model.dropout=0.3"),
        ("scratch", "has the network scratch_mlp, which has no dropout; train one of mlp, small_cnn, alexnet with model.dropout=0.3"),
    ],
)
def test_a_network_without_dropout_is_one_line_with_the_setting_that_gives_it_one(trained_run: Find, name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        uncertainty(trained_run(name))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not list(trained_run(name).glob("inspection/uncertainty*"))


def test_passes_and_places_that_are_none_are_refused(trained_run: Find, tmp_path: Path) -> None:
    run = trained_run("dropout")
    (tmp_path / "note.png").write_text("no image")
    for options, error, says in (
        ({"num_passes": 1}, ConfigError, "--passes is 1"),
        ({"image": "144"}, ConfigError, "images are 0 to 143"),
        ({"image": "seven.png"}, ConfigError, "neither a number nor a file"),
        ({"image": "²"}, ConfigError, "neither a number nor a file"),
        ({"image": str(tmp_path)}, ConfigError, "is a folder; name one image"),
        ({"image": str(tmp_path / "note.png")}, DataError, "note.png"),
        ({"split": "training"}, ConfigError, "allowed: train, val, test"),
    ):
        with pytest.raises(error, match=says):
            uncertainty(run, **options)  # type: ignore[arg-type]


def test_the_test_set_is_opened_once_for_a_look_and_that_is_recorded(trained_run: Find) -> None:
    run = trained_run("dropout")
    before = len(load_run(run).info["test_openings"])
    result = uncertainty(run, split="test", num_passes=2, num=1)
    openings = load_run(run).info["test_openings"]
    assert len(openings) == before + 1 and openings[-1]["by"] == "inspect uncertainty (best)" and result["split"] == "test"


def test_a_network_that_broke_is_one_line(trained_run: Find) -> None:
    """Fault 24: of a split, of one image, and of the answers that predictions, mistakes and confusion rest on."""
    with opened(trained_run("dropout"), "uncertainty") as o:
        next(o.model.parameters()).data.fill_(torch.nan)
        looks: tuple[Callable[[], object], ...] = (
            lambda: look_at_split(o, 2, 1, Console(quiet=True)),
            lambda: look_at_image(*one_image(o, "3"), 2),
            lambda: answers_of(o),
        )
        for look in looks:
            with pytest.raises(FirstlightError, match="answers with numbers that are not finite; train it anew"):
                look()


def test_one_image_keeps_the_run_and_names_its_own_files(trained_run: Find) -> None:
    with opened(trained_run("plain"), "looked") as o:
        one, called = one_image(o, "3")
        assert (one.stem.name, called, len(one.dataset)) == ("looked-image3-val", "val image 3", 1)
        assert torch.equal(one.dataset.images[0], o.dataset.images[3])


def test_the_command_prints_one_json_object(trained_run: Find, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["inspect", "uncertainty", str(trained_run("dropout")), "--image", "0", "--passes", "3", "--json"])
    assert not left.value.code
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and sum(json.loads(out)["votes"].values()) == 3
