"""Past runs handed to trackers by the command; what was written is read by the trackers' own code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.errors import FirstlightError
from firstlight.export.logs import export
from firstlight.inspection.confusion import inspect_confusion
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run
from firstlight.tracking.tensorboard import event_files
from firstlight.tracking.told import figures, hyperparameters, scalars, tables
from tests.tracking.readers import event_accumulator, hparams_table, wandb_files, wandb_run

SMALL = {
    "model": {"name": "mlp", "hidden": [16]},
    "split": {"num_train": 200},
    "train": {"epochs": 2, "batch_size": 50},
    "device": {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    """Return a run without trackers that was inspected."""
    made = fl.train("quickstart", name="past", runs_dir=place / "runs", console=Console(quiet=True), **SMALL)
    inspect_confusion(made.path)
    return Run(made.path)


def firstlight(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-m", "firstlight", *words], capture_output=True, text=True, check=False)


def test_a_past_run_is_handed_to_tensorboard(run: Run, place: Path) -> None:
    """E11: into its folder or another one; a second time takes the place of the first."""
    for out in (None, place / "elsewhere", place / "elsewhere"):
        found = export(run.path, "tensorboard", out=out)
    folder = place / "elsewhere" / "past"
    assert [str(path) for path in event_files(folder)] == found["files"]
    for where in (run.path, folder):
        read = event_accumulator(where)
        assert [event.step for event in read.Scalars("loss/val")] == [row["step"] for row in run.epochs]
        assert {"pictures/curves", "inspection/confusion-val"} <= set(read.Tags()["images"])
    assert set(found["scalars"]) == {tag for row in run.rows for tag in scalars(row)}
    _, _, rows = hparams_table(place / "elsewhere")
    assert rows["past"][0] == hyperparameters(run)


def test_a_past_run_is_handed_to_wandb_by_the_command(run: Run, place: Path) -> None:
    """A11: numbers, pictures and the tables of inspections; --json is one object; a project may be named."""
    words = ["export-logs", str(run.path), "--to", "wandb", "--out", str(place / "w"), "--mode", "offline", "--project", "mine", "--json"]
    done = firstlight(*words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [path] = wandb_files(place / "w" / "past")
    assert found["files"] == [str(path.parent)]
    assert (found["num_rows"], found["mode"]) == (len(run.rows), "offline")
    told, config, history, summary = wandb_run(path)
    assert (told.project, told.display_name) == ("mine", "past")
    assert config["optim"] == run.config["optim"]
    assert [row["loss/step"] for row in history if "loss/step" in row] == [row["loss"] for row in run.steps]
    assert {tag: summary[tag] for tag in figures(run)} == figures(run)
    media = {key: value for row in history for key, value in row.items() if isinstance(value, dict)}
    assert media["inspection/confusion-val"]["_type"] == "image-file"
    classes = media["inspection/confusion-val/classes"]
    written = json.loads((path.parent / "files" / classes["path"]).read_text())
    assert written["columns"] == list(tables(run)["inspection/confusion-val/classes"][0])
    assert written["data"] == [list(record.values()) for record in tables(run)["inspection/confusion-val/classes"]]
    assert (path.parent / "files" / media["inspection/confusion-val"]["path"]).read_bytes() == (
        run.path / "inspection" / "confusion-val.png"
    ).read_bytes()


def test_the_command_for_tensorboard_prints_where_to_look(run: Run, place: Path) -> None:
    done = firstlight("export-logs", "past", "--runs-dir", str(place / "runs"), "--to", "tensorboard", "--out", str(place / "t"))
    assert done.returncode == 0, done.stderr
    assert f"look at them: tensorboard --logdir {place / 't' / 'past'}" in done.stdout
    assert f"1 run, {len(run.rows)} rows, " in done.stdout


@pytest.mark.parametrize(
    ("target", "to", "out", "message"),
    [
        ("nowhere", "tensorboard", None, r"^no run at nowhere; "),
        ("past", "tensorboard", "file", r"^cannot write .*file/past: a file stands where a folder is needed; choose another folder$"),
        ("empty", "tensorboard", None, r"^study .*empty has no trial that ended and can be read; carry it out with `firstlight sweep`$"),
        ("broken", "tensorboard", None, r"is a damaged run folder"),
    ],
)
def test_what_cannot_be_handed_over_is_one_line(run: Run, place: Path, target: str, to: str, out: str | None, message: str) -> None:
    (place / "file").write_text("")
    (place / "runs" / "empty").mkdir(exist_ok=True)
    (place / "runs" / "empty" / "study.json").write_text("{}")
    if not (place / "runs" / "broken").exists():
        shutil.copytree(run.path, place / "runs" / "broken")
        (place / "runs" / "broken" / "run.json").write_text("{")
    with pytest.raises(FirstlightError, match=message):
        export(target, to, out=None if out is None else place / out, runs_dir=place / "runs")
