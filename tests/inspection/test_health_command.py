"""A15, F7, C3: `firstlight inspect health` on experiments and runs: what it finds, writes, prints and refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import firstlight as fl
from firstlight.__main__ import main
from firstlight.errors import ConfigError, DataError
from firstlight.files import finite
from firstlight.inspection.checks import data, history
from firstlight.inspection.health import health_of, inspect_health
from firstlight.tracking.console import Console

SMALL = """
name: small
data: digits
model: {name: mlp, hidden: [32, 32]}
optim: {name: sgd, lr: 0.05, momentum: 0.9}
train: {epochs: 6, batch_size: 32, log_every: 10}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""
SEEDS = (0, 1, 2)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of an experiment of a second."""
    path = tmp_path_factory.mktemp("health") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def run(small: Path) -> fl.Run:
    """A run that went well."""
    return fl.train(small, name="well", runs_dir=small.parent, console=Console(quiet=True))


def command(*words: str) -> int:
    """Give a command line, and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["inspect", "health", *words])
    return int(left.value.code or 0)


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in found["checks"] if check["verdict"] in ("warning", "fault")}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("plant", "name", "verdict"),
    [
        ("optim.lr=5", "learning rate", "fault"),
        ("model.init=zeros", "symmetry", "fault"),
        ("model.init_scale=30", "initial loss", "fault"),
        ("input.normalize=none", "input scale", "warning"),
        ("optim.lr=5e-4", "learning rate", "warning"),
        ("optim.lr=5e-6", "learning rate", "fault"),
    ],
)
def test_a_setting_that_spoils_the_training_is_found(plant: str, name: str, verdict: str, seed: int, small: Path, tmp_path: Path) -> None:
    found = health_of(fl.load_config(small, plant, f"seed={seed}"), tmp_path, num_steps=60)
    assert found[name].verdict == verdict, found.says


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_experiment_is_left_in_peace(seed: int, small: Path, tmp_path: Path) -> None:
    found = health_of(fl.load_config(small, f"seed={seed}"), tmp_path, num_steps=60)
    assert found.findings == {}
    assert found.says == "all 18 checks are passed"


def test_the_quickstart_is_healthy(tmp_path: Path) -> None:
    assert health_of(fl.load_config("quickstart"), tmp_path, num_steps=40).findings == {}


