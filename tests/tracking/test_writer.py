"""Writing run folders: states, rows, notes, one writer at a time."""

import json
import math
from pathlib import Path

import pytest

from firstlight.errors import ConfigError, InterruptedRunError, RunBusyError, StorageError
from firstlight.tracking.run import load_run
from firstlight.tracking.writer import RunWriter, add_note, check_free, record_test_opening


def new_run(path: Path) -> Path:
    with RunWriter(path) as writer:
        writer.start("name: x\n", notes=["first"])
    return path


def test_a_run_ends_finished(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a") as writer:
        writer.start("name: x\n")
        assert load_run(tmp_path / "a").state == "running"
    run = load_run(tmp_path / "a")
    assert run.state == "finished" and run.config == {"name": "x"} and run.info["seconds"] >= 0


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RuntimeError("x"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (InterruptedRunError("x"), "interrupted"),
        (InterruptedRunError("x", exit_code=143), "interrupted"),
    ],
)
def test_a_run_says_how_it_ended(tmp_path: Path, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), RunWriter(tmp_path / "a") as writer:
        writer.start("name: x\n")
        raise error
    assert load_run(tmp_path / "a").state == state


def test_a_folder_is_no_run_before_it_starts(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a"):
        pass
    assert not (tmp_path / "a" / "run.json").exists()


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    path = new_run(tmp_path / "a")
    with pytest.raises(StorageError, match=r"a run stands at .*a; choose another --name"):
        RunWriter(path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = new_run(tmp_path / "a")
    with RunWriter(path, resume=True), pytest.raises(RunBusyError, match=r"run .*a is being written by"):
        add_note(load_run(path), "not now")
    assert load_run(path).info["notes"] == ["first"]


def test_seconds_add_up_over_a_resume(tmp_path: Path) -> None:
    path = new_run(tmp_path / "a")
    (path / "run.json").write_text(json.dumps({**load_run(path).info, "seconds": 100.0}))
    with RunWriter(path, resume=True) as writer:
        assert writer.seconds >= 100
    assert load_run(path).info["seconds"] >= 100


def test_rows_past_a_step_are_cut(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a") as writer:
        writer.start("name: x\n")
        writer.append([{"kind": "step", "step": step, "loss": loss} for step, loss in ((1, 0.5), (2, math.nan), (3, 0.1))])
        writer.append([{"kind": "epoch", "step": 2, "epoch": 1}])
        assert writer.cut_rows_after(2, epoch=0) == 0
        writer.append([{"kind": "epoch", "step": 2, "epoch": 1}, {"kind": "step", "step": 3, "loss": 0.2}])
    run = load_run(tmp_path / "a")
    assert [(row["step"], row["loss"]) for row in run.steps] == [(1, 0.5), (2, None), (3, 0.2)]
    assert [row["epoch"] for row in run.epochs] == [1]


def test_rows_that_are_missing_are_counted_and_doubled_ones_dropped(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "a") as writer:
        writer.start("name: x\n")
        writer.append([{"kind": "step", "step": step} for step in (1, 3, 3, 4)])
        assert writer.cut_rows_after(5, epoch=1) == 3
    assert [row["step"] for row in load_run(tmp_path / "a").steps] == [1, 3, 4]


def test_notes_and_openings_only_grow(tmp_path: Path) -> None:
    """A6, F4."""
    path = new_run(tmp_path / "a")
    add_note(load_run(path), "zweite: größer")
    record_test_opening(load_run(path), {"by": "a test", "accuracy": 0.5})
    record_test_opening(load_run(path), {"by": "another", "accuracy": 0.6})
    info = load_run(path).info
    assert info["notes"] == ["first", "zweite: größer"]
    assert [(opening["by"], opening["accuracy"]) for opening in info["test_openings"]] == [("a test", 0.5), ("another", 0.6)]
    assert info["state"] == "finished"


@pytest.mark.parametrize("name", [".a", "-a", "a\nb", "a\\b", "x" * 201, "é" * 101])
def test_names_that_no_folder_should_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a run cannot be called"):
        RunWriter(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_being_written_names_the_process(tmp_path: Path) -> None:
    """Fault 13: a second training of the same name is told who writes, before it reads any data."""
    with RunWriter(tmp_path / "a") as writer:
        writer.start("name: a\n")
        with pytest.raises(RunBusyError, match="is being written by this very process"):
            check_free(tmp_path / "a")
    with pytest.raises(StorageError, match="a run stands at"):
        check_free(tmp_path / "a")
    check_free(tmp_path / "b")


def test_rows_of_numbers_are_the_bytes_of_the_same_rows_as_dicts(tmp_path: Path) -> None:
    """Any number, and null for what is not finite."""
    numbers = [(1, 0.1, -1e-300), (2, 1e22, 0.30234789848327637), (3, math.nan, -math.inf)]
    for rows in (numbers[:2], numbers):
        names = ("step", "loss", "a b")
        with RunWriter(new_folder := tmp_path / f"a{len(rows)}") as writer:
            writer.start("name: x\n")
            writer.append_numbers("step", names, rows)
            writer.append([{"kind": "step", **dict(zip(names, row, strict=True))} for row in rows])
        lines = (new_folder / "metrics.jsonl").read_text().splitlines()
        assert lines[: len(rows)] == lines[len(rows) :]
        assert [json.loads(line)["step"] for line in lines[: len(rows)]] == [row[0] for row in rows]
