"""The commands as a user meets them: what they print, what they leave behind, what they refuse and with which exit code.

Real child processes where a process is at stake; elsewhere the same `main` in this one.
"""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from firstlight import files
from firstlight.__main__ import main
from firstlight.config.schema import Kind
from firstlight.data.build import load_part
from firstlight.engine import train as engine
from firstlight.engine.checkpoint import find_checkpoint
from firstlight.tracking.run import Run

NETWORK = ["model=linear", "train.test_at_end=false"]
LINEAR = [*NETWORK, "train.epochs=2"]
"""The quickstart with a network that trains in a tenth of a second."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout must be."""
        assert self.out.count("\n") == 1, self.out
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


Command = Callable[..., Outcome]


def start(*words: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Start `python -m firstlight ...` with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "firstlight", *words],
        cwd=cwd,
        env={**os.environ, **env},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=60)
    return Outcome(process.returncode, out, err)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test stands in an empty folder, with its own cache and no data but those of the package."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FIRSTLIGHT_DATA", "FIRSTLIGHT_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "here"


@pytest.fixture
def firstlight(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            main(list(words))
        except SystemExit as left:
            code = int(left.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(firstlight: Command, place: Path) -> Callable[..., str]:
    """Run a command line that must be refused: its code, one line on stderr with these words in it, nothing written."""

    def call(code: int, *words: str, says: tuple[str, ...]) -> str:
        before = sorted(place.rglob("*"))
        outcome = firstlight(*words)
        assert (outcome.code, outcome.out) == (code, "")
        assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, outcome.err
        assert [text for text in says if text not in outcome.err] == []
        assert sorted(place.rglob("*")) == before
        return outcome.err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A folder of runs with the run `first` in it, trained by a child process, and what that printed."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", "model=linear", "train.epochs=2", "--name", "first", "--note", "a first try", "--json"]
    return folder / "runs", finish(start(*words, cwd=folder, FIRSTLIGHT_CACHE=str(folder / "cache")))


@pytest.fixture
def run(trained: tuple[Path, Outcome], place: Path) -> Path:
    """A copy of the trained run as runs/first, for a test to change."""
    shutil.copytree(trained[0] / "first", place / "runs" / "first")
    return Path("runs/first")


def info_of(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "run.json").read_text())
    return value


def write_mnist(folder: Path, prefix: str, num: int = 40, *, labels: list[int] | None = None) -> None:
    """Write images of MNIST's form: one bright row, whose height is the label."""
    chosen = np.array(labels if labels is not None else [index % 10 for index in range(num)], np.uint8)
    images = np.zeros((len(chosen), 28, 28), np.uint8)
    images[np.arange(len(chosen)), chosen.astype(int) * 2 + 3] = 255
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, len(chosen), 28, 28) + images.tobytes())
    (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(chosen)) + chosen.tobytes())


