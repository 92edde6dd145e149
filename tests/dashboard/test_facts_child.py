"""A second process reads run folders along: the table is the same with it, without it, and where it dies."""

import os
import signal
import time
from collections import deque
from pathlib import Path

import pytest

from firstlight.dashboard import index as index_module
from firstlight.dashboard.facts_child import FactsChild
from firstlight.dashboard.index import Index
from tests.dashboard.folders import write_run


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of several settings, a damaged one, one with a name that is no UTF-8, a folder that is none, and a study."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(60):
        write_run(folder / f"run-{number:02d}", lr=0.1 / (1 + number), accuracy=0.5 + number / 200, notes=("é\ud800",) * (number % 2))
    (folder / "run-07" / "run.json").write_text('{"format": ')
    (folder / "run-08").rename(os.fsdecode(os.fsencode(folder) + b"/run-\xff"))
    (folder / "no run").mkdir()
    (folder / "grid").mkdir()
    (folder / "grid" / "study.json").write_text("{}")
    for number in range(12):
        write_run(folder / "grid" / f"{number:04d}-s0", lr=0.5, accuracy=0.6 + number / 100)
    time.sleep(2 * index_module.YOUNG_SECONDS)  # a folder that is younger is read at each scan, which is not what is told apart here
    return folder


def alone(runs_dir: Path, cache: Path) -> list[tuple[object, ...]]:
    """The rows that one process reads."""
    index = Index(runs_dir, cache)
    for _ in index.scan():
        assert index._child is None
    found = sorted_by_key(index)
    index.close()
    return found


def sorted_by_key(index: Index) -> list[tuple[object, ...]]:
    keys = sorted(index.columns)
    columns = ", ".join(["path", "stamp", "name", "study", "state", "notes", "damage", *(index.columns[key] for key in keys)])
    return [(*keys, *row) for row in index._db.execute(f"SELECT {columns} FROM runs ORDER BY path")]


def test_two_processes_find_what_one_finds(runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = alone(runs_dir, tmp_path / "one.sqlite")
    assert len(expected) == 72
    monkeypatch.setattr(index_module, "MANY_NEW", 20)
    monkeypatch.setattr(index_module, "SLICE_SECONDS", 0)
    index = Index(runs_dir, tmp_path / "two.sqlite")
    children = {index._child._process.pid for _ in index.scan() if index._child is not None}
    assert len(children) == 1
    assert sorted_by_key(index) == expected
    assert index._child is None
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    index.close()


def test_a_process_that_dies_leaves_its_folders_to_us(runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed again and again while it reads."""
    expected = alone(runs_dir, tmp_path / "one.sqlite")
    monkeypatch.setattr(index_module, "MANY_NEW", 20)
    monkeypatch.setattr(index_module, "SLICE_SECONDS", 0)
    index = Index(runs_dir, tmp_path / "two.sqlite")
    killed = 0
    for _ in index.scan():
        if index._child is not None and index._child.reads:
            os.kill(index._child._process.pid, signal.SIGKILL)
            killed += 1
    assert killed
    assert sorted_by_key(index) == expected
    index.close()


def test_an_index_that_is_closed_ends_it(runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MANY_NEW", 20)
    index = Index(runs_dir, tmp_path / "one.sqlite")
    scan = index.scan()
    while index._child is None:
        next(scan)
    process = index._child._process
    index.close()
    assert process.returncode == -signal.SIGKILL


def test_names_of_any_length_fit_into_the_pipe(tmp_path: Path) -> None:
    folders = deque((f"{'x' * 200}/{'é' * 120}{number:03d}", 0, "") for number in range(300))
    child, asked = FactsChild(str(tmp_path)), list(folders)
    found = []
    while folders or child.reads:
        while folders and child.waits:
            child.ask(folders)
        found += child.answers()
    child.close()
    assert sorted(folder for folder, _ in found) == sorted(asked)
    assert {facts for _, facts in found} == {None}
