"""Studies carried out by several processes, any of which is killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.errors import ConfigError, FirstlightError, InterruptedRunError, StorageError
from firstlight.files import Claims
from firstlight.studies import runner
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.store import Log, Store
from firstlight.studies.study import Study
from firstlight.studies.trial import Place, Row, Trial, head
from firstlight.studies.worker import carry_out
from firstlight.studies.workers import Outcome, Processes
from firstlight.tracking.console import Console

STUB = [sys.executable, str(Path(__file__).with_name("stub_worker.py"))]
COMMAND = [sys.executable, "-m", "firstlight", "sweep"]
LOG = "trials.jsonl"


class Stubs(Processes):
    """Stub workers; some of them are killed (SIGKILL) whenever the leader looks for news, wherever they stand."""

    kills = 0

    def __init__(self, num: int, place: Place, *, kills: int = 0, seed: int = 0) -> None:
        super().__init__(num, place, STUB)
        self._draws, self.kills_left = random.Random(seed), kills

    def wait(self) -> list[Outcome]:
        outcomes = super().wait()
        if self.kills_left and outcomes and self._draws.random() < 0.4:
            os.kill(self._draws.choice(self.pids), signal.SIGKILL)
            self.kills_left -= 1
        return outcomes


def lines_of(store: Store) -> list[str]:
    """The trials in the log, one for each line, those that stand there twice twice."""
    return [json.loads(line)["trial"] for line in (store.path / LOG).read_text().splitlines()]


def opened(experiment: Path, values: str, *overrides: str) -> tuple[Study, Store]:
    return open_study(experiment, overrides, grid=[f"optim.lr={values}"], runs_dir=experiment.parent / "runs")


def run_stubs(study: Study, store: Store, num: int, *, kills: int = 0) -> tuple[list[Row], list[Stubs]]:
    started: list[Stubs] = []

    def start(place: Place, log: Log) -> Stubs:
        started.append(Stubs(num, place, kills=kills))
        return started[-1]

    return run_study(study, store, Console(quiet=True), start=start), started


@pytest.mark.parametrize(
    ("workers", "trials", "kills"), [(4, 60, 12), pytest.param(16, 5_000, 500, marks=pytest.mark.soak)], ids=["small", "soak"]
)
def test_killed_workers_lose_no_trial_and_record_none_twice(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, workers: int, trials: int, kills: int
) -> None:
    """Fault 47: a killed worker's trial returns to the queue and is recorded exactly once."""
    monkeypatch.setattr(runner, "MAX_DEATHS", kills)  # kills are drawn; one trial may well meet three of them
    study, store = opened(experiment, f"lin:0.1:1:{trials // 4}", "seeds=4")
    rows, started = run_stubs(study, store, workers, kills=kills)
    assert started[0].kills_left == 0
    assert Counter(lines_of(store)) == Counter(trial.name for trial in study.trials())
    assert all(row["state"] == "finished" for row in rows)
    assert all(row["objective"] == row["point"]["optim.lr"] for row in rows)
    assert [pid for pid in started[0].pids if is_alive(pid)] == []


