"""Runs and studies to report: a trained run with something of everything, a study of 100 trials, and the parts of a page."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import firstlight as fl
from firstlight.files import write_json, write_pictures
from firstlight.plotting.images import plot_class_bars
from firstlight.studies.runner import open_study, run_study
from firstlight.tracking.console import Console
from firstlight.tracking.run import load_run
from firstlight.tracking.writer import add_note, record_test_opening

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"
EXPERIMENT = """
data: digits
model: {name: mlp, hidden: [8]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
split: {num_train: 200}
train: {epochs: 3, batch_size: 50}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the quickstart with a network that trains in no time; copy it before you change it."""
    folder = tmp_path_factory.mktemp("trained")
    run = fl.train("quickstart", "model=linear", "train.epochs=3", "train.test_at_end=false", name="first", runs_dir=folder)
    fl.evaluate(run.path)
    return run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run in the folder `runs`."""
    import shutil

    shutil.copytree(trained, tmp_path / "runs" / "first")
    return tmp_path / "runs" / "first"


@pytest.fixture
def looked_at(run: Path) -> Path:
    """The run with what an inspection leaves, notes and an opening of the test set."""
    leave_inspection(run)
    add_note(load_run(run), "the lamp was too warm")
    record_test_opening(load_run(run), {"by": "evaluate (best)", "accuracy": 0.9, "num_images": 359})
    return run


def leave_inspection(run: Path, what: str = "mistakes", split: str = "val", **more: Any) -> Path:
    """Write what an inspection writes, in the form of firstlight/inspection/opened.py, with a real picture."""
    import numpy as np

    folder = run / "inspection"
    folder.mkdir(exist_ok=True)
    figure = plot_class_bars(np.zeros((8, 8), np.uint8), ["zero", "one"], [0.25, 0.75], title="one with 0.75")
    files = [str(path) for path in write_pictures(folder / f"{what}-{split}", figure)]
    found = {"run": str(run), "what": what, "split": split, "num_images": 144, "says": f"5 of 144 images are {what}", **more}
    write_json(path := folder / f"{what}-{split}.json", {**found, "files": [*more.get("files", []), *files]})
    return path


@pytest.fixture(scope="session")
def study_of_100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 50 points with two seeds, trained side by side."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    grid = ["optim.lr=log:1e-3:1:10", "optim.momentum=lin:0:0.9:5"]
    study, store = open_study(folder / "tiny.yaml", ["seeds=2"], grid=grid, name="hundred", runs_dir=folder / "runs")
    run_study(study, store, Console(quiet=True), lanes="on")
    return store.path


@pytest.fixture(scope="session")
def study_page(study_of_100: Path) -> tuple[dict[str, Any], "Parsed"]:
    """The report of that study: what the command says of it, and the page."""
    return report_of(study_of_100)


VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Parsed(HTMLParser):
    """A page taken apart. sources: all that an attribute would load or lead to; headings: (level, text); tags: how often each occurs."""

    text: str
    sources: list[str] = field(default_factory=list)
    headings: list[tuple[str, str]] = field(default_factory=list)
    tags: dict[str, int] = field(default_factory=dict)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(self.text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.sources += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "poster", "data", "background")
        ]
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append((tag, ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data
        for tag in ("h1", "h2", "h3", "h4"):
            if tag in self.open:
                level, text = self.headings[-1]
                self.headings[-1] = (level, text + data)

    @property
    def sections(self) -> list[str]:
        """The headings of the sections of all chapters."""
        return [text for level, text in self.headings if level == "h3"]


def report_of(*targets: Path, out: Path | None = None) -> tuple[dict[str, Any], Parsed]:
    """Write a report, and return what it says of itself and the page taken apart."""
    found = fl.report(*targets, out=out)
    assert json.loads(json.dumps(found)) == found
    return found, Parsed(Path(found["report"]).read_text(encoding="utf-8"))
