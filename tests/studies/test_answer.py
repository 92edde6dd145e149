"""What is said of a study, from rows by hand."""

import math
from typing import Any

import pytest

from firstlight.errors import ConfigError
from firstlight.studies.answer import Answer, answer, hparams, point_rows
from firstlight.studies.compare import compare_groups
from firstlight.studies.settings import parse_setting, show_point
from firstlight.studies.space import parse_space
from firstlight.studies.statistics import bootstrap, compare_paired, estimate, holm
from firstlight.studies.store import Row
from firstlight.studies.study import Study


def study(space: dict[str, Any], **more: Any) -> Study:
    return Study("study", "base", {}, parse_space(space, needs_grid=False), space, **more)


def row(point: dict[str, Any], seed: int, accuracy: float | None, *, loss: float | None = 0.5, state: str = "finished") -> Row:
    figures = {} if accuracy is None else {"val_accuracy": accuracy, "val_loss": loss}
    objective = accuracy if state in ("finished", "pruned") else None
    name = f"{'-'.join(map(str, point.values()))}-s{seed}"
    return {"trial": name, "seed": seed, "point": point, "state": state, "objective": objective, "figures": figures, "seconds": 1.0}


def of(table: dict[float, list[float]], **more: Any) -> Answer:
    """The answer of a study of lr, with the accuracies of each value by seed."""
    rows = [row({"optim.lr": lr}, seed, accuracy) for lr, column in table.items() for seed, accuracy in enumerate(column)]
    return answer(study({"optim.lr": list(table)}, seeds=max(map(len, table.values()))), rows, 10, **more)


THREE = {0.01: [0.70, 0.72, 0.71, 0.73, 0.70], 0.1: [0.90, 0.91, 0.92, 0.90, 0.91], 1.0: [0.90, 0.92, 0.90, 0.91, 0.905]}


def test_points_come_best_first_with_their_interval() -> None:
    """F2, C6: mean, deviation, 95 % interval and number of seeds of each point."""
    found = of(THREE)
    assert [point.point["optim.lr"] for point in found.points] == [0.1, 1.0, 0.01]
    assert found.best is not None
    assert found.best.objective == estimate(THREE[0.1])
    rows = point_rows(found)
    assert list(rows[0]) == [
        *("optim.lr", "mean", "std", "low", "high", "n"),
        *("difference", "difference_low", "difference_high", "p", "p_corrected", "says"),
    ]
    assert rows[0]["difference"] is None
    assert rows[0]["says"] == "compared with this point"


def test_comparisons_with_the_best_are_corrected_for_all_pairs() -> None:
    """F2: three points make three pairs, of which two are against the best."""
    rows = point_rows(of(THREE))
    plain = [compare_paired(THREE[lr], THREE[0.1]).p for lr in (1.0, 0.01)]
    assert [row["p"] for row in rows[1:]] == plain
    assert [row["p_corrected"] for row in rows[1:]] == holm(plain, 3)
    assert rows[1]["says"].startswith("no difference beyond seed noise between optim.lr=1 and optim.lr=0.1")
    assert rows[2]["says"].startswith("optim.lr=0.1 has 0.1960 more val_accuracy than optim.lr=0.01")


def test_a_point_that_was_named_is_corrected_for_its_own_comparisons() -> None:
    found = of(THREE, against={"optim.lr": 0.01})
    rows = {row["optim.lr"]: row for row in point_rows(found)}
    plain = [compare_paired(THREE[lr], THREE[0.01]).p for lr in (0.1, 1.0)]
    assert [rows[lr]["p_corrected"] for lr in (0.1, 1.0)] == holm(plain)
    assert len(found.sentences()) == 3


def test_many_comparisons_are_not_all_said() -> None:
    found = of({0.1 * place: [0.5 + 0.01 * place, 0.5] for place in range(1, 12)}, against={"optim.lr": 0.1})
    assert len(found.sentences()) == 1 + 5 + 1
    assert found.sentences()[-1] == "5 more comparisons in points.csv"


def test_intervals_by_bootstrap_say_so() -> None:
    found = of(THREE, interval="bootstrap")
    assert found.best is not None
    assert found.best.objective == bootstrap(THREE[0.1])
    assert "(95 % interval by bootstrap 0.90" in found.sentences()[0]


