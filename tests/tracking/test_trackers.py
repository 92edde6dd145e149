"""A11, E11: TensorBoard and Weights & Biases are told all of a run and can do nothing to it; their own readers look at what was written."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from firstlight.errors import ConfigError, InterruptedRunError
from firstlight.files import sha256_of_file
from firstlight.studies.runner import open_study, run_study
from firstlight.tracking.console import Console
from firstlight.tracking.family import MARK as FAMILY_MARK
from firstlight.tracking.family import marked_environment, members, new_mark
from firstlight.tracking.run import Run
from firstlight.tracking.tensorboard import TensorBoard, event_files
from firstlight.tracking.told import Tail, figures, hyperparameters, scalars
from firstlight.tracking.weights_and_biases import WeightsAndBiases, settle_mode
from firstlight.tracking.writer import RunWriter
from tests.tracking.readers import event_accumulator, hparams_table, wandb_files, wandb_records, wandb_run

SMALL = """
data: digits
model: {name: mlp, hidden: [16]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
split: {num_train: 200}
train: {epochs: 2, batch_size: 50}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""
BOTH = ("tracking.tensorboard=true", "tracking.wandb=offline")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "small.yaml").write_text(SMALL)
    return folder


MARK = "FIRSTLIGHT_TEST_OF_TRACKERS"


@pytest.fixture(scope="module", autouse=True)
def mark() -> Iterator[str]:
    """A word in the environment of every process that is started here, by wandb too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, uuid4().hex)
        yield os.environ[MARK]


@pytest.fixture(autouse=True)
def nothing_is_left(mark: str) -> Iterator[None]:
    """A11: behind each test no process of a tracker lives, be it in another session, stopped, or of a parent that is gone."""
    yield
    left = {number: command_line(number) for number in with_in_environment(f"{MARK}={mark}")}
    for number in left:  # or the tests that follow would find it, too
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)
    assert left == {}


def with_in_environment(word: str) -> list[int]:
    """Return the ids of the living processes that were started with this in their environment; this one was not."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if word.encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def command_line(number: int) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "has ended since"


def trained(place: Path, name: str, *overrides: str, console: Console | None = None) -> Run:
    return fl.train(place / "small.yaml", *overrides, name=name, runs_dir=place / "runs", console=console or Console(quiet=True))


@pytest.fixture(scope="module")
def plain(place: Path) -> Run:
    return trained(place, "plain")


@pytest.fixture(scope="module")
def tracked(place: Path) -> Run:
    """Return a run of 2 epochs that was told to both trackers, and was resumed for a third."""
    run = trained(place, "tracked", *BOTH, "tracking.project=digits", "tracking.entity=us")
    first = wandb_files(run.path)
    fl.resume(run.path, "train.epochs=3", console=Console(quiet=True))
    assert len(first) == 1
    return Run(run.path)


