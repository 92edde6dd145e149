"""The files that a study leaves, made by real studies of a second and read back."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firstlight import files
from firstlight.errors import ConfigError, RunNotFoundError
from firstlight.studies.page import study_page
from firstlight.studies.report import Questions, report, revisit, to_csv
from firstlight.studies.store import Store
from tests.studies.conftest import Sweep

COMMAND = [sys.executable, "-m", "firstlight", "study"]


def is_drawn(path: str | Path) -> bool:
    """A picture of its own: large, and of more than a few colours."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return min(pixels.shape[:2]) > 250 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def names(result: dict[str, list[str]]) -> list[str]:
    return [Path(path).name for path in result["files"]]


def test_one_parameter_with_seeds(sweep: Sweep) -> None:
    """C4, E7, F2: hparams.csv and .html, points.csv with intervals and comparisons, curves, the response."""
    study, store = sweep("seeds=2", grid=["optim.lr=log:1e-3:1:4"])
    found = report(study, store)
    assert names(found) == ["hparams.csv", "hparams.html", "points.csv", "curves.png", "response.png"]
    assert all(is_drawn(path) for path in found["files"] if path.endswith(".png"))
    with (store.path / "points.csv").open() as handle:
        points = list(csv.DictReader(handle))
    assert len(points) == 4
    assert points[0]["says"] == "compared with this point"
    assert all(float(point["low"]) <= float(point["mean"]) <= float(point["high"]) for point in points)
    means = [float(point["mean"]) for point in points]
    assert means == sorted(means, reverse=True)
    saved = json.loads((store.path / "answer.json").read_text())
    assert saved["findings"] == found["findings"]
    assert saved["best"]["point"] == found["best"]["point"]


def test_three_parameters_drawn_at_random(sweep: Sweep) -> None:
    """E7, B19: coverage, parallel coordinates and importance of draws."""
    grid = ["optim.lr=log:1e-3:1", "optim.momentum=lin:0:0.9", "model.activation=relu,tanh"]
    study, store = sweep("sampler=random", "budget.trials=10", "train.epochs=1", grid=grid)
    found = report(study, store)
    assert names(found) == ["hparams.csv", "hparams.html", "curves.png", "coverage.png", "parallel.png", "importance.png"]
    assert all(is_drawn(path) for path in found["files"] if path.endswith(".png"))
    assert sorted(found["importance"]["names"]) == ["model.activation", "optim.lr", "optim.momentum"]
    assert found["warnings"] == [line for line in found["warnings"] if "not made" not in line]


def test_a_study_says_how_its_intervals_are_made(sweep: Sweep) -> None:
    """`interval: bootstrap` in the study, unless another one is asked for."""
    study, store = sweep("seeds=3", "interval=bootstrap", "train.epochs=1", grid=["optim.lr=0.01,0.1"])
    said = report(study, store)
    assert revisit(str(store.path))["points"] == said["points"]
    assert revisit(str(store.path), Questions(interval="bootstrap"))["points"] == said["points"]
    by_t = revisit(str(store.path), Questions(interval="t"))["points"]
    assert by_t[0]["mean"] == said["points"][0]["mean"]
    assert (by_t[0]["low"], by_t[0]["high"]) != (said["points"][0]["low"], said["points"][0]["high"])


def test_a_study_is_read_again_from_its_folder_alone(sweep: Sweep, experiment: Path) -> None:
    """The experiment file is gone, nothing is trained, and the answer is the same."""
    study, store = sweep("seeds=2", grid=["optim.lr=0.01,0.1", "model.dropout=0,0.5"])
    first = report(study, store)
    experiment.unlink()
    for path in first["files"]:
        Path(path).unlink()
    again = revisit(store.path.name, runs_dir=store.path.parent)
    assert again == first
    assert {"map.png", "parallel.png", "importance.png"} <= set(names(again))
    assert all(Path(path).is_file() for path in again["files"])