def test_the_sentences_claim_no_more_than_the_figures() -> None:
    best, next_best, equal = of(THREE).sentences()
    assert best.startswith("best val_accuracy: 0.9080 (95 % interval 0.8976 to 0.9184, n = 5) at optim.lr=0.1")
    assert next_best.startswith("next best: no difference beyond seed noise between optim.lr=1 and optim.lr=0.1")
    assert equal == "1 of 2 other points are not told apart from the best by these seeds: optim.lr=1"
    clear = {lr: [accuracy + lr for accuracy in (0.1, 0.12, 0.13, 0.11, 0.14)] for lr in (0.01, 0.3, 0.6)}
    clear[0.3][0] += 0.001
    clear[0.01][1] += 0.001
    assert of(clear).sentences()[-1] == "all 2 other points are worse than the best beyond seed noise"
    assert of({0.1: [0.9], 1.0: [0.8]}).sentences()[-1].startswith("one seed a point says nothing about noise")
    nothing = answer(study({"optim.lr": [0.1]}), [row({"optim.lr": 0.1}, 0, None, state="diverged")])
    assert nothing.sentences() == ["no trial ended with a figure"]


def test_intervals_stay_where_an_accuracy_can_be() -> None:
    found = of({0.1: [0.999, 0.9]})
    assert found.best is not None
    assert found.best.objective is not None
    assert (found.best.objective.low, found.best.objective.high) == (pytest.approx(0.3205, abs=1e-3), 1.0)


def test_the_best_at_an_edge_is_a_warning() -> None:
    """C4: at either end of a range; nothing lies below a dropout of 0."""
    found = of({0.01: [0.7], 0.1: [0.8], 1.0: [0.9]})
    assert found.warnings == ("the best value of optim.lr, 1, lies at an end of its range; the true best may lie beyond: widen it",)
    assert not of({0.01: [0.7], 0.1: [0.9], 1.0: [0.8]}).warnings
    assert not of({0.0: [0.9], 0.1: [0.8], 0.5: [0.7]}).warnings


@pytest.mark.parametrize(("value", "warns"), [(0.0011, True), (0.9, True), (0.03, False)])
def test_a_draw_near_an_edge_is_a_warning(value: float, warns: bool) -> None:
    """C4: random draws never meet the end itself."""
    drawn = study({"optim.lr": "log:1e-3:1"}, sampler="random")
    assert bool(answer(drawn, [row({"optim.lr": value}, 0, 0.9)]).warnings) == warns


def test_runs_at_chance_are_a_warning() -> None:
    """F7: a loss at ln(classes) with the accuracy of guessing; one that merely passes by is none."""
    rows = [
        row({"optim.lr": 0.1}, 0, 0.9, loss=0.3),
        row({"optim.lr": 0.2}, 0, 0.11, loss=math.log(10)),
        row({"optim.lr": 0.3}, 0, 0.4, loss=2.29),
    ]
    (warning,) = answer(study({"optim.lr": [0.1, 0.2, 0.3, 0.0]}), rows, 10).warnings[-1:]
    assert warning == "1 of 3 trials ended at a validation loss of ln(10) = 2.303: they learned nothing (0.2-s0)"


def test_seeds_that_spread_more_than_settings_are_a_warning() -> None:
    found = of({0.01: [0.5, 0.9], 0.1: [0.55, 0.87], 1.0: [0.52, 0.86]})
    assert any("seeds spread more (deviation 0." in warning for warning in found.warnings)


def test_broken_and_pruned_trials_are_counted_and_never_averaged() -> None:
    rows = [
        row({"optim.lr": 0.1}, 0, 0.8),
        row({"optim.lr": 0.1}, 1, None, state="diverged"),
        row({"optim.lr": 1.0}, 0, 0.99, state="pruned"),
        row({"optim.lr": 1.0}, 1, None, state="failed"),
    ]
    found = answer(study({"optim.lr": [0.1, 1.0]}, seeds=2), rows)
    assert found.best is not None
    assert found.best.point == {"optim.lr": 0.1}
    assert found.best.values() == {0: 0.8}
    assert found.points[1].objective is None
    assert found.warnings == ("1 of 4 trials diverged and 1 of 4 trials failed and 1 of 4 trials pruned",)
    assert [line["state"] for line in hparams(found)] == ["finished", "pruned", "diverged", "failed"]


