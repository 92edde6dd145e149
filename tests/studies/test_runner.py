"""Studies that are carried out, broken off, gone on with and given more."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import firstlight as fl
from firstlight.__main__ import main
from firstlight.config.schema import Kind
from firstlight.data import build
from firstlight.data.build import LastData
from firstlight.data.dataset import Dataset
from firstlight.errors import ConfigError
from firstlight.studies import runner
from firstlight.studies.answer import answer
from firstlight.studies.report import report
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.store import Log
from firstlight.studies.training import train_together
from firstlight.studies.trial import Place
from firstlight.tracking.console import Console
from tests.studies.conftest import Sweep

COMMAND = [sys.executable, "-m", "firstlight", "sweep"]


def test_every_trial_is_a_run_of_its_own(sweep: Sweep) -> None:
    """C4, F2: each trial is a normal run folder, equal to the run that `train` makes of the same settings."""
    study, store = sweep("seeds=2", grid=["optim.lr=0.01,0.1,1"])
    rows = store.rows()
    assert len(rows) == 6
    assert all(row["state"] == "finished" for row in rows)
    trial = list(study.trials())[4]
    alone = fl.train(
        study.base, *(f"{key}={value}" for key, value in trial.point.items()), f"seed={trial.seed}", runs_dir=store.path.parent
    )
    in_study = fl.load_run(store.run_path(trial))
    assert [row["loss"] for row in in_study.steps] == [row["loss"] for row in alone.steps]
    assert rows[4]["objective"] == alone.summary["val_accuracy"]


def test_a_finished_study_takes_more_points_and_seeds(sweep: Sweep) -> None:
    _, store = sweep(grid=["optim.lr=0.01,0.1"], name="study")
    before = {row["trial"]: row for row in store.rows()}
    sweep("seeds=2", grid=["optim.lr=0.01,0.1,0.5"], name="study")
    rows = store.rows()
    assert len(rows) == 6
    assert all(row in rows for row in before.values())
    assert len({(row["point"]["optim.lr"], row["seed"]) for row in rows}) == 6


def test_a_study_of_an_older_version_goes_on(sweep: Sweep) -> None:
    """A setting that came later, at its default, is no change; any other value of it is."""
    _, store = sweep(grid=["optim.lr=0.01,0.1"], name="study")
    place = store.path / "study.json"
    kept = json.loads(place.read_text())
    del kept["config"]["device"]["wait_seconds"], kept["config"]["train"]["early_size"]
    place.write_text(json.dumps(kept))
    sweep(grid=["optim.lr=0.01,0.1,0.5"], name="study")
    assert len(store.rows()) == 3
    kept["config"]["train"]["clip_norm"] = 1.0
    place.write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match=r"was begun with config\.train\.clip_norm 1\.0, now it is None"):
        sweep(grid=["optim.lr=0.01"], name="study")


def test_another_experiment_under_the_same_name_is_refused(sweep: Sweep) -> None:
    """A changed study under a finished one: one line, nothing lost."""
    _, store = sweep(grid=["optim.lr=0.01,0.1"], name="study")
    rows = store.rows()
    with pytest.raises(
        ConfigError, match=r"was begun with set\.train None, now it is .*; its trials would not compare, so choose another --name"
    ):
        sweep("train.epochs=3", grid=["optim.lr=0.01,0.1"], name="study")
    assert store.rows() == rows


def test_a_trial_that_diverges_is_a_row_and_the_study_goes_on(sweep: Sweep) -> None:
    study, store = sweep(grid=["optim.lr=0.1,1e30"])
    states = {row["point"]["optim.lr"]: row["state"] for row in store.rows()}
    assert states == {0.1: "finished", 1e30: "diverged"}
    found = answer(study, store.rows(), 10)
    assert found.best is not None
    assert found.best.point == {"optim.lr": 0.1}
    assert "1 of 2 trials diverged" in found.warnings


@pytest.mark.parametrize("lanes", ["off", "on"])
def test_a_study_that_was_killed_goes_on_where_it_stood(
    experiment: Path, tmp_path: Path, lanes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A half-done trial goes on from its checkpoint, and a run whose row a kill prevented is not trained again; alone and as lanes."""
    words = [str(experiment), "--grid", "optim.lr=0.05,0.1,0.2", "--runs-dir", str(tmp_path / "runs"), "--lanes", lanes, "--json"]
    for place in ("12:0000-s0", "10:0001-s0", "1:trials.jsonl"):
        environment = {**os.environ, "FIRSTLIGHT_FAILPOINT": f"kill:before:{place}"}
        killed = subprocess.run([*COMMAND, *words, "--name", "study"], env=environment, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL
    results = {}
    for name in ("study", "whole"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["sweep", *words, "--name", name])
        assert not left.value.code
        said = json.loads(capsys.readouterr().out)
        runs = [fl.load_run(tmp_path / "runs" / name / f"000{point}-s0") for point in range(3)]
        results[name] = (
            [[row["loss"] for row in run.steps] for run in runs],
            said["best"],
            said["trials"],
        )
        assert all(run.state == "finished" for run in runs)
    assert results["study"] == results["whole"]
    assert results["whole"][2] == 3


def test_trials_side_by_side_end_as_trials_alone(sweep: Sweep) -> None:
    """F1: the same rows but for rounding, whichever way; one that diverges is a row that says so (fault 49)."""
    found = {}
    for lanes in ("on", "off"):
        _, store = sweep("seeds=2", grid=["optim.lr=0.05,0.1,1e30", "model.hidden=[8],[16]"], name=lanes, lanes=lanes)
        found[lanes] = {row["trial"]: row for row in store.rows()}
    assert found["on"].keys() == found["off"].keys()
    for name, row in found["on"].items():
        other = found["off"][name]
        assert (row["point"], row["seed"], row["state"]) == (other["point"], other["seed"], other["state"])
        assert row["state"] == ("diverged" if row["point"]["optim.lr"] == 1e30 else "finished")
        assert row["figures"].get("val_loss", 0) == pytest.approx(other["figures"].get("val_loss", 0), abs=1e-4)


def test_the_budget_of_seconds_ends_a_study_and_more_goes_on(experiment: Path, tmp_path: Path) -> None:
    study, store = open_study(experiment, ["budget.seconds=1e-9"], grid=["optim.lr=0.1,0.2"], runs_dir=tmp_path)
    assert run_study(study, store, Console(quiet=True), lanes="off") == []
    study, store = open_study(experiment, ["budget.seconds=1000"], grid=["optim.lr=0.1,0.2"], runs_dir=tmp_path)
    assert len(run_study(study, store, Console(quiet=True), lanes="off")) == 2


def test_the_timing_and_all_programs_of_a_study_read_the_data_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds are two orders of the data and so two programs, of the same images."""
    read: list[str] = []
    real = build.load_part

    def counted(kind: Kind, part: str, data_dir: Path) -> Dataset:
        read.append(part)
        return real(kind, part, data_dir)

    monkeypatch.setattr(build, "load_part", counted)
    _, store = sweep("seeds=2", grid=["optim.lr=0.05,0.1"], lanes="on")
    assert [row["state"] for row in store.rows()] == ["finished"] * 4
    assert read == ["train"]


def test_the_budget_of_seconds_ends_between_groups_of_lanes(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three orders of the data are three programs; the clock says after the first that the time is over."""
    clock, together = [0.0], runner.train_together
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])

    def train(*words: Any, **more: Any) -> Any:
        outcomes = together(*words, **more)
        clock[0] += 10
        return outcomes

    monkeypatch.setattr(runner, "train_together", train)
    study, store = open_study(experiment, ["seeds=3", "budget.seconds=5"], grid=["optim.lr=0.1,0.2"], runs_dir=tmp_path)
    rows = run_study(study, store, Console(quiet=True), lanes="on")
    assert sorted(row["trial"] for row in rows) == ["0000-s0", "0001-s0"]
    study, store = open_study(experiment, ["seeds=3", "budget.seconds=1000"], grid=["optim.lr=0.1,0.2"], runs_dir=tmp_path)
    assert len(run_study(study, store, Console(quiet=True), lanes="on")) == 6


