"""Lanes as runs: what stands in a lane's folder is what its solo run would have written."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.engine import device, lanes
from firstlight.engine.checkpoint import read_weights
from firstlight.engine.lanes import group_key, num_bytes, time_both, train_lanes
from firstlight.engine.train import run_training
from firstlight.errors import DivergedError
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run

FIXED = {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1}
QUIET = Console(quiet=True)


PLAIN = (
    "model.name=mlp",
    "model.hidden=[16]",
    "train.epochs=3",
    "train.batch_size=50",
    "split.num_train=500",
    "optim.name=adam",
    "optim.lr=0.01",
)


def config_of(*overrides: str) -> fl.Config:
    """Return PLAIN with overrides, of which the last one counts."""
    merged = dict(word.split("=", 1) for word in (*PLAIN, *overrides))
    return fl.load_config("quickstart", *(f"{key}={value}" for key, value in merged.items()), device=FIXED)


CONFIGS = [
    config_of("seed=1", "order_seed=0"),
    config_of("optim.lr=0.003", "model.hidden=[5]", "model.activation=tanh", "order_seed=0", "schedule=cosine"),
    config_of("model.dropout=0.5", "train.label_smoothing=0.1", "order_seed=0", "schedule={name: one_cycle}"),
    config_of("optim.weight_decay=0.01", "init_seed=7", "schedule=cosine"),
]


def in_lanes(folder: Path, configs: list[fl.Config], pause_after: int | None = None) -> list[Run]:
    runs = train_lanes(configs, [folder / f"lane{number}" for number in range(len(configs))], QUIET, Path(), pause_after=pause_after)
    assert all(isinstance(run, Run) for run in runs)
    return runs  # type: ignore[return-value]


def assert_alike(lane: Run, solo: Run) -> None:
    """Hold every figure of a lane against its solo run."""
    assert lane.state == solo.state == "finished"
    assert len(lane.steps) == len(solo.steps)
    assert [{**row, "loss": 0, "grad_norm": 0} for row in lane.steps] == [{**row, "loss": 0, "grad_norm": 0} for row in solo.steps]
    for key in ("loss", "grad_norm"):
        assert [row[key] for row in lane.steps] == pytest.approx([row[key] for row in solo.steps], rel=1e-3, abs=1e-4)
    for ours, theirs in zip(lane.epochs, solo.epochs, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ("train_loss", "val_loss"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-4)
        for key in ("train_accuracy", "val_accuracy", "val_top_k"):
            assert ours[key] == pytest.approx(theirs[key], abs=0.011)
    same = ("environment", "seeds", "network", "data")
    assert {key: lane.info[key] for key in same} == {key: solo.info[key] for key in same}


def test_each_lane_is_the_run_of_its_config(tmp_path: Path) -> None:
    """F1: rows, figures, checkpoint and run.json of lanes with settings of their own, against solo runs; a lane resumes as a run too."""
    assert len({group_key(config) for config in CONFIGS}) == 1
    lanes = in_lanes(tmp_path, CONFIGS)
    for number, (config, lane) in enumerate(zip(CONFIGS, lanes, strict=True)):
        solo = run_training(config, tmp_path / f"solo{number}", QUIET, Path())
        assert_alike(lane, solo)
        ours, theirs = (read_weights(run.path / "checkpoints" / f"step-{run.summary['steps']}") for run in (lane, solo))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    longer = [fl.resume(name, "train.epochs=4", override=True, runs_dir=tmp_path, console=QUIET) for name in ("lane3", "solo3")]
    assert_alike(*longer)


def test_a_lane_has_its_summary_where_the_test_set_stays_sealed(tmp_path: Path) -> None:
    """Summary and state of such a run are written at once, when it is left."""
    configs = [config_of("train.test_at_end=false", f"optim.lr={lr}") for lr in (0.01, 0.02)]
    for number, lane in enumerate(in_lanes(tmp_path, configs)):
        solo = run_training(configs[number], tmp_path / f"solo{number}", QUIET, Path())
        assert json.loads((lane.path / "run.json").read_text())["state"] == "finished"
        assert lane.summary.keys() == solo.summary.keys() >= {"best_epoch", "steps", "val_accuracy"}
        assert lane.summary["val_loss"] == pytest.approx(solo.summary["val_loss"], abs=1e-4)


def test_lanes_that_paused_go_on(tmp_path: Path) -> None:
    """A pause behind an epoch, as a search makes, changes no bit; lanes that stand at different epochs are brought up apart."""
    whole = in_lanes(tmp_path / "whole", CONFIGS)
    paused = in_lanes(tmp_path / "paused", CONFIGS[:2], pause_after=1) + in_lanes(tmp_path / "later", CONFIGS[2:], pause_after=2)
    assert {run.state for run in paused} == {"interrupted"}
    runs = train_lanes(CONFIGS, [run.path for run in paused], QUIET, Path(), resumed=paused)
    for lane, other in zip(whole, runs, strict=True):
        assert isinstance(other, Run)
        assert [row["loss"] for row in other.steps] == pytest.approx([row["loss"] for row in lane.steps], abs=1e-5)
        assert other.state == "finished"


def test_a_lane_that_diverges_changes_no_bit_of_the_others(tmp_path: Path) -> None:
    """Fault 49: one of four diverges; it is failed with its report, and the others are bit-identical to a program where it does not."""
    sound = [config_of("optim.name=sgd", f"init_seed={seed}", "optim.lr=0.1") for seed in range(4)]
    broken = [*sound[:2], config_of("optim.name=sgd", "init_seed=2", "optim.lr=1e30"), sound[3]]
    whole = in_lanes(tmp_path / "whole", sound)
    runs = train_lanes(broken, [tmp_path / f"lane{number}" for number in range(4)], QUIET, Path())
    error = runs[2]
    assert isinstance(error, DivergedError)
    assert "became" in str(error)
    assert Run(tmp_path / "lane2").state == "failed"
    assert json.loads((tmp_path / "lane2" / "nan_report.json").read_text())["step"] >= 1
    for number in (0, 1, 3):
        assert [row["loss"] for row in Run(tmp_path / f"lane{number}").steps] == [row["loss"] for row in whole[number].steps]


def test_a_lane_whose_last_step_breaks_it_is_no_finished_run(tmp_path: Path) -> None:
    """Fault 49: the loss of its only step is finite, and its validation is not; its solo run fails there too."""
    once = ("optim.name=sgd", "train.epochs=1", "train.batch_size=100000")
    runs = train_lanes([config_of(*once, f"optim.lr={lr}") for lr in (0.1, 1e30)], [tmp_path / "sound", tmp_path / "broken"], QUIET, Path())
    assert isinstance(runs[0], Run)
    assert isinstance(runs[1], DivergedError)
    assert [math.isfinite(row["loss"]) for row in Run(tmp_path / "broken").steps] == [True]
    assert Run(tmp_path / "broken").state == "failed"
    with pytest.raises(DivergedError, match=re.escape(str(runs[1]).partition(";")[0].replace("broken", "solo"))):
        run_training(config_of(*once, "optim.lr=1e30"), tmp_path / "solo", QUIET, Path())


def test_lanes_with_fewer_epochs_make_room(tmp_path: Path) -> None:
    """A finished lane leaves the program, and the others train on as if alone."""
    configs = [config_of(f"train.epochs={epochs}", f"init_seed={epochs}") for epochs in (1, 3, 2)]
    assert len({group_key(config) for config in configs}) == 1
    for config, lane in zip(configs, in_lanes(tmp_path, configs), strict=True):
        assert_alike(lane, run_training(config, tmp_path / f"solo{config.train.epochs}", QUIET, Path()))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_lanes import CONFIGS, QUIET, train_lanes
from firstlight.tracking.run import Run
paths = [Path(sys.argv[1]) / f"lane{{number}}" for number in range(len(CONFIGS))]
found = [Run(path) if (path / "run.json").exists() else None for path in paths]
train_lanes(CONFIGS, paths, QUIET, Path(), resumed=found)
"""


