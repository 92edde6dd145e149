"""Searches by results: successive halving, the median rule, TPE and Gaussian processes; all of them through kills."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import firstlight as fl
from firstlight.errors import ConfigError
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.search import numbered, rungs, search_of
from firstlight.studies.store import Log, Store
from firstlight.studies.study import load_study
from firstlight.studies.trial import Place, Row, Trial, head
from firstlight.studies.workers import Here
from firstlight.tracking.console import Console
from tests.studies.conftest import Sweep

COMMAND = [sys.executable, "-m", "firstlight", "sweep"]
HALVING = ["sampler=halving", "budget.trials=9", "budget.eta=3", "budget.min_epochs=1", "train.epochs=9"]


def epochs_of(store: Store, row: Row) -> int:
    return len(fl.load_run(store.path / row["trial"]).epochs)


def plain(rows: list[Row]) -> list[Row]:
    """Rows without what a clock says."""
    return sorted(({**row, "seconds": 0} for row in rows), key=lambda row: row["trial"])


@pytest.mark.parametrize(
    ("least", "eta", "most", "found"), [(1, 3, 27, [1, 3, 9, 27]), (1, 3, 20, [1, 3, 9, 20]), (2, 2, 3, [2, 3]), (1, 4, 4, [1, 4])]
)
def test_rungs(least: int, eta: int, most: int, found: list[int]) -> None:
    assert rungs(least, eta, most) == found


def test_halving_keeps_the_best_third_at_each_rung(sweep: Sweep) -> None:
    """Jamieson and Talwalkar 2016: 9 points for 1 epoch, the best 3 for 3, the best 1 for 9; each is trained once, resumed exactly."""
    study, store = sweep(*HALVING, grid=["optim.lr=log:1e-3:1"])
    rows = store.rows()
    epochs = {row["trial"]: epochs_of(store, row) for row in rows}
    assert sorted(epochs.values()) == [1] * 6 + [3] * 2 + [9]
    first = {row["trial"]: row["curve"][0] for row in rows}
    assert min(first[name] for name in first if epochs[name] > 1) >= max(first[name] for name in first if epochs[name] == 1)
    (best,) = (row for row in rows if row["state"] == "finished")
    assert (epochs[best["trial"]], len(best["curve"]), best["objective"]) == (9, 9, max(best["curve"]))
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert len(pruned) == 8
    assert all(row["objective"] is None and row["figures"]["val_accuracy"] == row["curve"][-1] for row in pruned)
    assert {row["why"] for row in pruned} == {"after epoch 1 not among the best 3 of 9", "after epoch 3 not among the best 1 of 3"}
    alone = fl.train(study.base, "train.epochs=9", f"optim.lr={best['point']['optim.lr']!r}", runs_dir=store.path.parent)
    assert [row["loss"] for row in alone.steps] == [row["loss"] for row in fl.load_run(store.path / best["trial"]).steps]


def test_halving_goes_on_after_kills_and_with_several_workers(experiment: Path, tmp_path: Path, sweep: Sweep) -> None:
    """What is decided follows from the run folders, so kills and workers change nothing."""
    _, whole = sweep(*HALVING, grid=["optim.lr=log:1e-3:1"], name="whole")
    words = [str(experiment), *HALVING, "--grid", "optim.lr=log:1e-3:1", "--lanes", "off"]
    words += ["--runs-dir", str(tmp_path / "runs"), "--name", "killed"]
    for place in ("25:0003-s0", "5:trials.jsonl"):
        environment = {**os.environ, "FIRSTLIGHT_FAILPOINT": f"kill:before:{place}"}
        killed = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, check=False)
        assert killed.returncode == -9
    study, store = open_study(experiment, HALVING, grid=["optim.lr=log:1e-3:1"], name="killed", runs_dir=tmp_path / "runs")
    assert plain(run_study(study, store, Console(quiet=True), workers=2, lanes="off")) == plain(whole.rows())


def test_a_point_that_breaks_does_not_reach_the_next_rung(sweep: Sweep) -> None:
    _, store = sweep("sampler=halving", "budget.trials=2", "budget.eta=2", "train.epochs=2", grid=["optim.lr=0.1,1e30"])
    assert {row["point"]["optim.lr"]: row["state"] for row in store.rows()} == {0.1: "finished", 1e30: "diverged"}


def test_seeds_of_a_point_are_judged_by_their_mean(sweep: Sweep) -> None:
    _, store = sweep("sampler=halving", "budget.trials=4", "budget.eta=4", "train.epochs=2", "seeds=2", grid=["optim.lr=log:1e-3:1"])
    rows = store.rows()
    means = {number: sum(row["curve"][0] for row in rows if row["number"] == number) / 2 for number in range(4)}
    assert {row["number"] for row in rows if row["state"] == "finished"} == {max(means, key=lambda number: means[number])}
    assert len(rows) == 8


def test_the_median_rule_ends_what_is_worse_than_half_of_the_others(sweep: Sweep) -> None:
    """B19, Golovin et al. 2017: with any sampler; who is judged, and by whom, can be read from the rows."""
    _, store = sweep("pruning=median", "sampler=sobol", "budget.trials=16", "train.epochs=4", grid=["optim.lr=log:1e-4:1"])
    rows = store.rows()
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned and all(row["trial"] >= "0005-s0" for row in pruned)
    for row in rows[5:]:
        before = rows[: rows.index(row)]
        for epoch, value in enumerate(row["curve"][: 3 if row["state"] == "finished" else None]):
            others = sorted(other["curve"][epoch] for other in before if len(other["curve"]) > epoch)
            median = (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2
            is_last = row["state"] == "pruned" and epoch == len(row["curve"]) - 1
            assert (len(others) >= 5 and value < median) == is_last
    assert all(epochs_of(store, row) == len(row["curve"]) for row in rows)
    assert pruned[0]["why"].startswith(f"{pruned[0]['curve'][-1]:.4f} after epoch {len(pruned[0]['curve'])} is worse than the median of ")


def test_a_pruned_trial_stays_pruned(sweep: Sweep) -> None:
    words = ["pruning=median", "sampler=sobol", "budget.trials=8", "train.epochs=3"]
    _, store = sweep(*words, grid=["optim.lr=log:1e-4:1"], name="study")
    before = store.rows()
    _, store = sweep(*words[:2], "budget.trials=9", words[3], grid=["optim.lr=log:1e-4:1"], name="study")
    assert store.rows()[:8] == before


def distance(trial: Trial, config: Any, place: Place, log: Log) -> Row:
    """In the place of a training: the best learning rate is 0.01, the best momentum 0.5, and none of the layers."""
    import math

    point = trial.point
    loss = (math.log10(point["optim.lr"]) + 2) ** 2 + (point["optim.momentum"] - 0.5) ** 2 + 0.1 * len(point["model.hidden"])
    return {**head(trial), "state": "finished", "objective": loss, "figures": {}, "seconds": 0.0}


SPACE = ["optim.lr=log:1e-5:1", "optim.momentum=lin:0:0.9", "model.hidden=[8],[8, 8],[8, 8, 8]"]


def search(experiment: Path, name: str, sampler: str, trials: int) -> Store:
    words = [f"sampler={sampler}", f"budget.trials={trials}", "objective=val_loss"]
    study, store = open_study(experiment, words, grid=SPACE, name=name, runs_dir=experiment.parent / "runs")
    run_study(study, store, Console(quiet=True), start=lambda place, log: Here(place, log, distance))
    return store


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("gp", 20)])
def test_a_search_that_learns_comes_nearer_than_random_draws_do(experiment: Path, sampler: str, trials: int) -> None:
    pytest.importorskip("optuna")
    learned = search(experiment, "learned", sampler, trials).rows()
    random = search(experiment, "random", "random", trials).rows()
    assert len({str(row["point"]) for row in learned}) == len(learned) == trials
    later = slice(trials // 2, None)
    assert (
        sorted(row["objective"] for row in learned[later])[trials // 4] < sorted(row["objective"] for row in random[later])[trials // 4] / 2
    )


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_search_that_learns_reckons_with_points_that_are_being_trained(experiment: Path, sampler: str) -> None:
    """Two workers: the second point is another one than it would be if nobody trained the first."""
    pytest.importorskip("optuna")
    store = search(experiment, "known", sampler, 15)
    study = load_study(experiment, [f"sampler={sampler}", "budget.trials=17", "objective=val_loss"], grid=SPACE)
    rows = {row["trial"]: row for row in store.rows()}
    both, _ = search_of(study, store, list(rows.values())).next(rows, (), 2)
    best = min(rows.values(), key=lambda row: row["objective"])
    elsewhere = {**best, "trial": "0015-s0", "number": 15}  # as if point 15 had been the best one, and done
    alone, _ = search_of(study, store, [*rows.values(), elsewhere]).next({**rows, "0015-s0": elsewhere}, (), 1)
    assert [trial.number for trial in both] == [15, 16]
    assert [trial.number for trial in alone] == [16]
    assert both[1].point not in (both[0].point, alone[0].point)


def test_a_search_that_learns_goes_on_as_if_it_had_not_been_stopped(experiment: Path) -> None:
    """Optuna remembers nothing: its study is made anew from the rows, and each point is drawn with a seed of its own."""
    pytest.importorskip("optuna")
    for trials in (7, 15, 25):
        parts = search(experiment, "parts", "tpe", trials)
    whole = search(experiment, "whole", "tpe", 25)
    assert parts.rows() == whole.rows()


def test_tpe_with_conditions_pruning_seeds_and_workers(experiment: Path, tmp_path: Path) -> None:
    """B19: a study in YAML of 7 parameters, with pruning and conditions, carried out by two processes."""
    pytest.importorskip("optuna")
    path = experiment.with_name("many.yaml")
    path.write_text(
        "base: tiny.yaml\nsampler: tpe\npruning: median\nseeds: 2\nbudget: {trials: 8}\nspace:\n"
        "  optim: [sgd, adam]\n  optim.lr: log:1e-3:0.3\n  optim.momentum: {values: [0.0, 0.5, 0.9], when: {optim: sgd}}\n"
        "  model.hidden: [[4], [8], [16], [8, 8]]\n  model.dropout: [0.0, 0.1, 0.2, 0.5]\n"
        "  train.batch_size: [20, 50, 100]\n  train.label_smoothing: lin:0:0.2\n"
    )
    study, store = open_study(path, runs_dir=tmp_path / "runs")
    rows = run_study(study, store, Console(quiet=True), workers=2, lanes="off")
    assert sorted(row["trial"] for row in rows) == [f"{number:04d}-s{seed}" for number in range(8) for seed in range(2)]
    assert all(("optim.momentum" in row["point"]) == (row["point"]["optim"] == "sgd") for row in rows)
    assert {row["state"] for row in rows} <= {"finished", "pruned"}


def test_a_small_space_is_used_up(experiment: Path) -> None:
    pytest.importorskip("optuna")
    study, store = open_study(experiment, ["sampler=tpe", "budget.trials=9"], grid=["optim.lr=0.1,0.2,0.3"], runs_dir=experiment.parent)

    def train(trial: Trial, config: Any, place: Place, log: Log) -> Row:
        return {**head(trial), "state": "finished", "objective": trial.point["optim.lr"], "figures": {}, "seconds": 0.0}

    rows = run_study(study, store, Console(quiet=True), start=lambda place, log: Here(place, log, train))
    assert sorted(row["point"]["optim.lr"] for row in rows) == [0.1, 0.2, 0.3]


def test_without_optuna_there_is_one_line(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    study, store = open_study(experiment, ["sampler=tpe", "budget.trials=9"], grid=["optim.lr=0.1,0.2,0.3"], runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r'need Optuna, which is not installed; pip install "firstlight\[search\]"'):
        run_study(study, store, Console(quiet=True), lanes="off")


@pytest.mark.parametrize(
    ("overrides", "grid", "message"),
    [
        (["sampler=halving", "budget.trials=9"], "train.epochs=1,2", "space varies train.epochs, which sampler halving sets by itself"),
        (["sampler=halving", "budget.trials=9", "pruning=median"], "optim.lr=1,2", "sampler halving ends trials by itself"),
        (["sampler=halving", "budget.trials=9", "budget.min_epochs=2"], "optim.lr=1,2", "min_epochs is 2, and a trial has 2 epochs"),
        (["sampler=halving"], "optim.lr=1,2", "sampler halving has no end of its own; say how many points"),
        (["sampler=halving", "budget.trials=9", "budget.eta=1"], "optim.lr=1,2", "budget.eta is 1; it must be >= 2"),
        (["sampler=tpe"], "optim.lr=1,2", "sampler tpe has no end of its own; say how many points"),
        (["pruning=mean"], "optim.lr=1,2", "pruning is \"mean\"; it must be 'median'"),
    ],
)
def test_a_wrong_search_is_one_line(experiment: Path, overrides: list[str], grid: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(experiment, overrides, grid=[grid])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_stay_with_their_points() -> None:
    heads = [{"point": {"a": 1}, "number": 0}, {"point": {"a": 9}, "number": 1}]
    trials = [Trial(number, {"a": value}, 0) for number, value in enumerate((1, 5, 9, 7))]
    assert [(trial.point["a"], trial.number) for trial in numbered(trials, heads)] == [(1, 0), (5, 2), (9, 1), (7, 3)]