def write_kaggle(folder: Path, part: str, labels: list[int]) -> None:
    """Write a digit CSV as Kaggle has it: train.csv with labels, test.csv without."""
    columns = ["label"] * (part == "train") + [f"pixel{number}" for number in range(784)]
    (folder / "digit-recognizer").mkdir(parents=True, exist_ok=True)
    with (folder / "digit-recognizer" / f"{part}.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(columns)
        rows.writerows([[label] * (part == "train") + [label * 25] * 784 for label in labels])


def write_photos(folder: Path, num: int = 12) -> Path:
    """Write a folder of two classes: red images and blue ones, 8 x 8."""
    for name, color in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
        (folder / name).mkdir(parents=True)
        for index in range(num):
            Image.new("RGB", (8, 8), tuple(max(value - index, 0) for value in color)).save(folder / name / f"{index}.png")
    return folder


# What each command prints and leaves behind


def test_train_prints_one_json_object_and_a_line_an_epoch(trained: tuple[Path, Outcome]) -> None:
    """A7."""
    runs, outcome = trained
    assert outcome.code == 0
    assert set(outcome.json) >= {"run", "val_accuracy", "val_loss", "test_accuracy", "best_epoch", "epochs", "seconds", "files"}
    assert outcome.json["run"] == "runs/first" and outcome.json["epochs"] == 2
    assert all((runs.parent / file).stat().st_size > 1000 for file in outcome.json["files"])
    epochs = [line.split() for line in outcome.err.splitlines() if line.startswith("epoch ")]
    assert [line[1] for line in epochs] == ["1", "2"]
    assert all({"train", "val", "loss", "accuracy", "lr"} <= set(line) for line in epochs)
    assert "test accuracy" in outcome.err and "runs/first/curves.png" in outcome.err


def test_a_plain_train_says_where_its_run_is(firstlight: Command, place: Path) -> None:
    outcome = firstlight("train", *LINEAR)
    (run,) = (place / "runs").iterdir()
    assert outcome.code == 0
    assert f"run folder: runs/{run.name}" in outcome.err and run.name.startswith("quickstart-")
    assert (run / "log.txt").read_text().count("epoch ") >= 1


def test_evaluate_val_leaves_the_test_set_sealed(firstlight: Command, run: Path, trained: tuple[Path, Outcome]) -> None:
    """D11, F4: the figures are those of the training, and nothing was opened."""
    openings = info_of(run)["test_openings"]
    result = firstlight("evaluate", "first", "--json").json
    assert set(result) >= {"run", "split", "accuracy", "loss", "num_images", "seconds", "files"}
    assert (result["run"], result["split"], result["num_images"]) == ("runs/first", "val", 144)
    assert result["accuracy"] == trained[1].json["val_accuracy"]
    assert "test_accuracy" not in result
    assert info_of(run)["test_openings"] == openings


def test_evaluate_test_is_recorded_each_time(firstlight: Command, run: Path, trained: tuple[Path, Outcome]) -> None:
    """F4: the opening by `train`, then two by `evaluate`."""
    results = [firstlight("evaluate", str(run), "--split", "test", "--json").json for _ in range(2)]
    assert [result["test_accuracy"] for result in results] == [trained[1].json["test_accuracy"]] * 2
    assert [opening["by"] for opening in info_of(run)["test_openings"]] == ["train (test_at_end)", *["evaluate (best)"] * 2]
    assert all(opening["num_images"] == 359 and opening["when"] for opening in info_of(run)["test_openings"])


def test_evaluate_prints_each_class(firstlight: Command, run: Path) -> None:
    outcome = firstlight("evaluate", str(run))
    assert outcome.out.startswith("val: accuracy 0.") and "144 images" in outcome.out
    assert sum(line.split()[:1] == [str(digit)] for digit in range(10) for line in outcome.out.splitlines()) == 10


def test_predict_agrees_with_evaluate(firstlight: Command, run: Path, place: Path) -> None:
    """D11: the test digits as files without labels get the answers that `evaluate` counts."""
    digits = load_part(Kind("digits"), "test", place)
    assert digits.labels is not None
    (place / "images").mkdir()
    for index, image in enumerate(digits.images):
        Image.fromarray(image[0].numpy()).save(place / "images" / f"{index:03}.png")
    result = firstlight("predict", "first", "images", "--out", "answers.csv", "--json").json
    right = [row["label"] == str(int(label)) for row, label in zip(result["predictions"], digits.labels, strict=True)]
    assert sum(right) / len(right) == firstlight("evaluate", "first", "--split", "test", "--json").json["accuracy"]
    assert (result["run"], result["num_images"], result["files"]) == ("runs/first", 359, ["answers.csv"])
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in result["predictions"])
    with Path("answers.csv").open(newline="") as handle:
        assert [row["label"] for row in csv.DictReader(handle)] == [row["label"] for row in result["predictions"]]


def test_predict_prints_a_line_an_image(firstlight: Command, run: Path) -> None:
    Image.new("L", (20, 20), 90).save("grey.png")
    assert [line.split()[0] for line in firstlight("predict", "first", "grey.png").out.splitlines()[2:3]] == ["grey.png"]


def test_notes_are_kept_and_shown(firstlight: Command, run: Path) -> None:
    """A6: the one of `train --note`, and one by `note`."""
    assert firstlight("note", "first", "it was good", "--json").json == {"run": "runs/first", "notes": ["a first try", "it was good"]}
    table = firstlight("runs").out
    assert "first: a first try\nfirst: it was good\n" in table
    assert firstlight("runs", "--json").json["runs"][0]["notes"] == ["a first try", "it was good"]


def test_runs_are_sorted_best_first(firstlight: Command, run: Path) -> None:
    firstlight("train", *LINEAR, "optim.lr=1e-9", "--name", "worse")
    result = firstlight("runs", "--json").json
    assert [(row["name"], row["run"]) for row in result["runs"]] == [("first", "runs/first"), ("worse", "runs/worse")]
    assert [row["name"] for row in firstlight("runs", "--sort", "started", "--json").json["runs"]] == ["worse", "first"]
    lines = firstlight("runs").out.splitlines()
    assert lines[0].split()[:2] == ["name", "val"] and [line.split()[0] for line in lines[2:4]] == ["first", "worse"]


