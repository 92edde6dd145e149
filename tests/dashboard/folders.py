"""Light run folders, written as a training writes them."""

import shutil
from pathlib import Path
from typing import Any

from firstlight.tracking.writer import RunWriter


def write_run(
    path: Path, *, lr: float = 0.1, accuracy: float = 0.9, notes: tuple[str, ...] = (), model: str = "lenet", **info: Any
) -> Path:
    """Write a finished run of two epochs."""
    config = (
        f"name: made\nseed: 0\ndata: {{name: digits}}\nmodel: {{name: {model}}}\noptim:\n  name: sgd\n  lr: {lr}\ntrain: {{epochs: 2}}\n"
    )
    with RunWriter(path) as writer:
        writer.start(config, notes=list(notes), data={"num_train": 100, "source": "digits"}, **info)
        for epoch in (1, 2):
            writer.append([{"kind": "step", "step": epoch, "epoch": epoch, "lr": lr, "loss": 1 / epoch, "grad_norm": 1.0}])
            row = {"kind": "epoch", "epoch": epoch, "step": epoch, "lr": lr, "train_loss": 0.5, "train_accuracy": 0.5}
            writer.append([{**row, "val_loss": 1 - accuracy, "val_accuracy": accuracy, "best": True, "seconds": 0.5}])
        writer.update(summary={"best_epoch": 2, "val_accuracy": accuracy, "val_loss": 1 - accuracy})
    return path


def copy_run(source: Path, target: Path, *, lr: float, accuracy: float, model: str) -> None:
    """Copy a run of `write_run`'s first values as one of others; it takes a hundredth of the time."""
    shutil.copytree(source, target)
    for name, before, after in (
        ("config.yaml", "lr: 0.001", f"lr: {lr}"),
        ("config.yaml", "lenet", model),
        ("run.json", '"val_accuracy": 0.5', f'"val_accuracy": {accuracy}'),
    ):
        text = (target / name).read_text()
        assert before in text
        (target / name).write_text(text.replace(before, after))
