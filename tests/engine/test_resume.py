"""A resumed run is the uninterrupted one: weights, optimizer, averages, rows (F3 in small; A8, D12)."""

import hashlib
import io
import json
import math
import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import firstlight as fl
from firstlight.engine.checkpoint import find_checkpoint, read_checkpoint, read_record, step_folders
from firstlight.errors import CheckpointError, CheckpointFormatError, ConfigError, DataError, InterruptedRunError, RunNotFoundError
from firstlight.files import tensors_to_chunks
from firstlight.inspection.tables import list_table
from firstlight.models.build import MODELS
from firstlight.tracking.console import Bar, Console
from tests.mutate import mutate as damage

Train = Callable[..., fl.Run]


def figures_of(run: fl.Run) -> list[dict[str, object]]:
    """Return the metric rows without what the clock and the machine say."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "memory_mib")} for row in run.rows]


class StopAfter(Console):
    """A console that presses Ctrl-C when losses are fetched for the first time after a number of epochs: in the midst of the next."""

    def __init__(self, epochs: int) -> None:
        super().__init__(quiet=True)
        self.left = epochs

    def line(self, text: str, *, style: str | None = None) -> None:
        super().line(text, style=style)
        self.left -= text.startswith("epoch")

    @contextmanager
    def progress(self, what: str, total: int, *, done: int = 0) -> Iterator[Bar]:
        yield PressingBar(self)


class PressingBar(Bar):
    def __init__(self, console: StopAfter) -> None:
        super().__init__(None, None)
        self.console = console

    def update(self, done: int, now: str = "") -> None:
        if self.console.left == 0 and done % 7:
            signal.raise_signal(signal.SIGINT)


def checkpoint_hashes(run: fl.Run) -> dict[str, str]:
    files = (run.path / "checkpoints").glob("step-*/*.safetensors")
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


CASES = {
    "sgd": ["optim={name: sgd, momentum: 0.9}"],
    "adam": ["optim=adam"],
    "adamw-cosine-warmup": ["optim=adamw", "schedule={name: cosine, warmup_epochs: 1}"],
    "rmsprop-plateau": ["optim=rmsprop", "schedule={name: plateau, patience: 1}"],
    "muon": ["optim=muon"],
    "dropout-ema": ["model={name: mlp, hidden: [16], dropout: 0.5}", "train.ema_decay=0.9"],
    "accumulate-clip": ["train.accumulate=3", "train.clip_norm=0.5"],
    "batchnorm-augment": ["model={name: small_cnn, widths: [4, 8]}", "augment.flip=true", "augment.crop=1", "augment.rotation=10"],
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_resume_gives_the_same_bits(train: Train, tmp_path: Path, overrides: list[str]) -> None:
    """F3: interrupted in the middle of the second epoch, and again in the third."""
    whole = train("train.epochs=4", *overrides, name="whole")
    with pytest.raises(InterruptedRunError):
        train("train.epochs=4", *overrides, name="cut", console=StopAfter(1))
    assert fl.load_run(tmp_path / "runs" / "cut").state == "interrupted"
    with pytest.raises(InterruptedRunError):
        fl.resume(tmp_path / "runs" / "cut", console=StopAfter(1))
    resumed = fl.resume(tmp_path / "runs" / "cut", console=Console(quiet=True))
    assert resumed.state == "finished"
    assert checkpoint_hashes(resumed) == checkpoint_hashes(whole)
    assert figures_of(resumed) == figures_of(whole)
    assert {key: value for key, value in resumed.summary.items() if key != "seconds"} == {
        k: v for k, v in whole.summary.items() if k != "seconds"
    }


class Dropping(torch.nn.Module):
    """A network that drops values without a dropout layer."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(math.prod(image_shape), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dropped: torch.Tensor = self.linear(torch.nn.functional.dropout(images.flatten(1), 0.5, self.training))
        return dropped


