"""A resumed run is the uninterrupted one: weights, optimizer, averages, rows (F3 in small; A8, D12)."""

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.engine.checkpoint import find_checkpoint, read_record
from firstlight.errors import CheckpointError, ConfigError, InterruptedRunError
from firstlight.files import tensors_to_bytes
from firstlight.tracking.console import Console

Train = Callable[..., fl.Run]


def figures_of(run: fl.Run) -> list[dict[str, object]]:
    """Return the metric rows without what the clock and the machine say."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "memory_mib")} for row in run.rows]


class StopAfter(Console):
    """A console that presses Ctrl-C when it has said a number of lines about epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__(quiet=True)
        self.left = epochs

    def line(self, text: str, *, style: str | None = None) -> None:
        super().line(text, style=style)
        self.left -= text.startswith("epoch")
        if self.left == 0:
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
    edit_checkpoint(find_checkpoint(tmp_path / "runs" / "cut" / "checkpoints", "last"), "optim.safetensors", tensors_to_bytes({}))
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


def test_a_damaged_checkpoint_is_not_resumed(train: Train, tmp_path: Path) -> None:
    """Fault 16: one flipped bit is noticed, and named."""
    with pytest.raises(InterruptedRunError):
        train(console=StopAfter(1))
    for path in (tmp_path / "runs" / "run" / "checkpoints").glob("step-*/optim.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"optim\.safetensors is damaged"):
        fl.resume(tmp_path / "runs" / "run")