def test_the_command_answers_more_questions(sweep: Sweep) -> None:
    """`firstlight study` compares any two settings, and draws the coverage of two studies side by side (E7)."""
    _, store = sweep("seeds=2", grid=["optim.lr=0.01,0.1", "optim.momentum=0,0.9"], name="grid")
    sweep("sampler=random", "budget.trials=4", grid=["optim.lr=log:0.01:0.1", "optim.momentum=lin:0:0.9"], name="draws")
    words = ["grid", "--runs-dir", str(store.path.parent), "--json", "--beside", "draws", "--against", "optim.lr=0.1 optim.momentum=0"]
    compare = ["--compare", "optim.lr=0.01", "optim.lr=0.1", "--compare", "optim.momentum=0", "optim.momentum=0.9"]
    done = subprocess.run([*COMMAND, *words, *compare], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert [comparison["pairs"] for comparison in found["compared"]] == [4, 4]
    assert [point["says"] for point in found["points"]].count("compared with this point") == 1
    with Image.open(store.path / "coverage.png") as image:
        assert image.width > 1.5 * image.height - 200
    shown = subprocess.run([*COMMAND, *words[:3]], capture_output=True, text=True, check=True).stdout
    assert "optim.lr   optim.momentum     mean" in shown
    assert "val acc   val loss   optim.lr   optim.momentum" in shown


def test_what_is_no_study_is_one_line(sweep: Sweep, tmp_path: Path) -> None:
    _, store = sweep(grid=["optim.lr=0.01,0.1"])
    with pytest.raises(RunNotFoundError, match="no study at nowhere; `firstlight sweep STUDY` makes one"):
        revisit("nowhere", runs_dir=tmp_path)
    with pytest.raises(RunNotFoundError, match="it is a run: `firstlight runs` shows it"):
        revisit(str(store.path / "0000-s0"))
    with pytest.raises(ConfigError, match=r"no point of the study has optim\.lr=3; tried were 0\.\d+, 0\.\d+"):
        revisit(str(store.path), Questions(against="optim.lr=3"))
    (store.path / "study.json").write_text('{"name": "x"}')
    with pytest.raises(RunNotFoundError, match=r"study\.json is damaged \('space'\); take it from a copy"):
        revisit(str(store.path))


def test_a_full_disk_costs_a_picture_and_not_the_answer(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report never fails a study: what cannot be stored is a warning that says how to make it later."""
    study, store = sweep(grid=["optim.lr=0.01,0.1,1"])
    monkeypatch.setattr(files, "_failpoint", files.Failpoint("ENOSPC:from:1"))
    found = report(study, store)
    assert found["files"] == []
    assert found["findings"][0].startswith("best val_accuracy: 0.")
    lost = [line for line in found["warnings"] if "the disk is full" in line]
    assert len(lost) == 4
    assert lost[0].endswith(f"; `firstlight study {store.path}` makes it again")
    monkeypatch.undo()
    assert [name for name in names(report(study, store)) if name.endswith(".png")] == ["curves.png", "response.png"]


def test_a_study_without_a_finished_trial_has_a_report(sweep: Sweep) -> None:
    study, store = sweep(grid=["optim.lr=1e30,2e30", "optim.momentum=0,0.9"])
    found = report(study, store)
    assert found["findings"] == ["no trial ended with a figure"]
    assert found["best"] is None
    assert found["warnings"] == ["4 of 4 trials diverged"]
    assert {"curves.png", "parallel.png"} <= set(names(found))


def test_a_study_without_trials_has_a_report(sweep: Sweep, tmp_path: Path) -> None:
    study, _ = sweep(grid=["optim.lr=0.01,0.1"])
    empty = Store(tmp_path / "runs" / "empty")
    empty.open(study)
    assert names(report(study, empty)) == ["hparams.csv", "hparams.html"]


class Page(HTMLParser):
    """What a browser would fetch, and the cells of the tables."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "action", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_fetches_nothing_and_escapes_all() -> None:
    """F8, E7: one file, no request, no text that becomes markup."""
    evil = "<script>alert(1)</script>"
    page = study_page(evil, findings=[evil], warnings=[evil], tables=[(evil, [{"val_acc": 0.5, evil: evil, "none": None, "list": [1, 2]}])])
    read = Page()
    read.feed(page)
    assert read.addresses == []
    assert read.tags.count("script") == 1
    assert "".join(read.text).count(evil) == 7
    assert not re.search(r"url\(|@import|https?:", page)
    assert "default-src 'none'" in page


def test_lists_stay_readable_in_csv() -> None:
    rows = [{"model.hidden": [16, 16], "name": 'a,"b"'}]
    assert list(csv.reader(to_csv(rows).splitlines())) == [["model.hidden", "name"], ["[16, 16]", 'a,"b"']]
    assert to_csv([]) == ""
