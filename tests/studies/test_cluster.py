"""Trials as Ray tasks on a local cluster with a token. Ray takes 10 s to start, so one cluster serves the file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.errors import ConfigError
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.store import Store
from firstlight.tracking.console import Console
from tests.studies.conftest import Sweep

COMMAND = [sys.executable, "-m", "firstlight", "sweep"]


def test_a_study_goes_on_on_a_cluster_without_a_change_to_its_file(experiment: Path, sweep: Sweep) -> None:
    """F10: begun by this process, gone on with as Ray tasks; the rows are those of a study that never left this process."""
    pytest.importorskip("ray")
    file = experiment.with_name("lr.yaml")
    file.write_text("base: tiny.yaml\nspace: {optim.lr: [0.01, 0.1, 0.5, 1e30]}\n")
    _, whole = sweep(source=file, name="whole")
    study, store = open_study(file, ["budget.seconds=1e-9"], runs_dir=whole.path.parent)
    assert run_study(study, store, Console(quiet=True)) == []
    words = [str(file), "--runs-dir", str(whole.path.parent), "--workers", "ray", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 4

    def plain(store: Store) -> list[dict[str, object]]:
        return sorted(({**row, "seconds": 0, "why": ""} for row in store.rows()), key=lambda row: row["trial"])

    assert plain(store) == plain(whole)


@pytest.mark.soak
def test_a_killed_task_is_gone_on_with_and_sigterm_saves(experiment: Path, tmp_path: Path) -> None:
    """Fault 47 on a cluster: the trial of a killed task goes on from its checkpoint; a leader that is stopped lets all of them save."""
    pytest.importorskip("ray")
    words = ["--grid", "optim.lr=0.05,0.1", "train.epochs=100000", "--name", "long", "--workers", "ray", "--runs-dir", str(tmp_path)]
    runs = [tmp_path / "long" / f"000{point}-s0" for point in range(2)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen([*COMMAND, str(experiment), *words], env=environment, stderr=subprocess.PIPE, text=True) as leader:
        while leader.poll() is None and not all(list(run.glob("checkpoints/step-*")) for run in runs):
            time.sleep(0.1)
        killed = holder_of(runs[0])
        os.kill(killed, signal.SIGKILL)
        while leader.poll() is None and holder_of(runs[0]) == killed:
            time.sleep(0.1)
        while leader.poll() is None and not fl.load_run(runs[0]).info.get("resumes"):
            time.sleep(0.1)
        leader.send_signal(signal.SIGTERM)
        _, said = leader.communicate()
    assert leader.returncode == 143
    assert said.splitlines()[-1].endswith("was interrupted, 0 of 2 trials are done; give the same command to go on")
    assert [fl.load_run(run).info["state"] for run in runs] == ["interrupted"] * 2


def holder_of(run: Path) -> int:
    """The process that trains a run; 0 while it writes its name."""
    return int("".join((run / "run.lock").read_text().split()[1:2]) or 0)


def test_without_ray_there_is_one_line(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # leaves the environment as it is
    study, store = open_study(experiment, grid=["optim.lr=0.1,0.2"], runs_dir=experiment.parent)
    with pytest.raises(ConfigError, match=r'--workers ray needs Ray, which is not installed; pip install "firstlight\[ray\]"'):
        run_study(study, store, Console(quiet=True), workers="ray")
