"""Study files and command lines: what they make, and every way to say it wrong."""

from pathlib import Path
from typing import Any

import pytest

from firstlight.errors import ConfigError
from firstlight.studies.study import Trial, laid_over, load_study

STUDY = """
base: tiny.yaml
set: {train: {epochs: 1}}
space:
  optim.lr: log:1e-3:1:4
  model.hidden: [[4], [8]]
seeds: 3
"""


def test_a_study_file(experiment: Path) -> None:
    """F2: seeds are an axis; each point is seen with one seed before any gets a second one."""
    path = experiment.with_name("lr_and_width.yaml")
    path.write_text(STUDY)
    study = load_study(path, ["seeds=2", "train.batch_size=20"])
    trials = list(study.trials())
    assert (study.name, study.seeds, len(trials)) == ("lr_and_width", 2, 16)
    assert [trial.seed for trial in trials] == [0] * 8 + [1] * 8
    assert trials[9] == Trial(1, {"optim.lr": 0.001, "model.hidden": [8]}, 1)
    config = study.config(trials[9])
    assert (config.optim.options["lr"], config.model.options["hidden"], config.seed) == (0.001, (8,), 1)
    assert (config.train.epochs, config.train.batch_size) == (1, 20)


def test_inline(experiment: Path) -> None:
    """Two overlapping parameters, 10 x 10, is one line (C5)."""
    study = load_study(experiment, ["seeds=5"], grid=["optim.lr=log:1e-4:1:10", "train.label_smoothing=lin:0:0.9:10"])
    assert len(list(study.points())) == 100
    assert len(list(study.trials())) == 500


def test_kinds_can_be_varied(experiment: Path) -> None:
    """D19: optimizers as an axis; the settings of the old kind go with it."""
    study = load_study(experiment, grid=["optim=sgd,adam,muon", "schedule=constant,cosine"])
    kinds = {(study.config(trial).optim.name, study.config(trial).schedule.name) for trial in study.trials()}
    assert len(kinds) == 6


def test_laid_over() -> None:
    assert laid_over({"optim": {"lr": 1}, "seed": 3}, {"optim.lr": 2, "train.epochs": 4}) == {
        "optim": {"lr": 2},
        "seed": 3,
        "train": {"epochs": 4},
    }
    assert laid_over({}, {"optim": "sgd", "optim.momentum": 0.9}) == {"optim": {"name": "sgd", "momentum": 0.9}}
    assert laid_over({"optim": {"lr": 1}}, {"optim": "adam"}) == {"optim": {"lr": 1, "name": "adam"}}


WRONG: list[tuple[dict[str, Any], list[str], str]] = [
    (
        {},
        ["objective=test_accuracy", "optim.lr=0.1"],
        "objective 'test_accuracy' is none; the test set is sealed, and a study never reads it",
    ),
    ({}, ["objective=val_acc"], "objective 'val_acc' is none; did you mean 'val_accuracy'?"),
    ({}, ["seeds=0"], "seeds is 0; it must be >= 1"),
    ({}, ["sampler=grit"], "sampler is \"grit\"; it must be 'grid', 'random', 'sobol', 'halving', 'tpe' or 'gp'"),
    ({}, ["budget.trails=3"], "unknown key 'trails' in budget; did you mean 'trials'?"),
    ({}, ["split.val_fraction=0"], "the experiment validates nothing (split.val_fraction=0), so no trial has a val_accuracy"),
    ({}, ["train.test_at_end=true"], "train.test_at_end opens the sealed test set in every trial"),
    ({"grid": []}, [], "space is empty; name what is varied"),
    ({"grid": ["optim.lr"]}, [], "--grid 'optim.lr' names no values; write --grid KEY=VALUES"),
    ({"grid": ["optim.lrr=1,2"]}, [], "unknown key 'lrr' in optim 'sgd'; did you mean 'lr'?"),
    ({"grid": ["optim.lr=0.1,-1"]}, [], "optim.lr is -1; it must be > 0"),
    ({"grid": ["seed=1,2"]}, [], "space varies seed, which a study sets by itself; say how many seeds"),
]


@pytest.mark.parametrize(("more", "overrides", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_a_wrong_study_is_one_line(experiment: Path, more: dict[str, Any], overrides: list[str], message: str) -> None:
    """Empty space, unknown parameter, the test set as objective, an objective that nobody logs: one line, before anything is trained."""
    with pytest.raises(ConfigError) as caught:
        load_study(experiment, overrides, **{"grid": ["optim.lr=0.1,0.2"], **more})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_source_of_chance_alone_can_vary() -> None:
    """C6, F2: separate seeds for init and data order: the one that is set stays, the other follows the seed of the trial."""
    study = load_study("mnist_mlp", ["seeds=2", "order_seed=7"], grid=["optim.lr=0.1,0.2"])
    config = study.config(Trial(0, {"optim.lr": 0.1}, 1))
    assert (config.seed, config.init_seed, config.order_seed) == (1, None, 7)