def test_draws_inside_a_network_are_resumed(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3: whatever draws, draws the same on the same batch."""
    monkeypatch.setitem(cast("dict[str, Any]", MODELS), "dropping", Dropping)
    whole = train("model=dropping", "train.epochs=3", name="whole")
    with pytest.raises(InterruptedRunError):
        train("model=dropping", "train.epochs=3", name="cut", console=StopAfter(1))
    resumed = fl.resume(tmp_path / "runs" / "cut", console=Console(quiet=True))
    assert checkpoint_hashes(resumed) == checkpoint_hashes(whole)


def edit_checkpoint(path: Path, file: str | None = None, content: bytes = b"", **changes: object) -> None:
    """Change a checkpoint so that all its checksums are right again."""
    record = read_record(path)
    if file is not None:
        (path / file).write_bytes(content)
        record["sha256"][file] = hashlib.sha256(content).hexdigest()
    record |= changes
    record["sha256_of_record"] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    (path / "state.json").write_text(json.dumps(record))


def test_a_resume_that_forgets_the_optimizer_is_noticed(train: Train, tmp_path: Path) -> None:
    """Negative control of the test above: without the momentum the bits differ."""
    whole = train("train.epochs=3", name="whole")
    with pytest.raises(InterruptedRunError):
        train("train.epochs=3", name="cut", console=StopAfter(1))
    edit_checkpoint(
        find_checkpoint(tmp_path / "runs" / "cut" / "checkpoints", "last"), "optim.safetensors", b"".join(tensors_to_chunks({}))
    )
    resumed = fl.resume(tmp_path / "runs" / "cut", console=Console(quiet=True))
    assert checkpoint_hashes(resumed) != checkpoint_hashes(whole)


def test_an_interrupted_run_says_how_to_go_on(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match=r"firstlight train --resume .*runs/run$") as caught:
        train(console=StopAfter(1))
    assert caught.value.exit_code == 130


def test_a_finished_run_is_not_resumed(train: Train) -> None:
    run = train()
    with pytest.raises(ConfigError, match="is finished"):
        fl.resume(run.path)


CNN = "model={name: small_cnn, widths: [4, 8]}"
OPTIMIZERS = {
    "sgd": ["optim={name: sgd, momentum: 0.9, nesterov: true}"],
    "adam": ["optim=adam", "model={name: mlp, hidden: [16], dropout: 0.5}"],
    "adamw": ["optim=adamw", "train.ema_decay=0.9", "schedule={name: plateau, patience: 1}"],
    "rmsprop": ["optim={name: rmsprop, momentum: 0.5}", "train.accumulate=3", "augment.flip=true", "augment.crop=1"],
    "muon": ["optim=muon", "train.clip_norm=0.5", "augment.cutout=3"],
    "bfloat16": ["optim=adam", "device={name: cpu, precision: bfloat16, memory_format: channels_last, threads: 1}", CNN],
}


@pytest.mark.parametrize("points", [30, pytest.param(100, marks=pytest.mark.soak)])
@pytest.mark.parametrize("overrides", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_resume_from_every_step(train: Train, tmp_path: Path, overrides: list[str], points: int) -> None:
    """F3: from every one of 30 steps, 100 in a soak, a run goes on to the same bits; in an epoch's midst and at its end."""
    epochs = points // 10 * (3 if "train.accumulate=3" in overrides else 1)
    steps = ["train.batch_size=8", "split.num_train=80", f"train.epochs={epochs}", "train.test_at_end=false"]
    whole = train(*overrides, *steps, "checkpoint.every_steps=1", "checkpoint.keep_last=100000", name="whole")
    ending, rows, saved = f"step-{whole.steps[-1]['step']}/", figures_of(whole), step_folders(whole.path / "checkpoints")
    assert len(saved) >= points
    expected = {name: digest for name, digest in checkpoint_hashes(whole).items() if name.startswith(ending)}
    assert len(expected) >= 2
    cut = tmp_path / "runs" / "cut"
    for path in saved[:-1]:
        copy_up_to(whole.path, path, cut)
        resumed = fl.resume(cut, "checkpoint.every_steps=null", "checkpoint.keep_last=1", console=Console(quiet=True))
        found = {name: digest for name, digest in checkpoint_hashes(resumed).items() if name.startswith(ending)}
        assert found == expected, path.name
        assert figures_of(resumed) == rows, path.name
        shutil.rmtree(cut)


def copy_up_to(run: Path, last: Path, target: Path) -> None:
    """Copy a run as it would be if it had been killed behind the save `last`: that checkpoint, its best one, all rows and a few more."""
    shutil.copytree(run, target, ignore=lambda folder, names: [name for name in names if name.startswith("step-")])
    best = read_record(last)["best"]
    for path in {last, *([last.with_name(f"step-{best['step']}")] if best else [])}:
        shutil.copytree(path, target / "checkpoints" / path.name)
    info = json.loads((target / "run.json").read_text())
    (target / "run.json").write_text(json.dumps({**info, "state": "running"}))


FORGOTTEN = {
    "position in the epoch": {"position": {"batch": 0}},
    "step of the schedule": {"position": {"step": 9}},
    "halved learning rate": {"position": {"lr_scale": 0.5}},
    "patience": {"position": {"stale_epochs": 5}},
    "state of the schedule": {"schedule": {"scale": 0.5}},
    "loss of the running epoch": {"running": [0.0, 0.0]},
    "best epoch": {"best": {"value": 2.0}},
}


@pytest.mark.parametrize("forgotten", FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_resume_that_forgets_a_part_of_the_state_is_noticed(train: Train, tmp_path: Path, forgotten: dict[str, Any]) -> None:
    """Negative control of F3: leave out any one part of what is saved, and the run ends otherwise."""
    words = ["train.epochs=4", "schedule={name: plateau, patience: 3, warmup_epochs: 3}", "train.patience=3", "checkpoint.every_steps=1"]
    whole = train(*words, name="whole")
    with pytest.raises(InterruptedRunError):
        train(*words, name="cut", console=StopAfter(2))
    last = step_folders(tmp_path / "runs" / "cut" / "checkpoints")[-1]
    record = read_record(last)
    assert record["position"]["batch"] == 1
    edit_checkpoint(last, **{key: {**record[key], **value} if isinstance(value, dict) else value for key, value in forgotten.items()})
    resumed = fl.resume(tmp_path / "runs" / "cut", console=Console(quiet=True))
    assert (checkpoint_hashes(resumed), figures_of(resumed), resumed.summary["best_epoch"]) != (
        checkpoint_hashes(whole),
        figures_of(whole),
        whole.summary["best_epoch"],
    )


@pytest.fixture
def cut(train: Train, tmp_path: Path) -> fl.Run:
    """A run of 3 epochs that was stopped after the first."""
    with pytest.raises(InterruptedRunError):
        train("train.epochs=3", name="cut", console=StopAfter(1))
    return fl.load_run(tmp_path / "runs" / "cut")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(cut: fl.Run, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 16: the damage is named, the one before is taken, and the run ends as it would have; the damaged one is set aside."""
    first, last = step_folders(cut.path / "checkpoints")
    assert first.name == "step-7"
    spoil(last / "optim.safetensors")
    resumed = fl.resume(cut.path)
    assert f"warning: {last / 'optim.safetensors'} is damaged: its sha256 is not" in capsys.readouterr().err
    assert resumed.info["resumes"][0]["step"] == 7
    assert (cut.path / "checkpoints" / f"damaged-{last.name}").is_dir()
    whole = train("train.epochs=3", name="whole")
    assert checkpoint_hashes(resumed) == checkpoint_hashes(whole)
    assert figures_of(resumed) == figures_of(whole)


def test_a_run_whose_checkpoints_are_all_damaged_is_not_resumed(cut: fl.Run) -> None:
    """Fault 16: exit 4, and not one of them is touched."""
    folders = step_folders(cut.path / "checkpoints")
    for folder in folders:
        spoil(folder / "optim.safetensors")
    with pytest.raises(CheckpointError, match=r"optim\.safetensors is damaged") as caught:
        fl.resume(cut.path, console=Console(quiet=True))
    assert caught.value.exit_code == 4
    assert step_folders(cut.path / "checkpoints") == folders


def spoil(path: Path) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_run_that_saved_nothing_begins_again(cut: fl.Run, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(cut.path / "checkpoints")
    resumed = fl.resume(cut.path)
    assert "nothing was saved yet; training begins at step 0" in capsys.readouterr().err
    assert figures_of(resumed) == figures_of(train("train.epochs=3", name="whole"))


def test_the_pointers_are_not_needed_to_resume(cut: fl.Run, train: Train) -> None:
    """Fault 3: the step folders say it all."""
    for name in ("last", "best"):
        (cut.path / "checkpoints" / f"{name}.json").unlink()
    resumed = fl.resume(cut.path, console=Console(quiet=True))
    assert figures_of(resumed) == figures_of(train("train.epochs=3", name="whole"))
    assert find_checkpoint(cut.path / "checkpoints", "best").name == f"step-{resumed.summary['best_epoch'] * 7}"


def test_changed_settings_are_listed_and_refused(cut: fl.Run) -> None:
    """Fault 22: by an edit of config.yaml or on the command line; all in one message; nothing was written."""
    text = (cut.path / "config.yaml").read_text()
    (cut.path / "config.yaml").write_text(text.replace("lr: 0.1", "lr: 0.2"))
    before = snapshot(cut.path)
    with pytest.raises(ConfigError, match=r"other settings: optim\.lr 0\.1 -> 0\.2, train\.clip_norm None -> 1\.0; .*--override"):
        fl.resume(cut.path, "train.clip_norm=1", console=Console(quiet=True))
    assert snapshot(cut.path) == before
    resumed = fl.resume(cut.path, override=True, console=Console(quiet=True))
    assert resumed.info["resumes"][0]["changed"] == {"optim.lr": "0.1 -> 0.2"}
    assert resumed.epochs[-1]["epoch"] == 3


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but the lock, with its content."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


@pytest.mark.parametrize(
    "change",
    ["data=mnist", "split.num_train=90", "split.seed=3", "input.normalize=none", "model=linear", "seed=1", "train.batch_size=8",
     "train.accumulate=2", "train.monitor=val_loss"],
)  # fmt: skip
def test_what_a_run_is_cannot_change(cut: fl.Run, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 22: not even by override; nothing is touched, strays and warnings included."""
    (cut.path / "checkpoints" / ".tmp-stray").mkdir()
    spoil(step_folders(cut.path / "checkpoints")[-1] / "model.safetensors")
    before = snapshot(cut.path)
    with pytest.raises((ConfigError, DataError), match=r"cannot change within a run: |mnist|input\.normalize"):
        fl.resume(cut.path, change, override=True, console=Console(quiet=True))
    assert snapshot(cut.path) == before


def test_a_changed_device_stays_changed(cut: fl.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 21: the new arithmetic is warned about, recorded, and taken again by the next resume."""
    with pytest.raises(InterruptedRunError):
        fl.resume(cut.path, "device.precision=bfloat16", console=StopAfter(1))
    assert "not be bit-exact because of another machine: precision float32 -> bfloat16" in (cut.path / "log.txt").read_text()
    resumed = fl.resume(cut.path, exact=True)
    assert "device: cpu, bfloat16" in capsys.readouterr().err
    assert resumed.info["arithmetic"]["precision"] == resumed.info["machine"]["precision"] == "bfloat16"


def test_a_damaged_best_checkpoint_is_not_waited_for(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 16: said at once, and the best is looked for among the epochs to come."""
    with pytest.raises(InterruptedRunError):
        train("train.epochs=4", "optim.lr=0.5", name="cut", console=StopAfter(2))
    cut = fl.load_run(tmp_path / "runs" / "cut")
    best = find_checkpoint(cut.path / "checkpoints", "best")
    spoil(best / "model.safetensors")
    resumed = fl.resume(cut.path)
    assert f"{best / 'model.safetensors'} is damaged" in capsys.readouterr().err
    assert resumed.state == "finished" and resumed.summary["best_epoch"] >= 3


def test_checkpoints_out_of_sight_are_not_begun_anew(cut: fl.Run) -> None:
    """Fault 9: a link to a disk that is not mounted; step folders that were moved away."""
    rows = (cut.path / "metrics.jsonl").read_bytes()
    (cut.path / "checkpoints").rename(cut.path / "away")
    (cut.path / "checkpoints").symlink_to(cut.path / "unmounted")
    with pytest.raises(CheckpointError, match="leads nowhere; mount or put back"):
        fl.resume(cut.path, console=Console(quiet=True))
    (cut.path / "checkpoints").unlink()
    (cut.path / "checkpoints").mkdir()
    shutil.copy(cut.path / "away" / "last.json", cut.path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"last\.json points to a checkpoint, but there is none"):
        fl.resume(cut.path, console=Console(quiet=True))
    assert (cut.path / "metrics.jsonl").read_bytes() == rows


class StopInValidation(StopAfter):
    """Presses Ctrl-C when the losses of an epoch's last step are fetched: validation is what comes next."""

    @contextmanager
    def progress(self, what: str, total: int, *, done: int = 0) -> Iterator[Bar]:
        console = self

        class Press(Bar):
            def update(self, done: int, now: str = "") -> None:
                if done == 14 and console.left >= 0:
                    console.left = -1
                    signal.raise_signal(signal.SIGTERM)

        yield Press(None, None)


@pytest.mark.parametrize("log_every", [7, 5])
def test_a_stop_does_not_wait_for_a_validation(train: Train, tmp_path: Path, log_every: int) -> None:
    """Fault 4: the step is saved, and validated by the resume; the bits are the same, on the last epoch too."""
    words = ["train.epochs=2", f"train.log_every={log_every}"]
    whole = train(*words, name="whole")
    with pytest.raises(InterruptedRunError, match=r"interrupted, saved; checkpoint step-14-batch-7 is kept") as caught:
        train(*words, name="cut", console=StopInValidation(1))
    assert caught.value.exit_code == 143
    assert len(fl.load_run(tmp_path / "runs" / "cut").epochs) == 1
    resumed = fl.resume(tmp_path / "runs" / "cut", console=Console(quiet=True))
    assert figures_of(resumed) == figures_of(whole)
    last = {name: digest for name, digest in checkpoint_hashes(resumed).items() if name.startswith("step-14/")}
    assert last == {name: digest for name, digest in checkpoint_hashes(whole).items() if name.startswith("step-14/")}


def test_a_run_that_ended_early_is_finished(train: Train) -> None:
    run = train("train.epochs=30", "train.patience=1", "optim.lr=0.5")
    assert len(run.epochs) < 30
    with pytest.raises(ConfigError, match=rf"is finished; train it for longer with train\.epochs=N \(it had {len(run.epochs)}\)"):
        fl.resume(run.path)
    assert len(fl.resume(run.path, "train.patience=2", console=Console(quiet=True)).epochs) > len(run.epochs)


def test_fewer_epochs_than_there_were_are_refused(cut: fl.Run) -> None:
    before = snapshot(cut.path)
    with pytest.raises(ConfigError, match=r"train\.epochs is 1, but the run stands in epoch 2; set a larger one"):
        fl.resume(cut.path, "train.epochs=1", override=True)
    assert snapshot(cut.path) == before


def test_a_stop_does_not_move_the_point_that_training_rolls_back_to(train: Train, tmp_path: Path) -> None:
    """F3, fault 24: a checkpoint that only Ctrl-C made is no place to go back to."""
    words = ["train.epochs=8", "checkpoint.every=5", "train.on_divergence=rollback", "train.log_every=3", "schedule=constant"]
    words += ["optim={name: sgd, lr: 0.1, weight_decay: 75}", "split.val_fraction=0", "train.monitor=val_loss"]
    whole = train(*words, name="whole")
    assert whole.info["rollbacks"]
    with pytest.raises(InterruptedRunError):
        train(*words, name="cut", console=StopAfter(2))
    resumed = fl.resume(tmp_path / "runs" / "cut", console=Console(quiet=True))
    assert [entry["step"] for entry in resumed.info["rollbacks"]] == [entry["step"] for entry in whole.info["rollbacks"]]
    assert figures_of(resumed) == figures_of(whole)
    assert checkpoint_hashes(resumed) == checkpoint_hashes(whole)


def test_harmless_settings_change_on_the_way(cut: fl.Run) -> None:
    """Fault 22: epochs up, the log interval, how often to save."""
    resumed = fl.resume(cut.path, "train.epochs=4", "train.log_every=1", "checkpoint.every_steps=2", console=Console(quiet=True))
    assert [row["epoch"] for row in resumed.epochs] == [1, 2, 3, 4]
    assert resumed.config["train"]["epochs"] == 4
    with pytest.raises(ConfigError, match=r"is finished; train it for longer with train\.epochs=N"):
        fl.resume(resumed.path)
    assert len(fl.resume(resumed.path, "train.epochs=5", console=Console(quiet=True)).epochs) == 5


def test_settings_of_a_run_that_saved_nothing_may_change(cut: fl.Run) -> None:
    """No step was made with the old ones; what is trained is what config.yaml says."""
    shutil.rmtree(cut.path / "checkpoints")
    resumed = fl.resume(cut.path, "optim.lr=0.2", "train.epochs=2", console=Console(quiet=True))
    assert (resumed.config["optim"]["lr"], len(resumed.epochs)) == (0.2, 2)


def test_an_average_may_begin_on_the_way(cut: fl.Run) -> None:
    resumed = fl.resume(cut.path, "train.ema_decay=0.5", override=True, console=Console(quiet=True))
    assert fl.evaluate(resumed.path, which="last")["loss"] == pytest.approx(resumed.epochs[-1]["val_loss"])


def test_a_checkpoint_of_a_later_version_is_left_alone(cut: fl.Run) -> None:
    """Fault 17: it is whole, so it is neither passed over nor set aside."""
    folders = step_folders(cut.path / "checkpoints")
    edit_checkpoint(folders[-1], format=2)
    with pytest.raises(CheckpointFormatError, match="has checkpoint format 2, this firstlight reads 1; use the version that wrote it"):
        fl.resume(cut.path, console=Console(quiet=True))
    assert step_folders(cut.path / "checkpoints") == folders


def test_another_optimizer_begins_with_an_empty_memory(cut: fl.Run) -> None:
    resumed = fl.resume(cut.path, "optim=adam", override=True, console=Console(quiet=True))
    assert resumed.state == "finished" and resumed.epochs[-1]["train_loss"] < 10


def test_changed_data_are_refused(cut: fl.Run) -> None:
    """The images and labels themselves are compared; where they lie may change."""
    info = json.loads((cut.path / "run.json").read_text())
    info["data"]["source"] = "elsewhere"
    (cut.path / "run.json").write_text(json.dumps({**info, "data": {**info["data"], "num_train": 199}}))
    with pytest.raises(DataError, match=r"the data changed since the run began: num_train 199 -> 200; put the old data back"):
        fl.resume(cut.path, console=Console(quiet=True))
    (cut.path / "run.json").write_text(json.dumps({**info, "data": {**info["data"], "content_hash": "0" * 64}}))
    with pytest.raises(DataError, match=r"the data changed since the run began: content_hash; put the old data back"):
        fl.resume(cut.path, console=Console(quiet=True))
    assert fl.resume(cut.path, override=True, console=Console(quiet=True)).state == "finished"


def test_data_may_lie_elsewhere(cut: fl.Run) -> None:
    info = json.loads((cut.path / "run.json").read_text())
    (cut.path / "run.json").write_text(json.dumps({**info, "data": {**info["data"], "source": "elsewhere"}}))
    assert fl.resume(cut.path, console=Console(quiet=True)).state == "finished"


def test_another_machine_is_warned_about_or_refused(cut: fl.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 21: thread count, instruction set, torch; `--exact` refuses."""
    info = json.loads((cut.path / "run.json").read_text())
    info["machine"] |= {"threads": 2, "torch": "2.0", "instruction set": "Z80"}
    (cut.path / "run.json").write_text(json.dumps(info))
    with pytest.raises(
        ConfigError, match=r"not be bit-exact .* instruction set Z80 -> .*threads 2 -> 1, torch 2\.0 -> .*leave out --exact"
    ):
        fl.resume(cut.path, exact=True, console=Console(quiet=True))
    assert fl.resume(cut.path).state == "finished"
    assert "warning: the resumed run will not be bit-exact because of another machine: instruction set Z80 ->" in capsys.readouterr().err


def test_the_same_machine_is_exact(cut: fl.Run) -> None:
    assert fl.resume(cut.path, exact=True, console=Console(quiet=True)).info["resumes"][0]["inexact"] is None


def test_the_clock_decides_nothing(cut: fl.Run, train: Train) -> None:
    """Fault 14: the order of checkpoints is by step, whatever the files' times say; durations never come from the wall clock."""
    first, last = step_folders(cut.path / "checkpoints")
    for path in (*first.rglob("*"), first):
        os.utime(path, (4e9, 4e9))
    for path in (*last.rglob("*"), last):
        os.utime(path, (0, 0))
    resumed = fl.resume(cut.path, console=Console(quiet=True))
    assert resumed.info["resumes"][0]["step"] == read_record_step(last.name)
    assert figures_of(resumed) == figures_of(train("train.epochs=3", name="whole"))


def read_record_step(name: str) -> int:
    return int(name.split("-")[1])


def test_the_time_of_a_killed_process_counts(cut: fl.Run) -> None:
    """The seconds up to the checkpoint are kept in it, for run.json is not written when a process is killed."""
    last = step_folders(cut.path / "checkpoints")[-1]
    edit_checkpoint(last, facts={**read_record(last)["facts"], "seconds": 1000.0})
    assert fl.resume(cut.path, console=Console(quiet=True)).info["seconds"] > 1000


def test_the_latest_interrupted_run_is_found(cut: fl.Run, train: Train) -> None:
    """D12: resume automatically."""
    train(name="done")
    assert fl.resume("latest", runs_dir=cut.path.parent, console=Console(quiet=True)).name == "cut"
    with pytest.raises(RunNotFoundError, match="no interrupted run in"):
        fl.resume("latest", runs_dir=cut.path.parent)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.soak)])
def test_no_damaged_checkpoint_loads(train: Train, tmp_path: Path, count: int) -> None:
    """F12, fault 16, 17, 19: bits turned, ends cut off, bytes put in or taken out of any file: refused, or the very same content."""
    path = find_checkpoint(train("train.ema_decay=0.9").path / "checkpoints", "last")
    good = read_checkpoint(path)
    draw = random.Random(count)
    for number in range(count):
        damaged = tmp_path / f"step-{number}"
        shutil.copytree(path, damaged)
        file = draw.choice(sorted(damaged.iterdir()))
        content = file.read_bytes()
        file.write_bytes(mutate(content, draw))
        try:
            found = read_checkpoint(damaged)
        except CheckpointError as error:
            assert str(damaged) in str(error) and "\n" not in str(error)
        else:
            assert found.record == good.record and file.name == "state.json", "only the white space of state.json may differ"
        shutil.rmtree(damaged)


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Damage some bytes."""
    at, kind = draw.randrange(len(content)), draw.randrange(5)
    piece = content[at : at + draw.randint(1, 40)]
    return {
        0: content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :],
        1: content[:at],
        2: content[:at] + content[at + len(piece) :],
        3: content[:at] + piece[::-1] + piece + content[at:],
        4: draw.randbytes(draw.randint(0, 200)),
    }[kind]


HOSTILE = [
    "",
    "{",
    "[]",
    "null",
    "7",
    '{"format": 1}',
    "[" * 100_000,
    '{"format": 1, "sha256": {"../../../x": "0"}}',
    '{"format": 0}',
    "\0",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_state_that_is_none_is_refused(cut: fl.Run, text: str) -> None:
    """Fault 17: empty, not a checkpoint, of an older version, nested without end, pointing out of the folder."""
    path = step_folders(cut.path / "checkpoints")[-1]
    (path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=path.name):
        read_checkpoint(path)


def archive_of_code() -> bytes:
    """Return a zip as TorchScript has it: code beside data."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/code/__torch__.py", "class M(Module):\n  def forward(self, x):\n    return x\n")
        archive.writestr("model/data.pkl", b"\x80\x02c__torch__\nM\n.")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", archive_of_code(), b"x" * 600], ids=["pickle", "code", "text"]
)
def test_a_pickle_is_never_executed(cut: fl.Run, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F12, fault 18, fault 23: weights in any other form than safetensors are refused, whatever their checksum."""
    monkeypatch.chdir(tmp_path)
    path = step_folders(cut.path / "checkpoints")[-1]
    edit_checkpoint(path, "model.safetensors", content)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        read_checkpoint(path)
    assert not (tmp_path / "hacked").exists()


def test_a_header_that_promises_more_than_there_is_is_refused(cut: fl.Run) -> None:
    """Fault 19: a tensor of a terabyte, a header of a gigabyte, 100,000 tensors of nothing: looked at before memory is taken."""
    path = step_folders(cut.path / "checkpoints")[-1]
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    many = json.dumps({f"w{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(100_000)}).encode()
    for content in (len(header).to_bytes(8, "little") + header, (2**30).to_bytes(8, "little") + b"{}"):
        edit_checkpoint(path, "model.safetensors", content)
        with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
            read_checkpoint(path)
    edit_checkpoint(path, "model.safetensors", len(many).to_bytes(8, "little") + many)
    with pytest.raises(CheckpointError, match="another architecture"):
        fl.resume(cut.path, console=Console(quiet=True))


FORMATS = sorted((Path(__file__).parents[1] / "fixtures").glob("run-format-*"))


@pytest.mark.parametrize("saved", FORMATS, ids=[path.name for path in FORMATS])
def test_a_run_saved_by_an_older_version_goes_on(saved: Path, tmp_path: Path) -> None:
    """Fault 17: saved runs of every format that there was are kept here; they are evaluated, and resumed to the end they had."""
    run = tmp_path / saved.name
    shutil.copytree(saved, run)
    expected = json.loads((saved / "expected.json").read_text())
    best = read_record(find_checkpoint(run / "checkpoints", "best"))["best"]
    assert fl.evaluate(run)["loss"] == pytest.approx(best["figures"]["val_loss"], rel=1e-4)
    resumed = fl.resume(run, console=Console(quiet=True))
    for row, wanted in zip(figures_of(resumed), expected["rows"], strict=True):
        assert (row.pop("kind"), row) == (wanted.pop("kind"), pytest.approx(wanted, rel=1e-3))
    assert resumed.summary["val_loss"] == pytest.approx(expected["summary"]["val_loss"], rel=1e-3)


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_damaged_run_folder_gives_a_traceback(tmp_path: Path, count: int) -> None:
    """F12, fault 50 in part: run.json, config.yaml, metrics.jsonl and the pointers with any damage: listed, and refused in one line."""
    saved = FORMATS[0]
    for number in range(count):
        run = tmp_path / f"run-{number}"
        shutil.copytree(saved, run)
        file = run / ("run.json", "config.yaml", "metrics.jsonl", "checkpoints/best.json")[number % 4]
        file.write_bytes(damage(file.read_bytes(), number))
        (found,) = fl.list_runs(tmp_path)
        assert list_table(tmp_path, "val_accuracy")["runs"][0]["name"] == found.name
        try:
            fl.load_model(run)
        except fl.FirstlightError as error:
            assert "\n" not in str(error) or "problems in the config:" in str(error).splitlines()[0], error
        shutil.rmtree(run)
