"""What the page of a study says: which setting is best, how sure one can be, and which run is behind which figure."""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from firstlight.dashboard import study
from firstlight.dashboard.index import Index
from firstlight.dashboard.study import study_data
from firstlight.files import Lock
from firstlight.studies.store import LOG, Store, as_line
from firstlight.studies.study import Study, load_study
from firstlight.studies.trial import Trial, head

Write = Callable[..., Path]
GRID = ["optim.lr=0.01,0.1,1.0"]


@pytest.fixture(scope="module")
def studies() -> Callable[..., Study]:
    """Return a study of the quickstart; the same one is made once."""
    made: dict[str, Study] = {}

    def find(*overrides: str, grid: Sequence[str] = GRID) -> Study:
        key = repr((overrides, grid))
        if key not in made:
            made[key] = load_study("quickstart", overrides, grid=grid, name="study")
        return made[key]

    return find


@pytest.fixture
def write(tmp_path: Path, studies: Callable[..., Study]) -> Write:
    """Write a study's folder: figures by point, one a seed; None for a trial that failed, infinity for one that diverged."""

    def make(figures: Mapping[int, Sequence[float | None]], *overrides: str, grid: Sequence[str] = GRID, name: str = "study") -> Path:
        asked = studies(*overrides, grid=grid)
        store = Store(tmp_path / name)
        store.open(asked)
        points = list(asked.points())
        rows = [
            row_of(Trial(number, points[number], seed), figure)
            for number, by_seed in figures.items()
            for seed, figure in enumerate(by_seed)
        ]
        (store.path / LOG).write_text("".join(f"{as_line(row)}\n" for row in rows))
        return store.path

    return make


def row_of(trial: Trial, figure: float | None) -> dict[str, Any]:
    if figure == math.inf:
        return {**head(trial), "state": "diverged", "objective": None, "figures": {}, "seconds": 1.0, "why": "the loss is not finite"}
    if figure is None:
        return {**head(trial), "state": "failed", "objective": None, "figures": {}, "seconds": 1.0, "why": "out of memory"}
    return {**head(trial), "state": "finished", "objective": figure, "figures": {"val_accuracy": figure, "val_loss": 0.5}, "seconds": 2.0}


