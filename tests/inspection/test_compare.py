"""Settings and figures of several runs beside each other."""

from pathlib import Path

import pytest

from firstlight.errors import ConfigError
from firstlight.inspection.compare import compare, differences, run_row
from firstlight.inspection.tables import print_runs
from firstlight.tracking.run import Run, load_run
from firstlight.tracking.writer import RunWriter

CONFIG = "data: {name: digits}\nmodel: {name: linear}\noptim: {name: sgd, lr: %s}\n"


def write_run(path: Path, lr: float, accuracies: list[float]) -> Run:
    """Write a finished run with one row an epoch."""
    with RunWriter(path) as writer:
        writer.start(CONFIG % lr)
        writer.append([{"kind": "epoch", "epoch": n, "step": n, "val_accuracy": a, "train_loss": 1.0} for n, a in enumerate(accuracies, 1)])
    return load_run(path)


def test_differences_name_the_keys_and_every_value() -> None:
    first = {"name": "a", "optim": {"name": "sgd", "lr": 0.1}, "seed": 0}
    second = {"name": "b", "optim": {"name": "adam", "lr": 0.1, "eps": 1e-8}, "seed": 0}
    assert differences([first, second]) == {"optim.name": ["sgd", "adam"], "optim.eps": [None, 1e-8]}
    assert differences([first, first]) == {}


def test_a_row_of_a_run_without_summary_takes_its_best_epoch(tmp_path: Path) -> None:
    row = run_row(write_run(tmp_path / "a", 0.1, [0.2, 0.8, 0.5]))
    assert (row["run"], row["name"], row["epochs"], row["val_accuracy"]) == (str(tmp_path / "a"), "a", 3, 0.8)
    assert row["test_accuracy"] is None and row["state"] == "finished"


def test_a_run_without_validation_has_no_validation_accuracy(tmp_path: Path) -> None:
    """D14: none is not 0."""
    with RunWriter(tmp_path / "a") as writer:
        writer.start(CONFIG % 0.1)
        writer.append(
            [{"kind": "epoch", "epoch": 1, "step": 1, "train_loss": 1.0}, {"kind": "epoch", "epoch": 2, "step": 2, "val_accuracy": None}]
        )
    assert run_row(load_run(tmp_path / "a"))["val_accuracy"] is None


def test_a_run_that_says_little_has_a_row_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 50: a damaged run is shown with what it says, beside the others."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text('{"state": "failed"}')
    (tmp_path / "b" / "config.yaml").write_text("data: digits\n")
    rows = [run_row(write_run(tmp_path / "a", 0.1, [0.5])), run_row(Run(tmp_path / "b"))]
    assert {key: value for key, value in rows[1].items() if value not in (None, [], 0)} == {
        "run": str(tmp_path / "b"),
        "name": "b",
        "state": "damaged",
    }
    print_runs({"runs_dir": str(tmp_path), "runs": rows})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["a", "b"]


def test_runs_of_one_name_are_told_apart_by_path(tmp_path: Path) -> None:
    """D14: two runs called `a` in two folders, in one picture."""
    for folder in ("x", "y"):
        write_run(tmp_path / folder / "a", 0.1, [0.5])
    found = compare([tmp_path / "x" / "a", tmp_path / "y" / "a"], out=tmp_path / "both.svg")
    picture = (tmp_path / "both.svg").read_text()
    assert found["differences"] == {} and [row["name"] for row in found["runs"]] == ["a", "a"]
    assert all(str(tmp_path / folder / "a")[-12:] in picture for folder in ("x", "y"))


def test_one_run_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two runs or more"):
        compare([write_run(tmp_path / "a", 0.1, [0.5]).path])


def test_a_run_without_epochs_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", 0.1, [0.5]).path, write_run(tmp_path / "b", 0.1, []).path]
    with pytest.raises(ConfigError, match=r"no epoch is recorded yet in .*b, nothing to compare; leave out"):
        compare(runs)
    assert not (tmp_path / "compare.png").exists()


def test_a_picture_ends_in_a_known_suffix(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 0.1, [0.5]).path for name in "ab"]
    with pytest.raises(ConfigError, match=r"compare\.txt is no picture; end it in \.png"):
        compare(runs, out=tmp_path / "compare.txt")