def test_a_group_whose_trials_all_have_rows_trains_nothing(sweep: Sweep) -> None:
    """A row may come from another process between the plan and the claim."""
    study, store = sweep(grid=["optim.lr=0.1,0.2"], lanes="on")
    log = Log(store.path)
    place = Place(study=str(store.path), data_dir=str(store.path), objective=study.objective)
    trials = [(trial, study.config(trial)) for trial in study.trials()]
    outcomes = train_together(trials, place, log, threads=1, load=LastData(), tell=lambda where: None)
    log.close()
    assert [row and row["trial"] for _, row in outcomes] == ["0000-s0", "0001-s0"]
    assert len((store.path / "trials.jsonl").read_text().splitlines()) == 2


def test_the_report_has_table_and_pictures(sweep: Sweep) -> None:
    """E7, C4, C5, C7: hparams.csv sorted by validation accuracy, a response curve for one parameter, a map for two."""
    study, store = sweep("seeds=3", grid=["optim.lr=log:1e-3:1:4"], name="one")
    found = report(study, store)
    header, *lines = (store.path / "hparams.csv").read_text().splitlines()
    assert header == "val_acc,val_loss,optim.lr,seed,trial,state,seconds"
    accuracies = [float(line.split(",")[0]) for line in lines]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(lines) == 12
    assert (store.path / "response.png").stat().st_size > 10_000
    assert found["findings"][0].startswith("best val_accuracy: 0.")
    study, store = sweep(grid=["optim.lr=0.01,0.1", "model.hidden=[4],[16]"], name="two")
    drawn = {Path(path).name for path in report(study, store)["files"]}
    assert drawn >= {"hparams.csv", "hparams.html", "curves.png", "map.png", "parallel.png", "importance.png"}
    assert (store.path / "map.png").stat().st_size > 10_000


