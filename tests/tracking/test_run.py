"""Reading run folders, whole and damaged."""

import json
from pathlib import Path

import pytest

from firstlight.errors import RunNotFoundError
from firstlight.tracking.run import find_run, list_runs, load_run, read_rows


def write_run(path: Path, **info: object) -> Path:
    path.mkdir(parents=True)
    base = {"state": "finished", "summary": {}, "notes": [], "started": "2026-11-21T09:00:00+0000"}
    (path / "run.json").write_text(json.dumps({**base, **info}))
    (path / "config.yaml").write_text("name: x\n")
    return path


def test_rows_are_read_up_to_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    path.write_text('{"kind": "step", "step": 1}\n{"kind": "epoch", "epoch": 1, "step": 1}\n{"kind": "st')
    assert read_rows(path) == [{"kind": "step", "step": 1}, {"kind": "epoch", "epoch": 1, "step": 1}]
    run = load_run(write_run(tmp_path / "a"))
    (run.path / "metrics.jsonl").write_text(path.read_text())
    assert (len(run.steps), len(run.epochs)) == (1, 1)


def test_a_running_run_without_its_process_is_interrupted(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path / "a", state="running")).state == "interrupted"
    assert load_run(write_run(tmp_path / "b", state="failed")).state == "failed"


@pytest.mark.parametrize("content", ["a: [", "a: &x [*x, *y]", "", "- 1", "\0", "[" * 100_000, "{a: " * 100_000], ids=range(7))
def test_a_damaged_config_costs_no_other_run(tmp_path: Path, content: str) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "bad") / "config.yaml").write_text(content)
    assert [(run.name, run.state) for run in list_runs(tmp_path)] == [("good", "finished"), ("bad", "damaged")]
    with pytest.raises(RunNotFoundError, match="bad is a damaged run folder"):
        load_run(tmp_path / "bad")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"state": "finished"}'])
def test_a_damaged_run_is_named(tmp_path: Path, content: str) -> None:
    path = write_run(tmp_path / "a")
    (path / "run.json").write_text(content)
    with pytest.raises(RunNotFoundError, match=r"a is a damaged run folder .* its checkpoints may still be whole"):
        load_run(path)
    assert [(run.name, run.state) for run in list_runs(tmp_path)] == [("a", "damaged")]


def test_a_name_is_looked_for_in_the_folder_of_runs_after_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = write_run(tmp_path / "runs" / "a")
    assert find_run("a", Path("runs")).path == Path("runs/a") and find_run(inside, Path("runs")).path == inside
    write_run(tmp_path / "a")
    assert find_run("a", Path("runs")).path == Path("a")
    with pytest.raises(RunNotFoundError, match="no run at b; `firstlight runs` lists"):
        find_run("b", Path("runs"))


def test_runs_are_listed_oldest_first(tmp_path: Path) -> None:
    for name, hour in (("a", "11"), ("b", "10")):
        write_run(tmp_path / name, started=f"2026-11-21T{hour}:00:00+0000")
    (tmp_path / "no-run").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["b", "a"]
