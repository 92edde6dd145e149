"""No kill and no disk error costs a checkpoint: real trainings, killed at every file operation and at random instants (F3)."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import firstlight as fl
from firstlight import files
from firstlight.engine.checkpoint import find_checkpoint, newest_whole, read_checkpoint
from firstlight.tracking.console import Console

CONFIG = """
data: digits
model: {name: mlp, hidden: [8], dropout: 0.2}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
schedule: cosine
split: {num_train: 96}
augment: {crop: 1}
train: {epochs: 2, batch_size: 32, log_every: 2, ema_decay: 0.9}
checkpoint: {every_steps: 2}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""
STEPS = 6
SIGKILL = -9

Fork = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fork]:
    """Return `fork(runs_dir, name, *overrides, resume=..., failpoint=..., kill_after=...)`: one training in a process of its own."""
    config = tmp_path_factory.mktemp("forker") / "small.yaml"
    config.write_text(CONFIG)
    script = Path(__file__).with_name("forker.py")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(runs_dir: Path, name: str, *overrides: str, **request: Any) -> dict[str, Any]:
            assert process.stdin is not None and process.stdout is not None
            asked = {"config": str(config), "runs_dir": str(runs_dir), "name": name, "overrides": overrides, **request}
            print(json.dumps(asked), file=process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(fork: Fork, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What a run that nothing disturbed ends with, and the kind of each of its file operations."""
    runs_dir = tmp_path_factory.mktemp("whole")
    answer = fork(runs_dir, "run")
    assert answer["exit"] == 0, answer
    return ending(runs_dir / "run"), answer["operations"]


def ending(run: Path) -> dict[str, Any]:
    """Return all that must be equal at the end of a run: every byte of its checkpoints, every row but for its times."""
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "memory_mib")} for row in fl.load_run(run).rows]
    tensors = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.glob("checkpoints/step-*/*.safetensors")
    }
    pointers = {path.name: path.read_text() for path in run.glob("checkpoints/*.json")}
    summary = {key: value for key, value in fl.load_run(run).summary.items() if key != "seconds"}
    return {"rows": rows, "tensors": tensors, "pointers": pointers, "summary": summary, "state": fl.load_run(run).state}


def check_checkpoints(run: Path, saved: list[int]) -> None:
    """Fault 1, 3: what was acknowledged is there, whole; `last` and `best` can be followed; nothing is half."""
    if not saved:
        return
    folder = run / "checkpoints"
    found = newest_whole(folder, pytest.fail)
    assert found is not None and found.record["position"]["step"] >= saved[-1]
    last = read_checkpoint(find_checkpoint(folder, "last"))
    assert last.record["position"]["step"] >= saved[-1]
    if last.record["best"] is not None:
        assert read_checkpoint(find_checkpoint(folder, "best")).record["position"]["step"] >= last.record["best"]["step"]
    for path in folder.glob("step-*"):
        read_checkpoint(path)


def finish(fork: Fork, runs_dir: Path, name: str, *overrides: str) -> dict[str, Any]:
    """Resume a run (or start it, where it never became one; the last kill may leave it finished), and return its ending."""
    is_run = (runs_dir / name / "run.json").exists()
    if not is_run or fl.load_run(runs_dir / name).state != "finished":
        answer = fork(runs_dir, name, *overrides, resume=is_run)
        assert answer["exit"] == 0, answer
    assert not list((runs_dir / name).rglob(f"{files.TEMPORARY}*")), "what the killed writer left is cleared away"
    return ending(runs_dir / name)


def instants(operations: list[str], every: int) -> list[int]:
    """Return the numbers of the operations that are the first of their kind, and of every so manieth."""
    first = {kind: number for number, kind in reversed(list(enumerate(operations, 1)))}
    return sorted({*first.values(), *range(every, len(operations) + 1, every)})


EVERY = pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.soak)])
"""CI tries the first operation of each kind, such as `replace step/state.json`, and every tenth of all; `make soak` tries all."""


@EVERY
@pytest.mark.parametrize("when", ["before", "half"])
def test_a_kill_at_every_file_operation_loses_nothing(
    fork: Fork, whole: tuple[dict[str, Any], list[str]], tmp_path: Path, when: str, every: int
) -> None:
    """Fault 1, fault 3: kill -9 ahead of each file operation of a whole run, and in the midst of each write; a sample of them in CI."""
    expected, operations = whole
    assert len(operations) > 100
    for place, number in enumerate(instants(operations, every)):
        if when == "half" and operations[number - 1].split()[0] not in ("write", "append"):
            continue  # what has no midst is killed ahead of it
        name = f"{when}-{number}"
        answer = fork(tmp_path, name, failpoint=f"kill:{when}:{number}")
        assert answer["exit"] == SIGKILL, (number, answer)
        check_checkpoints(tmp_path / name, answer["saved"])
        if place % 4 == 0:
            assert finish(fork, tmp_path, name) == expected, number
        shutil.rmtree(tmp_path / name, ignore_errors=True)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.soak)])
def test_kills_at_random_instants_lose_nothing(fork: Fork, tmp_path: Path, count: int) -> None:
    """Fault 1: SIGKILL from outside, while a run does little else than save."""
    draw = random.Random(count)
    killed = 0
    for number in range(count):
        name = str(number)
        answer = fork(tmp_path, name, "train.epochs=100", "checkpoint.every_steps=1", kill_after=draw.uniform(0, 0.35))
        killed += answer["exit"] == SIGKILL and bool(answer["saved"])
        check_checkpoints(tmp_path / name, answer["saved"])
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    assert killed > count / 2, "most were killed while they trained on"


@pytest.mark.parametrize("runs", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_runs_killed_five_times_end_as_if_nothing_had_been(fork: Fork, tmp_path: Path, runs: int) -> None:
    """F3, A8, fault 27: five kills at random file operations, each followed by a resume, and the bits are those of the undisturbed run."""
    longer, draw = "train.epochs=8", random.Random(runs)
    assert fork(tmp_path, "whole", longer)["exit"] == 0
    expected = ending(tmp_path / "whole")
    for number in range(runs):
        name = str(number)
        for _ in range(5):
            failpoint = f"kill:{draw.choice(['before', 'half'])}:{draw.randint(10, 70)}"
            answer = fork(tmp_path, name, longer, resume=(tmp_path / name / "run.json").exists(), failpoint=failpoint)
            assert answer["exit"] == SIGKILL, answer
        assert finish(fork, tmp_path, name, longer) == expected
        shutil.rmtree(tmp_path / name)


@EVERY
def test_a_kill_at_every_file_operation_of_a_resume_loses_nothing(
    fork: Fork, whole: tuple[dict[str, Any], list[str]], tmp_path: Path, every: int
) -> None:
    """Fault 1, fault 3: what a resume sets right, it sets right again; up to its first save; a sample of the operations in CI."""
    expected, _ = whole
    assert fork(tmp_path, "cut", failpoint="kill:before:100")["exit"] == SIGKILL
    shutil.copytree(tmp_path / "cut", tmp_path / "run")
    operations = fork(tmp_path, "run", resume=True)["operations"]
    assert ending(tmp_path / "run") == expected
    shutil.rmtree(tmp_path / "run")
    for place, number in enumerate(instants(operations[:50], every)):
        shutil.copytree(tmp_path / "cut", tmp_path / "run")
        answer = fork(tmp_path, "run", resume=True, failpoint=f"kill:before:{number}")
        assert answer["exit"] == SIGKILL, (number, answer)
        check_checkpoints(tmp_path / "run", answer["saved"])
        if place % 3 == 0:
            assert finish(fork, tmp_path, "run") == expected, number
        shutil.rmtree(tmp_path / "run")


def test_kills_do_not_change_where_a_training_rolls_back_to(fork: Fork, tmp_path: Path) -> None:
    """Fault 24 with fault 1: killed before, in and after the roll-back, it goes the same way to the end."""
    words = ["optim={name: sgd, lr: 2.0e+10}", "schedule=constant", "train.on_divergence=rollback", "train.log_every=1", "augment.crop=0"]
    words += ["checkpoint.every_steps=null"]
    whole = fork(tmp_path, "whole", *words)
    assert whole["exit"] == 0, whole
    expected = ending(tmp_path / "whole")
    assert fl.load_run(tmp_path / "whole").info["rollbacks"]
    for number in range(12, len(whole["operations"]), 17):
        assert fork(tmp_path, "run", *words, failpoint=f"kill:before:{number}")["exit"] == SIGKILL
        assert finish(fork, tmp_path, "run", *words) == expected, number
        assert len(fl.load_run(tmp_path / "run").info["rollbacks"]) == len(fl.load_run(tmp_path / "whole").info["rollbacks"])
        shutil.rmtree(tmp_path / "run")


@EVERY
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_an_error_of_the_disk_at_every_operation_loses_nothing(
    fork: Fork, whole: tuple[dict[str, Any], list[str]], tmp_path: Path, error: str, every: int
) -> None:
    """Fault 7, fault 8, fault 10: one operation fails; the run ends well, or with one line and exit 5, and can be resumed.

    A sample of the operations in CI.
    """
    expected, operations = whole
    finished, tried = 0, instants(operations, every)
    for place, number in enumerate(tried):
        name = str(number)
        answer = fork(tmp_path, name, failpoint=f"{error}:at:{number}")
        assert answer["exit"] in (0, 5), (number, answer)
        assert answer["exit"] == 0 or answer["error"].startswith("StorageError: cannot "), answer
        check_checkpoints(tmp_path / name, answer["saved"])
        finished += answer["exit"] == 0
        if answer["exit"] == 5 and place % 2:
            assert finish(fork, tmp_path, name)["rows"] == expected["rows"]
        elif answer["exit"] == 0:
            assert ending(tmp_path / name)["rows"] == expected["rows"]
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    assert finished > len(tried) / 2, "most errors cost nothing but a warning"


def test_a_disk_that_stays_full_ends_the_run_after_three_saves(fork: Fork, tmp_path: Path) -> None:
    """Fault 7: warn, keep the old checkpoint, train on; exit 5 after the third failed save in a row."""
    answer = fork(tmp_path, "run", "checkpoint.every_steps=1", "train.epochs=9", failpoint="ENOSPC:from:40:step-")
    assert answer["exit"] == 5
    assert "the disk is full; free some space" in answer["error"] and "checkpoint step-" in answer["error"]
    assert "is kept; go on with: firstlight train --resume" in answer["error"]
    check_checkpoints(tmp_path / "run", answer["saved"])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "failed save 1 of 3" in log and "failed save 2 of 3" in log
    assert fl.load_run(tmp_path / "run").state == "failed"
    assert fl.resume(tmp_path / "run", console=Console(quiet=True)).state == "finished"


REAL = {
    "quickstart": (["train.epochs=100", "checkpoint.every_steps=10"], 10),
    "lenet": (["train.epochs=2", "split.num_train=20000", "checkpoint.every_steps=20"], 20),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", REAL)
def test_a_real_training_killed_in_a_loop_ends_bit_equal(name: str, shared_data: Path, tmp_path: Path) -> None:
    """F3, A8: `firstlight train` in a process of its own, SIGKILL every few seconds; none costs more than the steps since the last save."""
    overrides, every = REAL[name]
    words = [name, *overrides, "device={name: cpu, precision: float32, memory_format: contiguous, threads: 1}", "train.test_at_end=false"]
    assert train_real(words, tmp_path, shared_data, "whole") == 0
    draw, attempts, kills, lost = random.Random(0), 0, 0, []
    cut = tmp_path / "cut"
    while not (cut / "run.json").exists() or fl.load_run(cut).state != "finished":
        start = ["--resume", str(cut)] if (cut / "run.json").exists() else [*words, "--name", "cut"]
        attempts += 1
        code = train_real(start, tmp_path, shared_data, kill_after=draw.uniform(4, 8) + attempts / 2)
        assert code in (0, SIGKILL)
        if code == SIGKILL and (cut / "metrics.jsonl").exists() and fl.load_run(cut).steps:
            kills += 1
            found = newest_whole(cut / "checkpoints", pytest.fail)
            reached = fl.load_run(cut).steps[-1]["step"]
            lost.append(reached - (found.record["position"]["step"] if found else 0))
    assert kills >= 3 and max(lost) <= every, (kills, lost)
    assert ending(cut) == ending(tmp_path / "whole")


def train_real(words: list[str], runs_dir: Path, data_dir: Path, name: str | None = None, *, kill_after: float | None = None) -> int:
    """Run the command `train`; kill it after some seconds where asked; return its exit code."""
    command = [sys.executable, "-m", "firstlight", "train", *words, "--runs-dir", str(runs_dir), "--data-dir", str(data_dir)]
    with subprocess.Popen([*command, *(["--name", name] if name else [])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