def test_an_experiment_leaves_pictures_and_json_and_no_run(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(str(small), "optim.lr=5", "--steps", "30", "--json", "--runs-dir", str(tmp_path / "runs")) == 0
    printed = json.loads(capsys.readouterr().out)
    names = ["inspection/health-small.json", "inspection/health-small.png", "inspection/health-small.svg"]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == names
    assert printed == json.loads((tmp_path / "inspection" / "health-small.json").read_text())
    assert sorted(printed["files"]) == names
    assert printed["what"] == "health" and printed["experiment"] == "small"
    svg = (tmp_path / "inspection" / "health-small.svg").read_text()
    assert svg.startswith("<?xml")


def test_a_run_gets_its_verdicts_in_its_folder(run: fl.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """F7: beside the trials, the history and the saved network are looked at."""
    assert command("well", "--steps", "60", "--runs-dir", str(run.path.parent)) == 0
    out = capsys.readouterr().out
    found = json.loads((run.path / "inspection" / "health-val.json").read_text())
    assert {"run", "what", "split", "num_images", "says", "checks", "files"} <= found.keys()
    assert found["says"] == "all 25 checks are passed" == out.splitlines()[-4]
    assert [Path(file).name for file in found["files"]] == ["health-val.png", "health-val.svg", "health-val.json"]
    assert all(Path(file).is_file() for file in found["files"])
    by_name = {check["name"]: check["figures"] for check in found["checks"]}
    assert by_name["recorded accuracy"] == {"recorded": run.summary["val_accuracy"], "found": run.summary["val_accuracy"]}


def test_looking_with_the_test_set_is_recorded(run: fl.Run) -> None:
    before = len(fl.load_run(run.path).info["test_openings"])
    found = inspect_health("well", split="test", num_steps=10, runs_dir=run.path.parent)
    assert found["split"] == "test" and found["num_images"] == 359
    assert len(fl.load_run(run.path).info["test_openings"]) == before + 1
    leak = next(check for check in found["checks"] if check["name"] == "leak")
    assert leak["says"] == "0 of 359 test images are training images too, pixel by pixel"


def test_a_run_that_broke_before_its_first_checkpoint_is_examined(small: Path, tmp_path: Path) -> None:
    """F7: just the runs that went nowhere are worth a look."""
    with pytest.raises(fl.FirstlightError, match="became"):
        fl.train(small, "optim.lr=1e6", name="broken", runs_dir=tmp_path, console=Console(quiet=True))
    found = inspect_health("broken", num_steps=20, runs_dir=tmp_path)
    assert verdicts(found)["ending"] == verdicts(found)["learning rate"] == "fault"
    saved = next(check for check in found["checks"] if check["name"] == "saved network")
    assert saved["verdict"] == "not applicable" and "no best checkpoint" in saved["says"]
    assert json.loads((tmp_path / "broken" / "inspection" / "health-val.json").read_text()) == finite(found)


def folder_of(path: Path, pixels: dict[str, list[int]]) -> str:
    """Write images of 8x8 pixels, one a brightness, into class folders."""
    for part in ("train", "test"):
        for label, values in pixels.items():
            (path / part / label).mkdir(parents=True)
            for number, value in enumerate(values):
                Image.new("L", (8, 8), value).save(path / part / label / f"{number}.png")
    return f"data={{name: folder, path: {path}}}"


def test_a_folder_of_equal_images_is_found(small: Path, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "photos", {"cat": [90] * 40, "dog": [90] * 40})
    found = health_of(fl.load_config(small, data, "input.image_size=8"), tmp_path, num_steps=20)
    assert {"distinct images": "fault", "uses its input": "fault", "leak": "fault"}.items() <= found.findings.items()
    assert found["distinct images"].says == "all 72 images that were looked at are the same"


def test_an_experiment_without_validation_keeps_images_apart(small: Path, tmp_path: Path) -> None:
    found = health_of(fl.load_config(small, "split.val_fraction=0"), tmp_path, num_steps=60)
    assert found.findings == {}
    assert found["leak"].figures["num_images"] == 0


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["well", "optim.lr=1"], ConfigError, r"well is a run, whose settings are fixed; leave out optim\.lr=1, or name a config file"),
        (["nowhere"], ConfigError, "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], error: type[Exception], message: str, run: fl.Run, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        inspect_health(*words, runs_dir=run.path.parent, out=tmp_path)


def test_an_experiment_is_judged_on_validation_alone(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--split test needs a run, which records that it was looked at; an experiment is checked on val"):
        inspect_health(small, split="test", out=tmp_path)


def test_a_run_without_validation_says_so(small: Path, tmp_path: Path) -> None:
    fl.train(small, "split.val_fraction=0", "train.epochs=1", name="all", runs_dir=tmp_path, console=Console(quiet=True))
    with pytest.raises(DataError, match=r"was trained without validation .*; take --split train, or open --split test"):
        inspect_health("all", runs_dir=tmp_path)


def test_few_steps_are_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(small), "--steps", "3") == 2
    assert re.fullmatch(r"error: --steps 3 shows nothing; take 10 or more\n", capsys.readouterr().err)


def test_the_history_of_a_run_is_judged_by_its_rows() -> None:
    """F7: a loss at ln(classes), a validation loss that rises, gradients that explode, an accuracy that cannot be reached again."""
    stuck = [{"epoch": n, "step": 200 * n, "train_loss": 2.3, "train_accuracy": 0.1, "val_loss": 2.3} for n in (1, 2)]
    assert history.check_curve(stuck, 10).verdict == "fault"
    assert history.check_curve([{**stuck[0], "train_loss": 0.4, "train_accuracy": 0.9}], 10).verdict == "ok"
    rising = [{"epoch": n, "step": n, "train_loss": 1 / n, "val_loss": 0.5 + 0.2 * n} for n in range(1, 6)]
    assert history.check_gap(rising).verdict == "warning" and history.check_gap(rising[:2]).verdict == "ok"
    broken = [{"epoch": n, "step": n, "train_loss": None, "val_loss": 2.0} for n in (1, 2, 3, 4, 5)]
    assert history.check_curve(broken, 10).verdict == "fault" and history.check_gap(broken).verdict == "not applicable"
    assert history.check_curve([broken[0], rising[0]], 10).figures["train_loss"] == 1.0
    steps = [{"step": n, "epoch": n, "grad_norm": 10.0 ** (2 * n)} for n in (0, 1, 2)]
    assert history.check_gradient_history(steps, clipped=False).verdict == "warning"
    assert history.check_gradient_history(steps, clipped=True).verdict == "ok"
    assert history.check_reproduced(0.95, 0.94, "val", 5000).verdict == "warning"
    assert history.check_reproduced(0.95, 0.9505, "val", 5000).verdict == "ok"
    assert history.check_reproduced(137 / 144, 136 / 144, "val", 144).verdict == "ok", "one image of few, on another machine"
    assert history.check_reproduced(137 / 144, 135 / 144, "val", 144).verdict == "warning"
    assert history.check_ending({"rollbacks": [{}]}, "finished", stuck, None).verdict == "warning"


def test_a_held_out_accuracy_above_training_is_suspicious() -> None:
    assert data.check_accuracies(0.70, 0.95, 256, 1000, when="now").verdict == "warning"
    assert data.check_accuracies(0.95, 0.97, 256, 1000, when="now").verdict == "ok"
    assert data.check_accuracies(1.0, 1.0, 256, 1000, when="now").verdict == "ok"
