"""One training in several ranks as actors of a Ray cluster (F10). Ray takes seconds to start, so one cluster serves the file."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firstlight as fl
from tests.engine.test_distributed import ENDLESS, FIXED, SMALL, errors_in, finish, is_alive, rows_of, torchrun, wait_for_step

pytest.importorskip("ray")

CLUSTER = """
import os, sys
from firstlight.engine.ray_cluster import Cluster
cluster = Cluster(instead="nothing")
address = cluster.ray.get_runtime_context().gcs_address
print(address, os.environ["RAY_AUTH_TOKEN"], file=sys.stderr, flush=True)
sys.stdin.read()
cluster.close()
"""
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which a command finds a cluster of this machine, with a token of its own."""
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=PLAIN, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as head:
        assert head.stderr is not None and head.stdin is not None
        address, token = next(line.split() for line in head.stderr if ":" in line)
        yield {**PLAIN, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        head.stdin.close()


def begin(*words: str, cwd: Path, cluster: dict[str, str]) -> subprocess.Popen[str]:
    """Start `firstlight train quickstart WORDS --workers ray` with pipes, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "firstlight", "train", *words, "--workers", "ray"],
        cwd=cwd,
        env={**cluster, "FIRSTLIGHT_CACHE": str(cwd / "cache"), "FIRSTLIGHT_RUNS": str(cwd / "runs")},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks_in(folder: Path) -> dict[int, int]:
    """Return the process of each rank that was started for this folder."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            entries = dict(entry.split(b"=", 1) for entry in (place / "environ").read_bytes().split(b"\0") if b"=" in entry)
        except OSError:
            continue
        if entries.get(b"FIRSTLIGHT_RUNS") == str(folder / "runs").encode() and b"FIRSTLIGHT_LAUNCH" in entries:
            found[int(entries[b"RANK"])] = int(place.name)
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def weights_of(run: Path) -> bytes:
    folder: str = json.loads((run / "checkpoints" / "last.json").read_text())["folder"]
    return (run / "checkpoints" / folder / "model.safetensors").read_bytes()


def test_actors_train_as_torchrun_does_and_survive_a_kill(cluster: dict[str, str], tmp_path: Path) -> None:
    """F10, F3, fault 28: SIGKILL of an actor; its rank goes with it, the other saves and says so; resumed, the bits are torchrun's."""
    run, whole = tmp_path / "runs" / "run", tmp_path / "runs" / "whole"
    words = ["quickstart", *SMALL, "train.epochs=60"]
    agent = torchrun("train", *words, "--name", "whole", cwd=tmp_path)
    gang = begin(*words, "--ranks", "2", "--name", "run", cwd=tmp_path, cluster=cluster)
    wait_for_step(run, 6, [gang.pid])
    ranks = ranks_in(tmp_path)
    os.kill(parent_of(ranks[1]), signal.SIGKILL)
    out, err = gang.communicate(timeout=30)
    (line,) = errors_in(err.splitlines())
    assert gang.returncode == 1 and out == ""
    assert "warning: the Ray actor of rank 1 was killed, or its machine is down" in err
    assert "interrupted, saved; checkpoint step-" in line
    assert line.endswith(f"go on with: firstlight train --resume {run} --workers ray --ranks 2")
    assert sorted(ranks) == [0, 1] and not any(map(is_alive, ranks.values()))
    assert fl.load_run(run).state == "interrupted" and len(fl.load_run(run).epochs) < 60
    going_on = begin("--resume", "run", "--json", cwd=tmp_path, cluster=cluster)
    out, err = going_on.communicate(timeout=100)
    assert going_on.returncode == 0, err
    assert json.loads(out)["run"] == str(run), "stdout holds one JSON object and nothing else"
    code, said = finish(agent)
    assert code == 0, said
    assert fl.load_run(run).info["ranks"] == 2
    assert rows_of(run) == rows_of(whole)
    assert weights_of(run) == weights_of(whole)


def test_ctrl_c_saves_and_a_lost_rank_0_is_said_by_the_driver(cluster: dict[str, str], tmp_path: Path) -> None:
    """Fault 6, fault 28: Ctrl-C in the terminal saves; without rank 0 the driver says how to go on; nobody is left."""
    run = tmp_path / "runs" / "run"
    gang = begin("quickstart", *ENDLESS, "--ranks", "2", "--name", "run", cwd=tmp_path, cluster=cluster)
    wait_for_step(run, 6, [gang.pid])
    ranks = ranks_in(tmp_path)
    os.killpg(gang.pid, signal.SIGINT)
    _, err = gang.communicate(timeout=30)
    (line,) = errors_in(err.splitlines())
    assert gang.returncode == 130 and "interrupted, saved; checkpoint step-" in line and err.count("stopping after this step") == 1
    assert len(ranks) == 2 and not any(map(is_alive, ranks.values()))
    before = fl.load_run(run).steps[-1]["step"]
    gang = begin("--resume", "run", cwd=tmp_path, cluster=cluster)
    wait_for_step(run, before + 6, [gang.pid])
    ranks = ranks_in(tmp_path)
    os.kill(parent_of(ranks[0]), signal.SIGKILL)
    _, err = gang.communicate(timeout=30)
    (line,) = errors_in(err.splitlines())
    assert gang.returncode == 1 and line.startswith("error: rank 0 was lost with its Ray actor")
    assert line.endswith("go on with: firstlight train --resume run --workers ray")
    assert len(ranks) == 2 and not any(map(is_alive, ranks.values()))


def test_a_killed_driver_leaves_nobody(cluster: dict[str, str], tmp_path: Path) -> None:
    """Fault 28: SIGKILL of the command itself; Ray ends its actors, and with them the ranks."""
    run = tmp_path / "runs" / "run"
    gang = begin("quickstart", *ENDLESS, "--ranks", "2", "--name", "run", cwd=tmp_path, cluster=cluster)
    wait_for_step(run, 6, [gang.pid])
    ranks = ranks_in(tmp_path)
    gang.kill()
    gang.communicate()
    deadline = time.monotonic() + 30
    while any(map(is_alive, ranks.values())) or fl.load_run(run).state == "running":  # a dying process holds its lock a little longer
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(ranks) == 2 and fl.load_run(run).state == "interrupted"


def test_ranks_without_a_place_are_refused_at_once(cluster: dict[str, str], tmp_path: Path) -> None:
    """F10: all or none; what is missing is one line, and nothing was written."""
    num = (os.cpu_count() or 1) + 1
    gang = begin("quickstart", FIXED, "--ranks", str(num), cwd=tmp_path, cluster=cluster)
    out, err = gang.communicate(timeout=60)
    assert gang.returncode == 2 and out == ""
    assert err == f"error: {num} ranks need a CPU each, and the Ray cluster has {num - 1} CPUs; set --ranks lower, or add machines to it\n"
    assert not (tmp_path / "runs").exists()