def test_compare_draws_runs_on_the_same_axes(firstlight: Command, run: Path) -> None:
    """D14."""
    firstlight("train", *LINEAR, "optim.lr=1e-5", "--name", "slow")
    result = firstlight("compare", "first", "slow", "--out", "both.svg", "--json").json
    assert result["differences"] == {"optim.lr": [0.003, 1e-5], "train.test_at_end": [True, False]}
    assert result["files"] == ["both.svg"]
    picture = Path("both.svg").read_text()
    assert all(f"<!-- {word}" in picture for word in ("first", "slow"))
    assert "1e-05" in firstlight("compare", "first", "slow").out and Path("runs/compare.png").is_file()


def test_doctor_names_the_device_and_times_a_step(firstlight: Command) -> None:
    """A10."""
    result = firstlight("doctor", "--json").json
    assert result["device"] in ("cpu", "cuda", "mps") and result["device_name"]
    assert 0 < result["step"]["seconds"] < 60
    assert result["data"]["digits"] == "comes with the package"
    assert "data fetch mnist" in result["data"]["mnist"]
    shown = firstlight("doctor").out
    assert f"device   {result['device']} ({result['device_name']})" in shown and " ms in " in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_it_falls_back_with_a_message(firstlight: Command, refused: Callable[..., str]) -> None:
    """A10: `auto` takes the CPU and says so; asking for CUDA by name is refused."""
    if not torch.backends.mps.is_available():
        assert "everything runs on the CPU" in firstlight("doctor").out
    refused(2, "train", *LINEAR, "device.name=cuda", says=("cuda", "device.name=auto"))