def test_the_table_is_sorted_by_validation_accuracy() -> None:
    """E7: val_acc, val_loss, then the parameters, whatever the objective is."""
    space = {"optim.lr": [0.1, 1.0, 2.0], "model.dropout": [0, 0.5]}
    rows = [row({"optim.lr": lr, "model.dropout": 0}, 0, accuracy, loss=lr) for lr, accuracy in ((0.1, 0.7), (1.0, 0.9), (2.0, 0.7))]
    for line in rows:
        line["objective"] = line["figures"]["val_loss"]
    table = hparams(answer(study(space, objective="val_loss"), rows))
    assert list(table[0])[:4] == ["val_acc", "val_loss", "optim.lr", "model.dropout"]
    assert [(line["val_acc"], line["val_loss"]) for line in table] == [(0.9, 1.0), (0.7, 0.1), (0.7, 2.0)]


def grid(seeds: int) -> Answer:
    """Accuracy = lr + dropout / 10 + a little of the seed and of both."""
    points = [{"optim.lr": lr, "model.dropout": dropout} for lr in (0.1, 0.2) for dropout in (0.0, 0.5, 0.8)]
    rows = [
        row(
            point,
            seed,
            point["optim.lr"] + point["model.dropout"] / 10 + 0.01 * seed * point["optim.lr"] + 0.001 * point["model.dropout"] ** 2,
        )
        for seed in range(seeds)
        for point in points
    ]
    return answer(study({"optim.lr": [0.1, 0.2], "model.dropout": [0.0, 0.5, 0.8]}, seeds=seeds), rows)


def test_two_settings_are_compared_seed_by_seed_over_all_else() -> None:
    """F2: a setting that names one parameter stands for all points with it; n counts seeds."""
    found = compare_groups(grid(3), {"optim.lr": 0.1}, {"optim.lr": 0.2})
    assert found["pairs"] == 9
    assert found["difference"] == pytest.approx(0.101)
    assert found["says"][0].startswith("optim.lr=0.2 has 0.1010 more val_accuracy than optim.lr=0.1")
    assert "n = 3" in found["says"][0]


def test_with_one_seed_the_other_settings_are_counted_and_that_is_said() -> None:
    found = compare_groups(grid(1), {"optim.lr": 0.1, "model.dropout": 0.0}, {"optim.lr": 0.1, "model.dropout": 0.5})
    assert found["says"][0].startswith("one seed each says nothing about noise")
    found = compare_groups(grid(1), {"model.dropout": 0.0}, {"model.dropout": 0.5})
    assert found["pairs"] == 2
    assert found["says"][1].endswith("with one seed n counts the other settings, and nothing is said about seeds")


def test_settings_are_read_as_they_are_shown() -> None:
    point = {"optim.lr": 0.0215443, "model.hidden": [16, 16], "model.norm": None, "optim": "adam", "train.batch_size": 32}
    text = show_point(point)
    assert text == "optim.lr=0.02154 model.hidden=[16,16] model.norm=null optim=adam train.batch_size=32"
    assert parse_setting(text, "--against") == {**point, "optim.lr": 0.02154}


WRONG = [
    ({"optim.lr": 0.5}, "no point of the study has optim.lr=0.5; tried were 0.2, 0.1"),
    ({"optim.momentum": 0.5}, "no point of the study has optim.momentum=0.5; it varies optim.lr, model.dropout"),
    ({"optim.lr": 0.1}, "--against optim.lr=0.1 is 3 points; name one by all its parameters (model.dropout too)"),
]


@pytest.mark.parametrize(("setting", "message"), WRONG)
def test_a_wrong_reference_is_one_line(setting: dict[str, Any], message: str) -> None:
    known = grid(2)
    with pytest.raises(ConfigError) as caught:
        answer(known.study, known.rows, against=setting)
    assert str(caught.value) == message


def test_a_setting_is_not_compared_with_itself() -> None:
    with pytest.raises(ConfigError, match="no two trials differ in that alone and finished; name two other settings"):
        compare_groups(grid(2), {"optim.lr": 0.1}, {"optim.lr": 0.1})
    with pytest.raises(ConfigError, match="no two trials differ in that alone"):
        compare_groups(grid(2), {"optim.lr": 0.1}, {"model.dropout": 0.5})


@pytest.mark.parametrize("text", ["", "lr", "=3", "optim.lr="])
def test_a_setting_without_key_or_value_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write KEY=VALUE, such as optim\.lr=0\.1"):
        parse_setting(text, "--compare")