def test_on_a_network_file_system_the_leader_alone_writes_rows(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 48: one-writer mode; killed workers lose no trial there either."""
    monkeypatch.setattr(runner, "network_filesystem", lambda path: "nfs4")  # no test can mount one
    monkeypatch.setattr(runner, "MAX_DEATHS", 6)
    study, store = opened(experiment, "lin:0.1:1:10", "seeds=4")
    rows, started = run_stubs(study, store, 4, kills=6)
    assert started[0].kills_left == 0
    assert Counter(lines_of(store)) == Counter(trial.name for trial in study.trials())
    assert {row["trial"]: row["objective"] for row in rows} == {trial.name: trial.point["optim.lr"] for trial in study.trials()}


def test_a_worker_that_may_not_write_leaves_its_row_to_the_leader(experiment: Path) -> None:
    """Fault 48."""
    study, store = opened(experiment, "0.1,0.2")
    store.open(study)
    log, trial = Log(store.path), next(study.trials())
    row = {**head(trial), "state": "finished", "objective": 1.0, "figures": {}, "seconds": 0.0}
    assert carry_out(trial, log, lambda: row, writes=False) == row
    assert lines_of(store) == []
    assert carry_out(trial, log, lambda: row) == row
    assert lines_of(store) == [trial.name]
    log.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_trial_that_kills_its_worker_three_times_is_given_up(experiment: Path) -> None:
    study, store = opened(experiment, "0.5,666.0,667.0,1.0")
    rows = {row["point"]["optim.lr"]: row for row in run_stubs(study, store, 2)[0]}
    assert [rows[lr]["state"] for lr in (0.5, 666.0, 667.0, 1.0)] == ["finished", "failed", "failed", "finished"]
    assert rows[666.0]["why"] == "its worker died 3 times (signal 9: out of luck)"
    assert rows[667.0]["why"] == "its worker died 3 times (exit code 1: ZeroDivisionError: a bug)"
    assert len((store.path / "training-0001-s0").read_text().splitlines()) == 3
    assert Counter(lines_of(store)) == Counter(["0000-s0", "0001-s0", "0002-s0", "0003-s0"])


def test_workers_that_cannot_start_are_one_line(experiment: Path) -> None:
    study, store = opened(experiment, "0.5,1.0")
    command = [sys.executable, "-c", "raise SystemExit('no such library')"]
    with pytest.raises(FirstlightError, match=r"the workers .* die at their start \(exit code 1: no such library\); try --workers 1"):
        run_study(study, store, Console(quiet=True), start=lambda place, log: Processes(2, place, command))


def test_a_worker_looks_for_the_row_once_it_has_the_claim(experiment: Path) -> None:
    """Fault 47, the fence: a row that another process wrote while we waited for its claim is taken, and nothing is trained."""
    study, store = opened(experiment, "0.5,1.0")
    trial = next(iter(study.trials()))
    store.path.mkdir(parents=True)
    (store.path / LOG).write_text(json.dumps({**head(trial), "state": "finished", "objective": 0.25, "figures": {}, "seconds": 1}) + "\n")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.path / "claims.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    place = Place(study=str(store.path), data_dir="", objective="val_accuracy")
    workers = Processes(1, place, STUB)
    while not workers.num_free:
        workers.wait()
    workers.start(trial, lambda: study.config(trial))
    assert workers.wait() == []
    holder.communicate("")
    while not (outcomes := workers.wait()):
        pass
    workers.close()
    assert outcomes[0].row is not None and outcomes[0].row["objective"] == 0.25
    assert not list(store.path.glob("training-*"))
    assert len(lines_of(store)) == 1


HOLD = """
import sys
from pathlib import Path
from firstlight.files import Claims
claims = Claims(Path(sys.argv[1]))
assert all(claims.take(number) for number in range(1, 100))
print("held", flush=True)
sys.stdin.read()
"""


def test_claims_are_freed_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "claims.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    claims = Claims(path)
    assert [number for number in (0, 1, 50, 99, 100) if claims.take(number)] == [0, 100]
    holder.kill()
    holder.communicate()
    assert claims.take(1) and claims.take(99)
    claims.close()


def test_real_trials_are_the_same_whoever_trains_them(experiment: Path) -> None:
    """Two processes of one thread make the rows and the losses that this process makes."""
    study, store = opened(experiment, "0.05,0.1,0.2")
    alone = run_study(study, store, Console(quiet=True), lanes="off")
    other = Store(store.path.with_name("other"))
    together = run_study(study, other, Console(quiet=True), workers=2, lanes="off")

    def plain(rows: list[Row]) -> list[Row]:
        return sorted(({**row, "seconds": 0} for row in rows), key=lambda row: row["number"])

    assert plain(together) == plain(alone)
    for trial in study.trials():
        assert [row["loss"] for row in fl.load_run(other.run_path(trial)).steps] == [
            row["loss"] for row in fl.load_run(store.run_path(trial)).steps
        ]


@pytest.fixture
def leader(experiment: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A real study of two workers with trials that last, in a process of its own."""
    words = [
        "--grid",
        "optim.lr=0.05,0.1",
        "train.epochs=100000",
        "--name",
        "long",
        "--workers",
        "2",
        "--lanes",
        "off",
        "--runs-dir",
        str(tmp_path / "runs"),
    ]
    runs = [tmp_path / "runs" / "long" / f"000{point}-s0" for point in range(2)]
    with subprocess.Popen([*COMMAND, str(experiment), *words], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not all(list(run.glob("checkpoints/step-*")) for run in runs):
            time.sleep(0.05)
        yield process
        process.kill()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_leader_that_is_stopped_leaves_no_orphans(leader: subprocess.Popen[str], tmp_path: Path, number: int) -> None:
    """SIGTERM: one line and the exit code; even after SIGKILL the workers save a checkpoint and leave."""
    children = children_of(leader.pid)
    assert len(children) == 2
    leader.send_signal(number)
    _, said = leader.communicate()
    while any(is_running(child) for child in children):
        time.sleep(0.05)
    if number != signal.SIGKILL:
        assert leader.returncode == 128 + number
        assert said.splitlines()[-1].endswith("0 of 2 trials are done; give the same command to go on")
    for point in range(2):
        run = fl.load_run(tmp_path / "runs" / "long" / f"000{point}-s0")
        assert run.state == "interrupted"
        assert run.info["state"] == "interrupted"  # it said so itself, behind its checkpoint


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie, which waits for nobody but its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_full_disk_ends_the_study_and_nothing_recorded_is_lost(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, store = opened(experiment, "lin:0.1:1:40")
    with monkeypatch.context() as patched:
        patched.setenv("FIRSTLIGHT_FAILPOINT", f"ENOSPC:from:20:{LOG}")  # operations of each worker on the log
        with pytest.raises(StorageError, match=r"trials\.jsonl: the disk is full; free some space"):
            run_stubs(study, store, 2)
    before = lines_of(store)
    assert 5 < len(before) < 40
    run_stubs(study, store, 2)
    assert lines_of(store)[: len(before)] == before
    assert sorted(lines_of(store)) == [trial.name for trial in study.trials()]


def test_number_of_workers_is_checked(experiment: Path) -> None:
    study, store = opened(experiment, "0.5,1.0")
    with pytest.raises(ConfigError, match="--workers is 0; give a whole number of 1 or more, or ray"):
        run_study(study, store, Console(quiet=True), workers=0)


def test_ctrl_c_between_two_trials_is_one_line(experiment: Path) -> None:
    study, store = opened(experiment, "lin:0.1:1:40")

    class Interrupted(Stubs):
        def wait(self) -> list[Outcome]:
            outcomes = super().wait()
            if outcomes:
                signal.raise_signal(signal.SIGINT)
            return outcomes

    with pytest.raises(InterruptedRunError, match=r"was interrupted, 0 of 40 trials are done; give the same command to go on") as caught:
        run_study(study, store, Console(quiet=True), start=lambda place, log: Interrupted(1, place))
    assert caught.value.exit_code == 130
    assert lines_of(store) == ["0000-s0"]


def test_the_trials_of_a_killed_leader_are_gone_on_with(experiment: Path) -> None:
    """A row is taken from the log where a leader died behind its worker."""
    study, store = opened(experiment, "0.5,1.0")
    rows, _ = run_stubs(study, store, 2)
    again, _ = run_stubs(study, store, 2)
    assert again == rows
    assert Trial(0, {"optim.lr": 0.5}, 0).name in {row["trial"] for row in again}


def test_values_that_do_not_go_together_are_a_row_and_the_study_goes_on(experiment: Path) -> None:
    grid = ["optim.lr=0.5", "split.val_fraction=0.2,0.0", "train.patience=null,3"]
    study, store = open_study(experiment, grid=grid, runs_dir=experiment.parent / "runs")
    rows = {row["trial"]: row for row in run_stubs(study, store, 2)[0]}
    assert {name: row["state"] for name, row in rows.items()} == {f"000{n}-s0": "failed" if n == 3 else "finished" for n in range(4)}
    assert rows["0003-s0"]["why"].endswith("nothing is validated; set split.val_fraction above 0, or train.patience=null")
