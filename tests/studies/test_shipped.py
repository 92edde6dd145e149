"""The studies that come with the package: each is found by name, checks, says how to run it, and runs when made tiny."""

import re
from pathlib import Path

import pytest

from firstlight.config.load import SHIPPED, shipped_experiments
from firstlight.errors import ConfigError
from firstlight.studies.pictures import as_numbers, in_order
from firstlight.studies.report import report
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.study import load_study, shipped_studies
from firstlight.tracking.console import Console

STUDIES = sorted(shipped_studies())
NUM_TRIALS = {"mnist_lr_init": 100, "mnist_900_grid": 27, "mnist_900_random": 27}
TINY = ["data=digits", "split.num_train=100", "train.epochs=1", "train.batch_size=50", "device.threads=1", "seeds=1", "budget.trials=2"]
SMALL = {"lenet": ["input.image_size=12"], "alexnet": ["model=lenet", "input.image_size=12"]}
"""What makes the images and the network of an experiment small: AlexNet alone would take a gigabyte and half a minute."""


def tiny(name: str) -> list[str]:
    varied = load_study(name).space.parameters
    words = [*TINY, *SMALL.get(name.partition("_")[0], [])]
    return [word for word in words if word.partition("=")[0] not in varied]


def test_the_studies_that_the_courses_ask_for() -> None:
    """A3 A5 C3 C4 C5 C8 D15 D16 D18 D19 E1 E7: each stands in the comment of a study."""
    texts = " ".join(path.read_text(encoding="utf-8") for path in shipped_studies().values())
    named = set(re.findall(r"\b[A-F]\d+\b", " ".join(line for line in texts.splitlines() if line.startswith("#"))))
    assert {"A3", "A5", "C3", "C4", "C5", "C8", "D15", "D16", "D18", "D19", "E1", "E7"} <= named


def test_a_study_and_an_experiment_never_share_a_name() -> None:
    assert STUDIES
    assert not shipped_experiments().keys() & set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_a_shipped_study_is_found_by_name_and_checks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study, store = open_study(name, runs_dir=tmp_path)
    assert (study.name, store.path) == (name, tmp_path / name)
    assert len(list(study.points())) == NUM_TRIALS.get(name, len(list(study.points()))) > 1


@pytest.mark.parametrize("path", shipped_studies().values(), ids=lambda path: path.stem)
def test_a_shipped_study_is_short_and_begins_with_run_and_expect(path: Path) -> None:
    """Habit 1: a config opens with its command and its expected result."""
    run, expect, about, *rest = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(rf"# run: firstlight sweep {path.stem}(  .+)?", run)
    assert re.fullmatch(r"# expect: .+\d.*|# expect: not measured yet; .+", expect)
    assert about.startswith("# ")
    assert len(rest) < 20


@pytest.mark.parametrize("name", STUDIES)
def test_a_shipped_study_runs_when_made_tiny(name: str, tmp_path: Path) -> None:
    study, store = open_study(name, tiny(name), runs_dir=tmp_path)
    run_study(study, store, Console(quiet=True))
    rows = store.rows()
    assert [row["state"] for row in rows] == ["finished", "finished"]
    found = report(study, store)
    assert found["trials"] == 2
    assert all(Path(file).is_file() for file in found["files"])
    assert {"hparams.csv", "curves.png"} <= {Path(file).name for file in found["files"]}


def test_a_file_of_the_same_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mnist_depth").write_text("base: mnist_mlp\nspace: {optim.lr: [0.1, 0.2]}\n", encoding="utf-8")
    assert load_study("mnist_depth").space.parameters.keys() == {"optim.lr"}


def test_a_misspelled_study_is_told_the_right_name() -> None:
    with pytest.raises(ConfigError, match=r"called 'mnist_lr_innit'; did you mean 'mnist_lr_init'\?"):
        load_study("mnist_lr_innit", grid=["optim.lr=1,2"])


def test_the_package_takes_its_studies_along() -> None:
    """A wheel without them would know no name."""
    import tomllib

    project = tomllib.loads((SHIPPED.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["firstlight"]
    shipped = {path for pattern in patterns for path in SHIPPED.parent.glob(pattern)}
    assert set(shipped_studies().values()) <= shipped


def test_values_of_a_picture_stand_in_their_own_order() -> None:
    """C4 C8: a hidden layer is a number on an axis; depths and words stand as the study lists them, whichever came out best."""
    sizes, depths = (load_study(name).space.parameters["model.hidden"] for name in ("mnist_hidden_size", "mnist_depth"))
    assert as_numbers(in_order([[1000], [2], [1], [2]], sizes)) == [1, 2, 1000]
    assert as_numbers(in_order([[64, 64, 64], [64, 64], [64]], depths)) == ["[64]", "[64,64]", "[64,64,64]"]
    assert as_numbers([{"name": "sgd", "lr": 0.1}, "adam"]) == ["sgd lr=0.1", "adam"]
