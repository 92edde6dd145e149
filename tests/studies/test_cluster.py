"""Trials as Ray tasks on a local cluster with a token. Ray takes 10 s to start, so one cluster serves the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_without_ray_there_is_one_line(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # leaves the environment as it is
    study, store = open_study(experiment, grid=["optim.lr=0.1,0.2"], runs_dir=experiment.parent)
    with pytest.raises(ConfigError, match=r'--workers ray needs Ray, which is not installed; pip install "firstlight\[ray\]"'):
        run_study(study, store, Console(quiet=True), workers="ray")