def run_script(folder: Path, failpoint: str) -> int:
    environment = {**os.environ, "FIRSTLIGHT_FAILPOINT": failpoint} if failpoint else None
    command = [sys.executable, "-c", SCRIPT.format(folder=str(Path(__file__).parent)), str(folder)]
    return subprocess.run(command, env=environment, check=False).returncode


def test_killed_lanes_go_on_as_if_never_killed(tmp_path: Path) -> None:
    """Killed between the checkpoints of two lanes, and once more: each lane ends with the losses of one that was never killed."""
    for failpoint in ("kill:before:14:lane2", "kill:before:9:lane3"):
        assert run_script(tmp_path / "killed", failpoint) == -signal.SIGKILL
    assert run_script(tmp_path / "killed", "") == 0
    for number, lane in enumerate(in_lanes(tmp_path / "whole", CONFIGS)):
        again = Run(tmp_path / "killed" / f"lane{number}")
        assert [row["loss"] for row in again.steps] == pytest.approx([row["loss"] for row in lane.steps], abs=1e-5)
        assert again.state == "finished"


NETWORKS = {
    "lenet": ("model.name=lenet", "model.pool=max", "input.image_size=16", "train.epochs=1"),
    "lenet-sigmoid": ("model.name=lenet", "model.activation=sigmoid", "model.pool=avg", "input.image_size=12", "train.epochs=1"),
    "small_cnn": ("model.name=small_cnn", "model.widths=[4, 8]", "train.epochs=2"),
    "digit_cnn": ("model.name=digit_cnn", "model.widths=[3, 4, 5]", "input.image_size=20", "train.epochs=1"),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("network", NETWORKS)
def test_convolutional_lanes_are_their_solo_runs(tmp_path: Path, network: str, optimizer: str) -> None:
    """F1 for networks with convolutions, batch normalisation and dropout: seeds, lr, decay, smoothing and dropout of their own."""
    settings = (*NETWORKS[network], f"optim.name={optimizer}", "optim.lr=0.003", "order_seed=5", "split.num_train=300")
    own = [("seed=1",), ("optim.lr=0.001", "seed=2"), ("train.label_smoothing=0.1",), ("optim.weight_decay=0.01",)]
    if network == "small_cnn":
        own[1:3] = [("model.dropout=0.4",), ("model.dropout=0.2", "train.label_smoothing=0.1")]
    configs = [_of(*settings, *more) for more in own]
    assert len({group_key(config) for config in configs}) == 1
    for number, (config, lane) in enumerate(zip(configs, in_lanes(tmp_path, configs), strict=True)):
        assert_alike(lane, run_training(config, tmp_path / f"solo{number}", QUIET, Path()))
    if network == "small_cnn":
        assert_alike(*(fl.resume(name, "train.epochs=3", override=True, runs_dir=tmp_path, console=QUIET) for name in ("lane3", "solo3")))


def _of(*overrides: str) -> fl.Config:
    merged = {"train.batch_size": "50", **dict(word.split("=", 1) for word in overrides)}
    return fl.load_config("quickstart", *(f"{key}={value}" for key, value in merged.items()), device=FIXED)


NO_LANE = [
    *("train.accumulate=2", "train.clip_norm=1", "train.ema_decay=0.9", "train.patience=1", "train.on_divergence=rollback"),
    *("checkpoint.every_steps=1", "evaluation.views=mirror", "input.whiten=1", "model.norm=before", "model.hidden=[]", "model=alexnet"),
    *("optim=muon", "device.precision=bfloat16", "optim={name: rmsprop, momentum: 0.5}"),
]
OTHER_GROUP = ["seed=1", "train.batch_size=25", "model.hidden=[8, 8]", "optim=sgd", "augment.flip=true", "data=mnist"]


def plain_with(*settings: str) -> fl.Config:
    """Return an MLP with Adam and some settings laid over."""
    taken = {setting.partition("=")[0] for setting in settings}
    plain = {"model.name": "mlp", "model.hidden": "[16]", "optim.name": "adam"}
    kept = [f"{key}={value}" for key, value in plain.items() if key not in taken and key.partition(".")[0] not in taken]
    return fl.load_config("quickstart", *kept, *settings)


@pytest.mark.parametrize("setting", NO_LANE)
def test_what_cannot_be_a_lane_is_none(setting: str) -> None:
    """A config with anything that lanes do not do is trained alone."""
    assert group_key(plain_with()) is not None
    assert group_key(plain_with(setting)) is None


@pytest.mark.parametrize("setting", OTHER_GROUP)
def test_what_cannot_be_fused_is_another_group(setting: str) -> None:
    """Lanes see the same batches, have the same depth and one rule; the seed of the data's order is that of the batches."""
    assert group_key(plain_with(setting)) not in (group_key(plain_with()), None)


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        (("device.name=cuda", "device.precision=float32"), True),
        (("device.name=auto", "device.precision=float32"), True),
        (("device.name=cuda", "device.precision=auto"), False),
        (("device.name=cuda", "device.precision=float32", "device.graph=true"), False),
        (("device.name=cuda", "device.precision=float32", "model.dropout=0.1"), False),
        (("device.name=cuda", "device.precision=float32", "model={name: lenet}"), False),
    ],
)
def test_on_cuda_mlps_in_float32_without_dropout_are_lanes_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], fits: bool
) -> None:
    """What else would not make the numbers of its solo run there."""
    monkeypatch.setattr(device, "is_present", lambda name: True)
    monkeypatch.setattr(lanes, "is_present", lambda name: True)
    model = () if any("model=" in setting for setting in settings) else ("model={name: mlp, hidden: [8]}",)
    config = fl.load_config("quickstart", *model, *settings)
    assert group_key(config) is None
    assert (group_key(config, cuda=True) is not None) is fits


def test_timing_leaves_nothing(tmp_path: Path) -> None:
    """The plan's timing writes nothing and leaves the caller's random numbers as they were."""
    before = torch.get_rng_state()
    times = time_both(CONFIGS, Path())
    assert times.together > 0
    assert times.alone > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert num_bytes(CONFIGS[0]) > num_bytes(CONFIGS[1]) > 4 * 3072 * 5
