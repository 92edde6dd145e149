"""A run of the shipped kaggle_digits experiment, trained once on a small copy of Kaggle's files."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import firstlight as fl
from firstlight.__main__ import main
from firstlight.tracking.console import Console

NUM_TRAIN, NUM_TEST = 1297, 500


@dataclass(frozen=True)
class Trained:
    """A folder with `runs/kd` and `data/digit-recognizer/*.csv`; answers: the true labels of test.csv, int64 [500]."""

    folder: Path
    answers: np.ndarray


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The shipped digits at 28 x 28 as train.csv, test.csv and sample_submission.csv."""
    folder = tmp_path_factory.mktemp("kaggle")
    digits = [fl.load_data("digits", part) for part in ("train", "test")]
    small = np.concatenate([part.images.numpy() for part in digits])[:, 0]
    images = np.pad(small.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    labels = np.concatenate([part.labels.numpy() for part in digits if part.labels is not None])
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    pixels = [f"pixel{number}" for number in range(784)]
    place = folder / "data" / "digit-recognizer"
    place.mkdir(parents=True)
    train = np.hstack([labels[:NUM_TRAIN, None], images[:NUM_TRAIN]])
    for name, rows in {"train": [["label", *pixels], *train.tolist()], "test": [pixels, *images[NUM_TRAIN:].tolist()]}.items():
        with (place / f"{name}.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows(rows)
    (place / "sample_submission.csv").write_text("ImageId,Label\n" + "".join(f"{number},0\n" for number in range(1, NUM_TEST + 1)))
    settings = ["train.epochs=3", "train.batch_size=32", "optim.lr=0.05", "device.name=cpu", "device.threads=1", "device.precision=float32"]
    places = {"runs_dir": folder / "runs", "data_dir": folder / "data"}
    fl.train("kaggle_digits", *settings, name="kd", console=Console(quiet=True), **places)
    return Trained(folder, labels[NUM_TRAIN:])


@pytest.fixture
def place(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a copy of the run as runs/kd; FIRSTLIGHT_DATA names the files; sample.csv is the competition's."""
    shutil.copytree(trained.folder / "runs", tmp_path / "runs")
    shutil.copy(trained.folder / "data" / "digit-recognizer" / "sample_submission.csv", tmp_path / "sample.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(trained.folder / "data"))
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FIRSTLIGHT_RUNS", raising=False)
    return tmp_path


@pytest.fixture
def firstlight(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            main(list(words))
        except SystemExit as left:
            code = int(left.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(firstlight: Command, place: Path) -> Callable[..., str]:
    """Run a command line that must be refused: its code, one line on stderr with these words in it, nothing written or changed."""

    def call(code: int, *words: str, says: tuple[str, ...]) -> str:
        def state() -> dict[str, int]:
            return {str(path): path.stat().st_mtime_ns for path in sorted(place.rglob("*"))}

        before = state()
        outcome = firstlight(*words)
        assert (outcome.code, outcome.out) == (code, ""), outcome
        assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, outcome.err
        assert [text for text in says if text not in outcome.err] == [], outcome.err
        assert ";" in outcome.err, "it ends in a remedy"
        assert state() == before
        return outcome.err

    return call