CLEAR = {0: (0.90, 0.91, 0.92), 1: (0.80, 0.812, 0.82), 2: (0.70, 0.712, 0.72)}
CASES: dict[str, tuple[Mapping[int, Sequence[float | None]], str]] = {
    "nothing": ({0: (None,)}, "No trial has finished with a figure yet."),
    "alone": ({0: (0.9, 0.91)}, "It is the only setting with a figure, so there is nothing to compare it with."),
    "unknown": ({0: (0.9,), 1: (0.8,)}, "One seed a setting says nothing about noise: the order may be chance."),
    "clear": (CLEAR, "All 2 other settings are worse beyond seed noise, tested seed by seed (3 seeds, corrected for all comparisons)."),
    "open": (
        {0: (0.90, 0.91, 0.92), 1: (0.89, 0.92, 0.90), 2: (0.70, 0.712, 0.72)},
        "Not settled: 1 of 2 other settings cannot be told apart from it with 3 seeds: optim.lr=0.1.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_says_no_more_than_the_seeds_do(case: str, write: Write) -> None:
    """Issue 8's "done when": which setting is best, and how sure one can be, in one sentence each."""
    figures, says = CASES[case]
    found = study_data(write(figures, "seeds=3"))["verdict"]
    assert (found["sure"], found["says"]) == (case, says)
    assert found.get("setting") == (None if case == "nothing" else "optim.lr=0.01")


def test_settings_that_share_too_few_seeds_are_not_judged(write: Write) -> None:
    """While a study runs, the last point has one seed: no word that it is worse."""
    found = study_data(write({0: (0.90, 0.91, 0.92), 1: (0.80, 0.812, 0.82), 2: (0.70,)}, "seeds=3"))
    assert found["verdict"]["sure"] == "open"
    assert found["verdict"]["says"].startswith("Not settled: 1 of 2 other settings share fewer than two seeds with it")
    assert [point["verdict"] for point in found["points"]] == ["best", "worse", "unknown"]


def test_a_setting_that_diverges_leaves_the_answer_as_it_is(write: Write) -> None:
    """It cannot be compared, and more seeds would not change that."""
    found = study_data(write({**CLEAR, 2: (0.70, math.inf, math.inf)}, "seeds=3"))["verdict"]
    assert found["sure"] == "clear"
    assert found["says"].startswith("The other setting is worse beyond seed noise")
    assert found["says"].endswith(" 1 more setting diverged with so many seeds that no comparison is left.")


def test_p_values_are_students_corrected_by_holm(write: Write) -> None:
    """E4: scipy's paired test, times the number of all pairs, less one for each smaller one (Holm 1979)."""
    points = study_data(write(CLEAR, "seeds=3"))["points"]
    raw = [ttest_rel(CLEAR[0], CLEAR[number]).pvalue for number in (1, 2)]
    smaller, larger = sorted(raw)
    expected = {smaller: 3 * smaller, larger: max(3 * smaller, 2 * larger)}
    assert [point["p"] for point in points[1:]] == pytest.approx([expected[p] for p in raw], rel=1e-6)
    assert points[0]["mean"] == pytest.approx(0.91) and points[0]["n"] == 3


def test_a_loss_is_better_when_it_is_smaller(write: Write) -> None:
    found = study_data(write(CLEAR, "seeds=3", "objective=val_loss"))
    assert (found["direction"], found["verdict"]["setting"]) == ("min", "optim.lr=1")


def test_every_trial_leads_to_its_run(write: Write) -> None:
    """F5: a click on a figure opens the run of that trial: the ids are those of the index."""
    path = write(CLEAR, "seeds=3")
    for trial in json.loads(f"[{','.join((path / LOG).read_text().splitlines())}]"):
        (path / trial["trial"]).mkdir()
        (path / trial["trial"] / "run.json").write_text("{}")
    index = Index(path.parent, cache=path.parent / "index.sqlite")
    for _ in index.scan():
        pass
    for point in study_data(path)["points"]:
        for trial in point["trials"]:
            run = index.find(trial["id"])
            assert run is not None and run.path == path / trial["trial"]
    assert [study.path for study in index.studies.values()] == [path]
    index.close()


def test_progress_and_state(write: Write) -> None:
    path = write({0: (0.9, 0.91), 1: (0.8, None)}, "seeds=3")
    found = study_data(path)
    assert found["progress"] == {"done": 4, "planned": 9, "states": {"finished": 3, "failed": 1}}
    assert (found["state"], found["verdict"]["so_far"]) == ("stopped", True)
    with Lock(path / "study.lock", "study"):
        assert study_data(path)["state"] == "running"
    whole = study_data(write(dict.fromkeys(range(3), (0.9, 0.8, 0.7)), "seeds=3", name="whole"))
    assert (whole["state"], whole["verdict"]["so_far"], whole["progress"]["done"]) == ("finished", False, 9)


def test_a_running_trial_is_named(write: Write) -> None:
    """Live: which setting is trained just now, and how far it is."""
    path = write({0: (0.9,)}, "seeds=3")
    run = path / "0001-s0"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"trial": {"number": 1, "seed": 0, "point": {"optim.lr": 0.1}}}))
    (run / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 2, "step": 20, "val_accuracy": 0.5}\n{"kind": "epoch", "ep')
    with Lock(path / "study.lock", "study"), Lock(run / "run.lock", "run"):
        before = study_data(path)
        (trial,) = before["running"]
        assert {key: trial[key] for key in ("trial", "setting", "seed", "epoch", "val_accuracy")} == {
            "trial": "0001-s0", "setting": "optim.lr=0.1", "seed": 0, "epoch": 2, "val_accuracy": 0.5,
        }  # fmt: skip
        assert trial["epochs"] == study_config(path)["train"]["epochs"]
        with (run / "metrics.jsonl").open("a") as rows:
            rows.write('och": 3}\n')
        after = study_data(path)
        assert (after["running"][0]["epoch"], after["stamp"] != before["stamp"]) == (3, True)
    assert study_data(path)["running"] == []


def study_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "study.json").read_text())["config"]
    return config