MEMORY_SCRIPT = """
import os, sys
from pathlib import Path
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.store import Log
from firstlight.studies.training import train_together
from firstlight.studies.trial import Place
from firstlight.studies.training import train_trial
from firstlight.studies.workers import Here
from firstlight.tracking.console import Console

def train(trial, config, place, log):
    row = train_trial(trial, config, place, log)
    print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), flush=True)
    return row

study, store = open_study(sys.argv[1], ["model.hidden=[4000,1000]", "train.epochs=1"], grid=[sys.argv[3]], runs_dir=sys.argv[2])
run_study(study, store, Console(quiet=True), start=lambda place, log: Here(place, log, train))
"""

LANES_MEMORY_SCRIPT = """
import os, sys
from pathlib import Path
from firstlight.studies import runner
from firstlight.tracking.console import Console

together = runner.train_together

def train(*words, **more):
    found = together(*words, **more)
    print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), flush=True)
    return found

runner.train_together = train
settings = ["model.hidden=[4000,1000]", "train.epochs=1", "seeds=6"]
study, store = runner.open_study(sys.argv[1], settings, grid=[sys.argv[3]], runs_dir=sys.argv[2])
runner.run_study(study, store, Console(quiet=True), lanes="on")
"""


@pytest.mark.parametrize(
    ("script", "points", "times"), [(MEMORY_SCRIPT, "lin:0.01:0.1:12", 12), (LANES_MEMORY_SCRIPT, "0.1,0.2", 6)], ids=["trials", "lanes"]
)
def test_memory_returns_to_its_start_between_trials(experiment: Path, tmp_path: Path, script: str, points: str, times: int) -> None:
    """E10: 17 MB of weights a network, trials or programs of lanes one after the other; behind each the process is as large as before."""
    words = [str(experiment), str(tmp_path / "runs"), f"optim.lr={points}"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    sizes = [int(line) for line in done.stdout.split()]
    assert len(sizes) == times
    assert max(sizes) < min(sizes) + 4e6, sizes