def test_data_list_reads_nothing(firstlight: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A9: the data folder by option and by environment variable; a broken file is listed and not opened."""
    raw = place / "other" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setenv("FIRSTLIGHT_DATA", "elsewhere")
    assert firstlight("data", "list", "--json").json["data_dir"] == "elsewhere"
    listed = firstlight("data", "list", "--data-dir", "other", "--json").json
    where = {row["name"]: row["where"] for row in listed["sources"]}
    assert where["mnist"] == where["corrupted_mnist"] == "other/MNIST/raw"
    assert "data fetch cifar10" in where["cifar10"]
    assert "comes with the package" in firstlight("data", "list").out


def test_data_folder_by_option_and_by_environment(firstlight: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A9: the option wins."""
    write_mnist(place / "a", "train", 20)
    write_mnist(place / "b", "train", 30)
    monkeypatch.setenv("FIRSTLIGHT_DATA", "a")
    assert firstlight("data", "describe", "mnist", "--json").json["num_images"] == 20
    assert firstlight("data", "describe", "mnist", "--data-dir", "b", "--json").json["num_images"] == 30


def test_describe_kaggle_digits(firstlight: Command, place: Path) -> None:
    """E8: the class balance of train.csv."""
    write_kaggle(place, "train", [3, 1, 3, 9])
    result = firstlight("data", "describe", "kaggle_digits", "--data-dir", ".", "--json").json
    assert {row["class"]: row["images"] for row in result["classes"] if row["images"]} == {"1": 1, "3": 2, "9": 1}
    assert result["num_images"] == 4 and result["image_shape"] == [1, 28, 28]


def test_describe_a_folder_of_images(firstlight: Command, place: Path) -> None:
    """D10: class names, counts, and the sheet of labelled images."""
    write_photos(place / "photos")
    result = firstlight("data", "describe", "photos", "--out", "pictures", "--json").json
    assert [row["class"] for row in result["classes"]] == ["blue", "red"]
    assert sum(row["images"] for row in result["classes"]) == result["num_images"] == 19, "24 images less the fifth that tests"
    assert result["files"] == ["pictures/folder-sheet.png", "pictures/folder-balance.png"]
    with Image.open("pictures/folder-sheet.png") as sheet:
        assert sheet.width > 800
    assert "pictures/folder-sheet.png" in firstlight("data", "describe", "photos", "--out", "pictures").out


def test_check_lists_what_is_broken(firstlight: Command, place: Path) -> None:
    path = write_photos(place / "photos") / "red" / "3.png"
    assert firstlight("data", "check", "photos", "--json").json["findings"] == []
    path.write_bytes(path.read_bytes()[:50])
    outcome = firstlight("data", "check", "photos", "--json")
    assert outcome.code == 3
    assert [row["image"] for row in outcome.json["findings"]] == ["red/3.png"]
    assert outcome.err.count("\n") == 1 and "1 finding in photos" in outcome.err


def test_fetch_from_a_local_copy(firstlight: Command, place: Path, shared_data: Path) -> None:
    """A9: a second fetch takes what is there."""
    words = ["data", "fetch", "mnist", "--data-dir", "data", "--json"]
    result = firstlight(*words, "--from", str(shared_data / "MNIST" / "raw")).json
    assert len(result["files"]) == 4 and all(Path(file).is_file() for file in result["files"])
    assert firstlight(*words).json["files"] == result["files"]


def test_dry_run_shows_each_key_and_writes_nothing(firstlight: Command, place: Path) -> None:
    shown = firstlight("train", "--dry-run", "optim.lr=0.25").out
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("lr:"))
    assert line.split() == ["lr:", "0.25", "#", "override"]
    assert firstlight("train", "--dry-run", "optim.lr=0.25", "--json").json["optim"]["lr"] == 0.25
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    ["", "train", "evaluate", "predict", "runs", "compare", "note", "doctor", "data", "data describe", "study", "tune lr", "tune batch"],
)
def test_help_explains_every_option(firstlight: Command, words: str) -> None:
    outcome = firstlight(*words.split(), "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.startswith("Usage: firstlight") and "default: False" not in outcome.out


# Training on what is there


def test_the_same_config_trains_on_mnist(firstlight: Command, place: Path) -> None:
    """B7, F4: and without the test files, which training does not read."""
    write_mnist(place, "train", 60)
    result = firstlight("train", *LINEAR, "data=mnist", "--data-dir", ".", "--name", "m", "--json").json
    assert result["epochs"] == 2 and info_of(Path("runs/m"))["data"]["image_shape"] == [1, 28, 28]
    assert firstlight("evaluate", "m", "--data-dir", ".").code == 0
    closed = firstlight("evaluate", "m", "--split", "test", "--data-dir", ".")
    assert closed.code == 3 and "t10k-images" in closed.err
    assert info_of(Path("runs/m"))["test_openings"] == []
    write_mnist(place, "t10k", 20)
    assert firstlight("evaluate", "m", "--split", "test", "--data-dir", ".", "--json").json["num_images"] == 20
    assert len(info_of(Path("runs/m"))["test_openings"]) == 1


def test_early_stopping_restores_the_best_epoch(firstlight: Command) -> None:
    """B12: the learning rate is so large that the loss jumps up and down."""
    words = ["model=linear", "optim=sgd", "optim.lr=20", "schedule=constant", "train.monitor=val_loss", "train.patience=2"]
    outcome = firstlight("train", *words, "--name", "jumpy", "--json")
    rows = [json.loads(line) for line in Path("runs/jumpy/metrics.jsonl").read_text().splitlines()]
    losses = [row["val_loss"] for row in rows if row["kind"] == "epoch"]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 15, "the run was to stop two epochs after its best one"
    assert outcome.json["best_epoch"] == best + 1
    assert f"best epoch {best + 1}: its weights are restored" in outcome.err and "stopped early" in outcome.err
    assert firstlight("evaluate", "jumpy", "--split", "test", "--json").json["loss"] == pytest.approx(outcome.json["test_loss"], abs=1e-6)
    assert firstlight("evaluate", "jumpy", "--json").json["loss"] == pytest.approx(losses[best], abs=1e-6)
    assert firstlight("evaluate", "jumpy", "--checkpoint", "last", "--json").json["loss"] == pytest.approx(losses[-1], abs=1e-6)


def test_a_batch_larger_than_the_data_is_one_batch(firstlight: Command) -> None:
    assert firstlight("train", *LINEAR, "train.batch_size=100000", "--json").json["steps"] == 2


def test_a_diverging_run_fails_and_says_so(firstlight: Command) -> None:
    words = [*LINEAR, "optim=sgd", "optim.lr=1e39", "schedule=constant", "train.log_every=1", "checkpoint.every_steps=1"]
    outcome = firstlight("train", *words, "--name", "wild")
    assert outcome.code == 1
    last = outcome.err.splitlines()[-1]
    assert "became not finite at step 1 (epoch 1, batch 0, lr 1e+39); nothing was saved yet" in last and "smaller optim.lr" in last
    assert info_of(Path("runs/wild"))["state"] == "failed"
    assert not Path("runs/wild/checkpoints/last.json").exists() and Path("runs/wild/nan_report.json").is_file()


# Interruption


LONG = ["model=linear", "train.epochs=6", "train.batch_size=8", "train.test_at_end=false", "schedule=constant"]


@pytest.fixture
def long_run(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A child process that trains runs/long, held still by SIGSTOP soon after its first epoch."""
    process = start("train", *LONG, "--name", "long", cwd=place)
    first_save, give_up = place / "runs" / "long" / "checkpoints" / "last.json", time.monotonic() + 40
    while not first_save.is_file():
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def stop(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a process that is held still, and let it go on."""
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)


def test_sigterm_then_resume_equals_never_stopped(long_run: subprocess.Popen[str], firstlight: Command) -> None:
    """D12, fault 4, fault 13: stopped in good order, and a run folder in use; both with one child."""
    busy = firstlight("train", "--resume", "long")
    assert (busy.code, busy.err.count("\n")) == (5, 1) and f"process {long_run.pid} " in busy.err
    stop(long_run, signal.SIGTERM)
    outcome = finish(long_run)
    assert outcome.code == 143 and outcome.out == ""
    assert re.search(r"interrupted, saved; checkpoint step-\d+\S* is kept; go on with: firstlight train --resume runs/long\n$", outcome.err)
    assert "stopping after this step, then saving" in outcome.err
    assert info_of(Path("runs/long"))["state"] == "interrupted"
    resumed = firstlight("train", "--resume", "long", "--note", "went on", "--json")
    assert resumed.code == 0 and info_of(Path("runs/long"))["notes"] == ["went on"]
    whole = firstlight("train", *LONG, "--name", "whole", "--json").json
    apart = ("run", "seconds", "files")
    assert {key: value for key, value in resumed.json.items() if key not in apart} == {k: v for k, v in whole.items() if k not in apart}


def test_ctrl_c(long_run: subprocess.Popen[str], firstlight: Command) -> None:
    """Fault 5, fault 6: to the whole group of processes, as a terminal sends it."""
    os.killpg(long_run.pid, signal.SIGINT)
    long_run.send_signal(signal.SIGCONT)
    outcome = finish(long_run)
    assert outcome.code == 130 and "Traceback" not in outcome.err
    assert "firstlight train --resume runs/long" in outcome.err
    assert [(row["state"], row["epochs"] < 6) for row in firstlight("runs", "--json").json["runs"]] == [("interrupted", True)]


def presses(*operations: str) -> Callable[..., Any]:
    """Return a failpoint that presses Ctrl-C ahead of file operations on a run's rows and on run.json, such as "append", "replace"."""
    left = list(operations)

    def press(name: str, path: Path, action: Callable[[], Any], detail: Any = None) -> Any:
        target = path if detail is None or isinstance(detail, bytes) else detail
        while left and name == left[0] and target.name in ("metrics.jsonl", "run.json"):
            left.pop(0)
            signal.raise_signal(signal.SIGINT)
        return action()

    return press


@pytest.mark.parametrize("times", [2, 3])
def test_more_ctrl_c_leaves_at_once(firstlight: Command, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Fault 5: the second leaves without saving and names the last checkpoint; a third, while run.json is written, breaks no file."""
    assert firstlight("train", *NETWORK, "--name", "run", "train.epochs=1").code == 0
    monkeypatch.setattr(files, "_failpoint", presses("append", "append", *["replace"] * (times - 2)))
    outcome = firstlight("train", "--resume", "run", "train.epochs=3")
    monkeypatch.setattr(files, "_failpoint", None)
    assert outcome.code == 130 and "Traceback" not in outcome.err
    if times == 2:
        said = "error: interrupted, left at once, nothing saved; checkpoint step-21 is kept; go on with: firstlight train --resume runs/run"
        assert outcome.err.splitlines()[-1] == said
    assert firstlight("runs", "--json").json["runs"][0]["state"] == "interrupted"
    assert firstlight("train", "--resume", "run", "--json").json["epochs"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_while_the_pictures_are_drawn(firstlight: Command, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Fault 4, fault 5: training is over and saved; a resume has only to conclude."""

    def press(run: Run) -> list[Path]:
        signal.raise_signal(number)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(engine, "draw_pictures", press)
        outcome = firstlight("train", *LINEAR, "--name", "run")
    assert outcome.code == code
    assert outcome.err.endswith("; checkpoint step-42 is kept; go on with: firstlight train --resume runs/run\n")
    assert firstlight("train", "--resume", "run", "--json").json["epochs"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_before_anything_is_read(place: Path, number: int, code: int) -> None:
    """Fault 5: one line, nothing written, even in the midst of the import of torch."""
    script = (
        "import builtins, signal, sys; from firstlight.__main__ import main\n"
        "real = builtins.__import__\n"
        "def press(name, *words, **more):\n"
        f"    if name.startswith('torch.nn.modules'): signal.raise_signal({int(number)})\n"
        "    return real(name, *words, **more)\n"
        "builtins.__import__ = press\n"
        "main(['train', 'model=linear'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == "error: interrupted before there was anything to resume; give the command again\n"
    assert list(place.iterdir()) == []


def test_a_full_stderr_does_not_end_a_training(place: Path) -> None:
    """Fault 8: what the console cannot say stands in the log."""
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "firstlight", "train", *LINEAR, "--name", "run"]
        assert subprocess.run(words, cwd=place, stdout=subprocess.DEVNULL, stderr=full, check=False).returncode == 0
    assert info_of(Path("runs/run"))["state"] == "finished"
    assert "epoch   2" in Path("runs/run/log.txt").read_text()


def test_what_is_left_of_a_run_is_not_trained_over(firstlight: Command, run: Path) -> None:
    """Fault 9: run.json is gone, the checkpoints are not."""
    (run / "run.json").unlink()
    outcome = firstlight("train", *LINEAR, "--name", "first")
    assert outcome.code == 5 and "holds checkpoints or rows of a run whose run.json is gone" in outcome.err


def test_a_killed_run_goes_on(long_run: subprocess.Popen[str], firstlight: Command) -> None:
    """Fault 27, A8: killed from outside, as the kernel does when memory ends; the lock is free at once, the final numbers are the same."""
    long_run.kill()
    long_run.wait()
    assert firstlight("runs", "--json").json["runs"][0]["state"] == "interrupted"
    resumed = firstlight("train", "--resume", "latest", "--json").json
    whole = firstlight("train", *LONG, "--name", "whole", "--json").json
    assert all(resumed[key] == whole[key] for key in ("val_accuracy", "val_loss", "train_loss", "best_epoch", "steps"))


def test_a_full_disk_is_said_with_the_way_out(firstlight: Command, place: Path) -> None:
    """Fault 7, as a user sees it: the disk fills up for good after the first save."""
    failpoint = "ENOSPC:from:30:checkpoints"
    outcome = finish(start("train", *NETWORK, "train.epochs=9", "--name", "run", cwd=place, FIRSTLIGHT_FAILPOINT=failpoint))
    assert outcome.code == 5 and "Traceback" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert "the disk is full; free some space" in last and "go on with: firstlight train --resume runs/run" in last
    assert firstlight("train", "--resume", "run", "--json").json["epochs"] == 9


def test_the_temporary_folder_does_not_matter(place: Path) -> None:
    """Fault 11: what is being written lies beside its target."""
    outcome = finish(start("train", *NETWORK, "train.epochs=1", "--name", "run", cwd=place, TMPDIR="/proc/nowhere"))
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("folder", ["a b", "größe ✓", "it's; $(touch hacked)", "x" * 240, "new\nline"])
def test_a_folder_of_any_name_can_be_trained_in(firstlight: Command, place: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 12: spaces, accents, quotes, a shell's words, a long name, a symbolic link; the line that resumes can be pasted."""
    (place / folder).mkdir()
    (place / "link").symlink_to(folder)
    monkeypatch.setattr(files, "_failpoint", presses("append"))
    outcome = firstlight("train", *NETWORK, "train.epochs=1", "--runs-dir", folder, "--name", "run")
    monkeypatch.setattr(files, "_failpoint", None)
    assert outcome.code == 130
    words = shlex.split(outcome.err.partition("go on with: ")[2])
    assert words == ["firstlight", "train", "--resume", f"{folder}/run"]
    assert firstlight(*words[1:-1], "link/run", "--json").json["run"] == "link/run"
    assert not (place / "hacked").exists()


def test_settings_beside_resume(firstlight: Command, run: Path) -> None:
    """Fault 22, on the command line; --dry-run shows the run's own settings."""
    refused = firstlight("train", "--resume", "first", "train.epochs=3", "optim.lr=0.5")
    assert refused.code == 2 and "optim.lr" in refused.err and "--override" in refused.err and refused.err.count("error: ") == 1
    shown = firstlight("train", "--resume", "first", "train.epochs=3", "--dry-run")
    assert "name: linear" in shown.out and "epochs: 3" in shown.out
    went_on = firstlight("train", "--resume", "first", "train.epochs=3", "optim.lr=0.5", "--override", "--json")
    assert went_on.json["epochs"] == 3
    assert info_of(run)["resumes"][-1]["changed"].keys() == {"optim.lr", "train.epochs"}


def test_a_finished_run_is_not_resumed(refused: Callable[..., str], run: Path) -> None:
    """D12."""
    refused(2, "train", "--resume", "first", says=("runs/first is finished", "firstlight train runs/first/config.yaml"))


# What is refused


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, "train model=lenat", ("'lenat'", "did you mean 'lenet'?")),
        (2, "train optim.lrr=1", ("'lrr'", "optim", "did you mean 'lr'?")),
        (2, "train tran.epochs=1", ("tran", "did you mean 'train'?")),
        (2, "train data=mnits", ("'mnits'", "did you mean 'mnist'?")),
        (2, "train optim.lr=fast", ("optim.lr", "fast", "number")),
        (2, "train train.epochs=0", ("train.epochs", "0")),
        (2, "train train.epochs=2.5", ("train.epochs", "2.5")),
        (2, "train none.yaml", ("none.yaml", "quickstart")),
        (2, "train quickstrt", ("quickstrt", "did you mean 'quickstart'?")),
        (2, "train a.yaml b.yaml", ("a.yaml, b.yaml", "key=value")),
        (3, "train input.num_classes=7", ("10 classes", "input.num_classes is 7")),
        (3, "train data=mnist", ("train-images", "firstlight data fetch mnist", "--data-dir", "FIRSTLIGHT_DATA")),
        (3, "train data=kaggle_digits", ("train.csv", "kaggle.com")),
        (3, "train data=folder data.path=nowhere", ("nowhere", "data.path")),
        (2, "train --resume nothing", ("no run at nothing", "firstlight runs")),
        (2, "train --resume nothing --name x", ("--resume", "leave out x")),
        (2, "train --resume latest", ("no interrupted run in runs",)),
        (2, "train --exact", ("--exact", "needs --resume RUN")),
        (2, "trian", ('"trian"', 'Did you mean "train"?', "firstlight --help")),
        (2, "train --nmae x", ("--nmae", "--help")),
        (2, "evaluate", ("RUN", "firstlight --help")),
        (2, "evaluate nothing", ("no run at nothing", "--runs-dir")),
        (2, "evaluate nothing --split tset", ("tset", "val", "test")),
        (2, "predict nothing a.png", ("no run at nothing",)),
        (2, "compare nothing", ("no run at nothing",)),
        (2, "note nothing hello", ("no run at nothing",)),
        (2, "runs", ("no folder of runs at runs", "firstlight train")),
        (2, "runs --sort speed", ("--sort speed", "val_accuracy")),
        (2, "data describe mnits", ("'mnits'", "did you mean 'mnist'?")),
        (2, "data describe digits size=3", ("'size'", "digits")),
        (3, "data describe mnist", ("train-images", "firstlight data fetch mnist")),
        (2, "data fetch kaggle_digits", ("'kaggle_digits' cannot be fetched", "cifar10")),
    ],
)
def test_refused_in_one_line(refused: Callable[..., str], code: int, words: str, says: tuple[str, ...]) -> None:
    refused(code, *words.split(), says=says)


def test_two_kinds_in_a_file(refused: Callable[..., str]) -> None:
    Path("two.yaml").write_text("data: digits\noptim:\n  adam: {}\n  sgd: {}\n")
    refused(2, "train", "two.yaml", says=("two.yaml:3", "optim", "'adam'", "'sgd'"))


def test_every_problem_of_a_file_has_its_line(firstlight: Command) -> None:
    Path("bad.yaml").write_text("model: lenat\ntrain:\n  epochs: many\n")
    _, *problems = firstlight("train", "bad.yaml").err.splitlines()
    assert [line.split()[0] for line in problems] == ["bad.yaml:3:", "bad.yaml:1:"]


def test_a_broken_image_is_named(refused: Callable[..., str], place: Path) -> None:
    path = write_photos(place / "photos") / "red" / "3.png"
    path.write_bytes(path.read_bytes()[:50])
    refused(3, "train", *LINEAR, "data=folder", "data.path=photos", says=("red/3.png", "firstlight data check"))


def test_an_empty_folder_of_images(refused: Callable[..., str], place: Path) -> None:
    (place / "photos").mkdir()
    refused(3, "train", *LINEAR, "data=folder", "data.path=photos", says=("photos", "no class folders", "CLASS/IMAGE"))


def test_a_label_out_of_range_in_a_csv(refused: Callable[..., str], place: Path) -> None:
    write_kaggle(place, "train", [3, 1, 10])
    refused(3, "train", *LINEAR, "data=kaggle_digits", "--data-dir", ".", says=("train.csv", "line 4", "'label'", "'10'", "0..9"))


def test_a_label_out_of_range_in_an_idx_file(refused: Callable[..., str], place: Path) -> None:
    write_mnist(place, "train", labels=[1, 2, 12])
    refused(3, "train", *LINEAR, "data=mnist", "--data-dir", ".", says=("12", "0..9"))


def test_images_without_labels_are_predicted_and_not_evaluated(firstlight: Command, place: Path) -> None:
    """E8."""
    write_kaggle(place, "train", [label for label in range(10) for _ in range(3)])
    write_kaggle(place, "test", [1, 2])
    assert firstlight("train", *LINEAR, "data=kaggle_digits", "--data-dir", ".", "--name", "k").code == 0
    outcome = firstlight("evaluate", "k", "--split", "test", "--data-dir", ".")
    assert outcome.code == 3 and "no labels" in outcome.err and "firstlight predict" in outcome.err
    assert info_of(Path("runs/k"))["test_openings"] == []
    answers = firstlight("predict", "k", "--data-dir", ".", "--json").json
    assert (answers["num_images"], answers["files"]) == (2, ["runs/k/predictions-test.png"])


def test_the_name_of_a_run_that_stands(refused: Callable[..., str], run: Path) -> None:
    refused(5, "train", *LINEAR, "--name", "first", says=("a run stands at runs/first", "--name", "--resume runs/first"))


@pytest.mark.parametrize("name", [".hidden", "-dash", "a\tb", "x" * 201])
def test_a_name_that_no_folder_should_have(refused: Callable[..., str], name: str) -> None:
    refused(2, "train", *LINEAR, f"--name={name}", says=("a run cannot be called",))


@pytest.mark.parametrize("name", ["../outside", "a/b"])
def test_a_name_that_leaves_the_folder_of_runs(refused: Callable[..., str], name: str) -> None:
    refused(2, "train", *LINEAR, "--name", name, says=("a run cannot be called",))


def test_a_file_where_the_runs_should_be(refused: Callable[..., str]) -> None:
    Path("file").write_text("")
    refused(5, "train", *LINEAR, "--runs-dir", "file", says=("file", "choose another folder"))


@pytest.mark.parametrize(("name", "says"), [("text.txt", "no image"), ("missing.png", "No such file"), ("empty", "no images")])
def test_predict_on_what_is_no_image(refused: Callable[..., str], run: Path, name: str, says: str) -> None:
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    refused(3, "predict", "first", name, "--out", "answers.csv", says=(name, says))


def test_predictions_need_a_known_kind_of_file(refused: Callable[..., str], run: Path) -> None:
    refused(2, "predict", "first", "a.png", "--out", "answers.xls", says=("answers.xls", ".csv", ".json", ".parquet"))


def test_a_flipped_byte_in_a_checkpoint(refused: Callable[..., str], run: Path) -> None:
    path = find_checkpoint(run / "checkpoints", "best") / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    refused(4, "evaluate", "first", says=(str(path), "damaged", "sha256"))


def test_weights_of_another_architecture(refused: Callable[..., str], run: Path) -> None:
    """B11: the layers that differ are named."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "model": {"name": "mlp", "hidden": [4]}}))
    refused(4, "evaluate", "first", says=("another architecture", "1.weight is [10, 64] there and [4, 64]", "is missing"))


def test_a_run_of_another_time_in_the_way(refused: Callable[..., str], run: Path) -> None:
    (run / "run.json").write_text("{")
    refused(2, "evaluate", "first", says=("damaged run folder",))


def test_debug_shows_the_traceback(place: Path) -> None:
    outcome = finish(start("train", "model=lenat", "--debug", cwd=place))
    assert outcome.code != 0 and "Traceback" in outcome.err and "ConfigError" in outcome.err


def test_no_command_shows_the_help(firstlight: Command) -> None:
    assert firstlight().out.startswith("Usage: firstlight COMMAND")