def weights(run: Run) -> str:
    best = max((run.path / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    return sha256_of_file(best / "model.safetensors")


def told_rows(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return what metrics.jsonl says by tag: steps and numbers."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in run.rows:
        for tag, number in scalars(row).items():
            found.setdefault(tag, []).append((row["step"], number))
    return found


def test_a_training_is_the_same_with_and_without_trackers(plain: Run, place: Path) -> None:
    """A11: watching changes nothing; the weights have the same hash, and neither package is imported where the network trains."""
    code = f"""
import sys, firstlight as fl
from firstlight.tracking.console import Console
fl.train({str(place / "small.yaml")!r}, *{BOTH!r}, name="watched", runs_dir={str(place / "runs")!r}, console=Console(quiet=True))
print([name for name in ("wandb", "tensorboard", "google.protobuf") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    watched = Run(place / "runs" / "watched")
    assert weights(watched) == weights(plain)
    assert [scalars(row) for row in watched.steps] == [scalars(row) for row in plain.steps]
    assert watched.info["warnings"] == plain.info["warnings"] if "warnings" in plain.info else "warnings" not in watched.info
    assert event_files(watched.path) and wandb_files(watched.path)


def test_tensorboard_finds_every_number_once(tracked: Run) -> None:
    """E11: its EventAccumulator reads each number of metrics.jsonl at its step, as the float32 that it keeps; also behind a resume."""
    found = event_accumulator(tracked.path)
    said = told_rows(tracked)
    assert {"loss/train", "loss/val", "accuracy/train", "accuracy/val", "loss/step", "step/lr", "epoch/lr"} <= said.keys()
    for tag, numbers in said.items():
        assert [(event.step, event.value) for event in found.Scalars(tag)] == [(step, float(np.float32(value))) for step, value in numbers]
    came_to = figures(tracked)
    assert came_to["best/val_accuracy"] == tracked.summary["val_accuracy"]
    assert {tag: found.Scalars(tag)[0].value for tag in came_to} == pytest.approx(came_to, rel=1e-6)
    assert set(found.Tags()["scalars"]) == said.keys() | came_to.keys()
    assert len(event_files(tracked.path)) == 1


def test_tensorboard_finds_every_hyperparameter_and_fills_the_columns_of_metrics(tracked: Run, place: Path) -> None:
    """E11: the backend of its tab HPARAMS, in this process."""
    settings, metrics, rows = hparams_table(tracked.path.parent)
    values, numbers = rows["tracked"]
    wanted = hyperparameters(tracked)
    assert wanted["optim.lr"] == 0.1
    assert wanted["train.epochs"] == 3
    assert values == wanted
    assert set(wanted) <= set(settings)
    assert set(metrics) == told_rows(tracked).keys() | figures(tracked).keys()
    assert numbers["best/val_accuracy"] == pytest.approx(tracked.summary["val_accuracy"], rel=1e-6)


def test_tensorboard_shows_the_pictures(tracked: Run) -> None:
    found = event_accumulator(tracked.path)
    assert sorted(found.Tags()["images"]) == ["pictures/curves", "pictures/steps"]
    [shown] = found.Images("pictures/curves")
    with Image.open(tracked.path / "curves.png") as picture:
        assert (shown.width, shown.height) == picture.size
    assert shown.encoded_image_string == (tracked.path / "curves.png").read_bytes()


def test_wandb_finds_every_number_once_and_the_whole_config(tracked: Run) -> None:
    """A11: the files of both processes are of one run, and hold each row of metrics.jsonl exactly, under a number of its own."""
    parts = [wandb_run(path) for path in wandb_files(tracked.path)]
    assert len(parts) == 2
    assert {(run.run_id, run.project, run.entity, run.display_name) for run, *_ in parts} == {
        (tracked.info["wandb_id"], "digits", "us", "tracked")
    }
    history = [row for _, _, rows, _ in parts for row in rows]
    numbers = [row["_step"] for row in history]
    assert numbers == sorted(set(numbers))
    found: dict[str, list[tuple[int, float]]] = {}
    for row in history:
        for tag, number in row.items():
            if tag in told_rows(tracked):
                found.setdefault(tag, []).append((row["step"], number))
    assert found == told_rows(tracked)
    _, config, _, summary = parts[-1]
    assert {key: config[key] for key in tracked.config} == tracked.config
    assert config["run"]["network"] == tracked.info["network"]
    assert {tag: summary[tag] for tag in figures(tracked)} == figures(tracked)


def test_wandb_gets_neither_code_nor_the_commit_nor_figures_of_the_machine(tracked: Run) -> None:
    folder = wandb_files(tracked.path)[0].parent
    media = {path.parent.name for path in folder.rglob("*") if path.is_file() and "files" in path.parts[-5:]}
    assert not [path for path in folder.rglob("*") if path.suffix in (".py", ".patch", ".txt") and path.is_file()]
    assert not (folder / "files" / "wandb-metadata.json").exists()
    assert "pictures" in media


def test_rows_that_are_taken_back_come_anew(place: Path, plain: Run) -> None:
    """A rollback: the file that TensorBoard reads has each step once; wandb is told the new rows under new numbers."""
    with RunWriter(place / "runs" / "back", entries={"rollbacks": []}) as writer:
        writer.start((plain.path / "config.yaml").read_text())
        rows = [{"kind": "step", "step": step, "epoch": 1, "loss": 1 / step} for step in range(1, 5)]
        writer.append(rows)
        tail, run = Tail(writer.path / "metrics.jsonl"), Run(writer.path)
        board = TensorBoard(run, run.path)
        wandb = WeightsAndBiases(run, run.path, project="back", entity=None, mode="offline")
        for tracker in (board, wandb):
            tracker.add(rows)
        assert tail.look() == (rows, False)
        assert tail.look() == ([], False)
        writer.cut_rows_after(2, 0)
        writer.update(rollbacks=[{"step": 2}])
        again = [{"kind": "step", "step": step, "epoch": 1, "loss": 2.0} for step in (3, 4)]
        writer.append(again)
        assert tail.look() == (rows[:2] + again, True)
        run = Run(writer.path)
        for tracker in (board, wandb):
            tracker.begin(run)
            tracker.add(rows[:2] + again)
            tracker.end(run)
            tracker.close()
        tail.close()
    losses = [(event.step, event.value) for event in event_accumulator(run.path).Scalars("loss/step")]
    assert losses == [(1, 1.0), (2, 0.5), (3, 2.0), (4, 2.0)]
    _, _, history, _ = wandb_run(wandb_files(run.path)[0])
    assert [(row["_step"], row["step"], row["loss/step"]) for row in history] == [
        *[(step - 1, step, 1 / step) for step in range(1, 5)],
        (4, 3, 2.0),
        (5, 4, 2.0),
    ]


def processes() -> dict[int, tuple[int, str, int]]:
    """Return the living processes of this machine: the parent, the command line and the group of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                found[int(path.name)] = int(parent), (path / "cmdline").read_bytes().decode(errors="replace"), int(group)
        except OSError:
            continue
    return found


def below(parent: int, word: str) -> Iterator[int]:
    known = processes()
    for number in [number for number, (above, *_) in known.items() if above == parent]:
        if word in known[number][1]:
            yield number
        yield from below(number, word)


class Saboteur(Console):
    """A console that sends a signal to a process below this one when the first epoch ends, once that process is there."""

    def __init__(self, word: str, number: int) -> None:
        super().__init__(quiet=True)
        self.word, self.number, self.hit, self.said = word, number, 0, [""]

    def line(self, text: str, *, style: str | None = None) -> None:
        self.said.append(text)
        while text.startswith("epoch   1") and not self.hit:
            for follower in below(os.getpid(), "firstlight.tracking.follow"):
                for process in [follower] if self.word in processes()[follower][1] else below(follower, self.word):
                    self.hit = follower
                    os.kill(process, self.number)


@pytest.mark.parametrize(
    ("word", "number", "why"),
    [
        ("wandb-core", signal.SIGKILL, "Error: "),
        ("wandb-core", signal.SIGSTOP, "not done 3 s behind the end"),
        ("tracking.follow", signal.SIGKILL, "its process ended with -9"),
    ],
)
def test_a_tracker_that_dies_or_hangs_is_one_warning(place: Path, plain: Run, word: str, number: int, why: str) -> None:
    """A11: its service killed or stopped for good, or its process killed: the run ends with the same weights, and none is left over."""
    console = Saboteur(word, number)
    run = trained(
        place,
        f"struck-{len(word)}-{int(number)}",
        "tracking.wandb=offline",
        f"tracking.wait_seconds={3 if number == signal.SIGSTOP else 60}",
        console=console,
    )
    assert run.state == "finished"
    assert weights(run) == weights(plain)
    assert [row["loss"] for row in run.steps] == [row["loss"] for row in plain.steps]
    warned = [entry["says"] for entry in Run(run.path).info["warnings"] if entry["kind"] == "tracking"]
    assert len(warned) == 1
    assert f"warning: {warned[0]}" in console.said
    assert warned[0].startswith("Weights & Biases: ")
    assert why in warned[0]
    assert warned[0].endswith(f"`firstlight export-logs {run.path} --to wandb` hands it over")


class Breaker(Console):
    """A console at which the first epoch ends the training, once the service of wandb is there."""

    def __init__(self, mark: str, error: type[BaseException]) -> None:
        super().__init__(quiet=True)
        self.mark, self.error = mark, error

    def line(self, text: str, *, style: str | None = None) -> None:
        while text.startswith("epoch   1"):
            if any("wandb-core" in command_line(number) for number in with_in_environment(f"{MARK}={self.mark}")):
                raise self.error


@pytest.mark.parametrize(("error", "state", "code"), [(KeyboardInterrupt, "interrupted", 130), (RuntimeError, "failed", 1)])
def test_a_training_that_is_broken_off_takes_its_tracker_along(
    place: Path, mark: str, error: type[BaseException], state: str, code: int
) -> None:
    """A11: wandb is told how it ended, and its service is gone when the training is (nothing_is_left looks)."""
    with pytest.raises((error, InterruptedRunError)):
        trained(place, state, "tracking.wandb=offline", console=Breaker(mark, error))
    run = Run(place / "runs" / state)
    assert run.state == state
    assert "warnings" not in run.info
    ends = [record.exit.exit_code for record in wandb_records(wandb_files(run.path)[0]) if record.WhichOneof("record_type") == "exit"]
    assert ends == [code]


FAMILY = """
import signal, subprocess, sys
from firstlight.tracking.family import end_own_family
far = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
far.send_signal(signal.SIGSTOP)
print(far.pid, flush=True)
end_own_family()
"""


def test_a_tracker_without_a_training_ends_all_that_its_library_started() -> None:
    """A11: its own way out, where nobody is left to end it: also a stopped process in a session of its own."""
    name = new_mark()
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], env=marked_environment(name), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        far = int(process.stdout.readline())
        assert process.wait(60) == -signal.SIGKILL
    assert far not in with_in_environment(f"{FAMILY_MARK}={name}")
    assert members(name) == []


def test_a_service_that_the_user_works_with_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A11: wandb names its service in the environment; the process of a tracker gets another one."""
    monkeypatch.setenv("WANDB_SERVICE", "of the user")
    assert "WANDB_SERVICE" not in marked_environment(new_mark())


def test_a_full_disk_ends_the_tracker_and_not_the_training(place: Path, plain: Run) -> None:
    """Fault 1 for trackers: no byte of the event file can be written."""
    path = place / "runs" / "full"
    environment = {**os.environ, "FIRSTLIGHT_FAILPOINT": "ENOSPC:from:1:events.out"}
    words = ["train", str(place / "small.yaml"), "tracking.tensorboard=true", "--name", "full", "--runs-dir", str(place / "runs")]
    done = subprocess.run([sys.executable, "-m", "firstlight", *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: TensorBoard: StorageError: cannot write") == 1
    assert "the disk is full; free some space; the training is whole, and `firstlight export-logs" in done.stderr
    assert weights(Run(path)) == weights(plain)


def test_the_trials_of_a_study_share_a_group_and_a_table(place: Path) -> None:
    """E11, A11: lanes too; each trial is told to both trackers when it has ended, and TensorBoard has the axes first."""
    study, store = open_study(place / "small.yaml", BOTH, grid=["optim.lr=0.01,0.1"], name="study", runs_dir=place / "studies")
    run_study(study, store, Console(quiet=True), lanes="on")
    runs = [Run(store.run_path(trial)) for trial in study.trials()]
    settings, metrics, rows = hparams_table(store.path)
    assert settings[0] == "optim.lr"
    assert metrics[0] == "best/val_accuracy"
    assert "best/val_loss" in metrics
    for run in runs:
        values, numbers = rows[run.name]
        assert values == hyperparameters(run)
        assert set(values) <= set(settings)
        assert numbers == pytest.approx({tag: number for tag, number in figures(run).items() if tag in metrics}, rel=1e-6)
        [path] = wandb_files(run.path)
        told, _, history, _ = wandb_run(path)
        assert (told.run_group, told.job_type, told.display_name) == ("study", "trial", f"study/{run.name}")
        assert [row["loss/step"] for row in history if "loss/step" in row] == [row["loss"] for row in run.steps]
    before = {path: path.stat().st_mtime_ns for run in runs for path in (*event_files(run.path), *wandb_files(run.path))}
    run_study(study, store, Console(quiet=True), lanes="on")
    assert before == {path: path.stat().st_mtime_ns for run in runs for path in (*event_files(run.path), *wandb_files(run.path))}


@pytest.mark.parametrize(
    ("mode", "environment", "has_netrc", "settled"),
    [
        ("auto", {}, False, "offline"),
        ("auto", {}, True, "online"),
        ("auto", {"WANDB_API_KEY": "0" * 40}, False, "online"),
        ("auto", {"WANDB_MODE": "offline"}, True, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, True, "off"),
        ("auto", {"WANDB_BASE_URL": "https://wandb.example.org"}, True, "offline"),
        ("offline", {"WANDB_MODE": "online"}, True, "offline"),
        ("online", {}, True, "online"),
    ],
)
def test_the_mode_is_settled_before_anything_is_sent(
    mode: str, environment: dict[str, str], has_netrc: bool, settled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_login(tmp_path, monkeypatch)
    if has_netrc:
        (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'0' * 40}\n")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert settle_mode(mode) == settled


def without_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_online_without_a_login_is_refused_before_the_training(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_login(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"has no login here; run `wandb login`, .* or set tracking\.wandb=offline$"):
        trained(place, "refused", "tracking.wandb=online")
    assert not (place / "runs" / "refused").exists()


@pytest.mark.parametrize(("package", "setting"), [("tensorboard", "tracking.tensorboard=true"), ("wandb", "tracking.wandb=offline")])
def test_a_missing_package_is_one_line_that_names_the_extra(
    package: str, setting: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither package is needed; a folder that wandb leaves where it ran is not taken for it."""
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / package).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf'is not installed; pip install "firstlight\[{package}\]", or set tracking\.{package}='):
        trained(place, "missing", setting)


def test_tracking_may_change_when_a_run_is_resumed(tracked: Run) -> None:
    """The run of the fixture began with both; its settings of tracking are harmless, so no --override is needed."""
    run = fl.resume(tracked.path, "train.epochs=4", "tracking.wandb=off", "tracking.tensorboard=false", console=Console(quiet=True))
    assert (len(run.epochs), run.state) == (4, "finished")
    assert any("tracking.wandb" in entry["changed"] for entry in Run(run.path).info["resumes"])