def test_a_new_row_is_seen(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is kept until the log grows, and a little longer, so that a large study does not busy the server."""
    path = write({0: (0.8,)}, "seeds=3")
    before = study_data(path)
    assert study_data(path) == before
    with (path / LOG).open("a") as log:
        log.write(as_line(row_of(Trial(1, {"optim.lr": 0.1}, 0), 0.95)) + "\n")
    assert study_data(path) == before, "so soon after a reading it is not read again"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    after = study_data(path)
    assert (before["verdict"]["setting"], after["verdict"]["setting"]) == ("optim.lr=0.01", "optim.lr=0.1")
    assert after["stamp"] != before["stamp"]


def test_values_of_every_kind_have_a_place(write: Write) -> None:
    """Lists, names and numbers: each value once, in the order of an axis."""
    grid = ["optim.lr=1.0,0.01", "model=small_cnn,linear", "augment.flip=false,true"]
    path = write({number: (number / 10,) for number in range(8)}, grid=grid)
    parameters = {parameter["key"]: parameter for parameter in study_data(path)["parameters"]}
    assert [value["text"] for value in parameters["optim.lr"]["values"]] == ["0.01", "1"]
    assert parameters["optim.lr"]["numeric"] and not parameters["model"]["numeric"]
    assert [value["text"] for value in parameters["model"]["values"]] == ["small_cnn", "linear"]
    assert [value["text"] for value in parameters["augment.flip"]["values"]] == ["False", "True"]
    for point in study_data(path)["points"]:
        assert point["values"].keys() == parameters.keys()
        for key, text in point["values"].items():
            assert text in [value["text"] for value in parameters[key]["values"]]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no study.json": lambda path: (path / "study.json").unlink(),
    "study.json cut off": lambda path: (path / "study.json").write_text((path / "study.json").read_text()[:100]),
    "study.json a list": lambda path: (path / "study.json").write_text("[]"),
    "a foreign objective": lambda path: (path / "study.json").write_text((path / "study.json").read_text().replace("val_accuracy", "x")),
    "rows of another kind": lambda path: (path / LOG).write_text(
        json.dumps({"trial": 3, "number": "x", "seed": None, "point": [], "state": {}, "objective": "<b>", "figures": 1, "seconds": "x"})
        + "\n"
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_study_is_shown_as_damaged(damage: str, write: Write) -> None:
    """Fault 50: one line, and nothing that breaks the pages of others."""
    path = write(CLEAR, "seeds=3")
    DAMAGE[damage](path)
    found = study_data(path)
    assert found["state"] == "damaged" and "\n" not in found["damage"]


def test_half_a_row_and_no_row_at_all(write: Write) -> None:
    """Fault 50: a row that is being written is left for later; a study that has just begun has none."""
    path = write(CLEAR, "seeds=3")
    whole = (path / LOG).read_text()
    (path / LOG).write_text(whole[:-40])
    assert study_data(path)["progress"]["done"] == 8
    study._KEPT.clear()
    (path / LOG).unlink()
    assert study_data(path)["verdict"]["sure"] == "nothing"
    shutil.rmtree(path)
    assert study_data(path)["state"] == "damaged"


def test_nan_is_null(write: Write) -> None:
    """Fault 50: JSON has no NaN; one seed has no interval."""
    text = json.dumps(study_data(write({0: (0.9,), 1: (0.8,)})), allow_nan=False)
    assert json.loads(text)["points"][0]["low"] is None
