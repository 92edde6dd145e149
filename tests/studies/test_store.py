"""The log of a study: whole rows through kills, torn lines, several writers, and its loss."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from firstlight.studies.runner import open_study, run_study
from firstlight.studies.store import Log, Store
from firstlight.studies.trial import Row, Trial, failed
from firstlight.tracking.console import Console
from tests.studies.conftest import Sweep

LOG = "trials.jsonl"


def trial_of(number: int) -> Trial:
    return Trial(number, {"optim.lr": 0.1 * number}, 0)


def test_what_one_process_writes_another_reads_on_from_where_it_stood(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert log.find(trial_of(0)) is None
    code = (
        "import sys; from pathlib import Path; from firstlight.studies.store import Log; from tests.studies.test_store import *\n"
        "log = Log(Path(sys.argv[1]))\n"
        "for number in (0, 1): assert log.claim(trial_of(number)); log.write([failed(trial_of(number), 'why')])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    assert log.find(trial_of(1)) == failed(trial_of(1), "why")
    log.write([failed(trial_of(2), "ours")])
    assert list(log.rows) == ["0000-s0", "0001-s0", "0002-s0"]
    log.close()
    assert [row["trial"] for row in Store(tmp_path).rows()] == ["0000-s0", "0001-s0", "0002-s0"]


def test_a_torn_line_costs_no_other_row(tmp_path: Path) -> None:
    """Fault 48: what a power cut left half written is passed over, and the next row begins on a line of its own."""
    whole, lost = (json.dumps(failed(trial_of(number), "why")) for number in (0, 1))
    (tmp_path / LOG).write_text(f"{whole}\n{lost[:20]}")
    log = Log(tmp_path)
    assert log.find(trial_of(0)) is not None and log.find(trial_of(1)) is None
    log.write([failed(trial_of(2), "after")])
    log.write([failed(trial_of(3), "after")])
    log.close()
    assert [row["number"] for row in Store(tmp_path).rows()] == [0, 2, 3]
    assert len((tmp_path / LOG).read_text().splitlines()) == 4


@pytest.mark.parametrize("line", ["", "null", "[1]", '{"trial": "0001-s0"}', "\udcff", '{"trial": 1', "9" * 5000])
def test_a_damaged_line_is_passed_over(tmp_path: Path, line: str) -> None:
    whole = json.dumps(failed(trial_of(0), "why"))
    (tmp_path / LOG).write_bytes(f"{line}\n{whole}\n".encode(errors="surrogateescape"))
    assert [row["number"] for row in Store(tmp_path).rows()] == [0]


def test_an_infinity_becomes_null(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write([{**failed(trial_of(0), "why"), "figures": {"val_loss": float("inf")}}])
    log.close()
    assert Store(tmp_path).rows()[0]["figures"] == {"val_loss": None}


def losses(store: Store, rows: list[Row]) -> dict[str, tuple[float, float]]:
    return {row["trial"]: (row["objective"], (store.path / row["trial"] / "run.json").stat().st_mtime) for row in rows}


@pytest.mark.parametrize("damage", ["deleted", "torn"])
def test_the_log_is_made_again_from_the_run_folders(sweep: Sweep, damage: str) -> None:
    """Fault 48: the run folders are the truth; no trial is trained again."""
    study, store = sweep("seeds=2", grid=["optim.lr=0.01,0.1"], name="study")
    before, path = store.rows(), store.path / LOG
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-150])
    trained = losses(store, before)
    after = run_study(study, store, Console(quiet=True), lanes="off")
    assert sorted(after, key=lambda row: row["trial"]) == sorted(before, key=lambda row: row["trial"])
    assert losses(store, after) == trained


def test_a_value_in_the_middle_of_a_grid_takes_no_other_run(sweep: Sweep) -> None:
    """A point keeps its number, and so its run folder, however the grid counts; a half-done trial does, too."""
    _, store = sweep(grid=["optim.lr=0.01,0.5"], name="study")
    before = {row["point"]["optim.lr"]: row for row in store.rows()}
    (store.path / LOG).unlink()
    _, store = sweep(grid=["optim.lr=0.01,0.1,0.5"], name="study")
    rows = {row["point"]["optim.lr"]: row for row in store.rows()}
    assert {lr: rows[lr]["trial"] for lr in rows} == {0.01: "0000-s0", 0.5: "0001-s0", 0.1: "0002-s0"}
    assert all(rows[lr] == before[lr] for lr in before)
    assert rows[0.1]["objective"] not in (rows[0.01]["objective"], rows[0.5]["objective"])


def test_a_foreign_run_in_the_place_of_a_trial_is_left_alone(experiment: Path, tmp_path: Path) -> None:
    import firstlight as fl
    from firstlight.errors import StorageError

    study, store = open_study(experiment, grid=["optim.lr=0.1,0.2"], runs_dir=tmp_path / "runs")
    fl.train(experiment, "optim.lr=0.3", name="0001-s0", runs_dir=store.path)
    with pytest.raises(StorageError, match=r"0001-s0 holds a run that is not trial 0001-s0 of this study; move it away"):
        run_study(study, store, Console(quiet=True), lanes="off")
    assert fl.load_run(store.path / "0001-s0").state == "finished"
