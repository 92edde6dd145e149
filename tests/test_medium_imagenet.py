"""From a file of Medium ImageNet's layout to a checked submission, one command each, with a training that is killed midway (D8, D12)."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import firstlight as fl

NUM_CLASSES = 200
FIXED = "device={name: cpu, precision: float32, memory_format: contiguous, threads: 1}"


def test_from_a_generated_file_to_a_checked_submission(tmp_path: Path) -> None:
    """D8, D12, fault 27: 600 images of 200 classes; kill -9 inside the training."""
    make_sample(tmp_path, 60)
    settings = ["model={name: small_cnn, widths: [4, 8]}", "train.batch_size=50", "train.epochs=12", "checkpoint.every_steps=5"]
    walk(tmp_path, ["--images", "600", "--size", "24"], [*settings, "input.image_size=16", "augment.crop=2", FIXED], stop=signal.SIGKILL)


@pytest.mark.soak
def test_the_course_set_in_small(tmp_path: Path) -> None:
    """D8, D12, fault 6: 20,000 images at 96 px, streamed; Ctrl-C inside the training; the score is what validation says."""
    make_sample(tmp_path, 2000)
    settings = ["model={name: small_cnn, widths: [32, 64, 128]}", "optim={name: adamw, lr: 3.0e-3}", "train.epochs=6"]
    settings += ["data.stream=on", "data.buffer_mib=64", "checkpoint.every_steps=20", "augment.flip=false"]  # classes are mirror images
    score = walk(tmp_path, ["--images", "20000", "--size", "96"], settings, stop=signal.SIGINT)
    judged = call("submit", "walk", "--score", f"{score:.4f}", "--json", cwd=tmp_path)
    assert score > 0.9 and judged["plausible"] is True


def walk(folder: Path, size: list[str], settings: list[str], *, stop: signal.Signals) -> float:
    """Generate, train, stop, resume, predict, submit and check in child processes; return the share of right answers."""
    call("data", "generate", "made.h5", *size, "--classes", str(NUM_CLASSES), "--json", cwd=folder)
    training = begin("train", "resnet18_medium_imagenet", "data.path=made.h5", *settings, "--name", "walk", cwd=folder)
    while not list(folder.glob("runs/walk/checkpoints/step-*-batch-*")):
        assert training.poll() is None, training.communicate()[1]
        time.sleep(0.01)
    training.send_signal(stop)
    training.communicate()
    assert training.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[stop]
    assert fl.load_run(folder / "runs" / "walk").state == "interrupted"
    call("train", "--resume", "walk", "--json", cwd=folder)
    assert fl.load_run(folder / "runs" / "walk").state == "finished"
    call("predict", "walk", "--out", "answers.csv", "--json", cwd=folder)
    call("submit", "walk", "--sample", "sample.csv", "--json", cwd=folder)
    call("submit", "--check", "submission.csv", "--sample", "sample.csv", "--json", cwd=folder)
    rows = read(folder / "submission.csv")
    num_images = len(read(folder / "sample.csv")) - 1
    assert rows[0] == ["Id", "Category"] and [row[0] for row in rows[1:]] == [str(number) for number in range(num_images)]
    header, *answers = read(folder / "answers.csv")
    best = np.array([row[-NUM_CLASSES:] for row in answers], float).argmax(1)
    assert [int(row[1]) for row in rows[1:]] == best.tolist() and len(header) == len(answers[0])
    labels = np.random.default_rng([0, 2]).permutation(np.arange(num_images) % NUM_CLASSES)  # as the generator draws them, and hides them
    return float((best == labels).mean())


def make_sample(folder: Path, num_images: int) -> None:
    """Write a sample submission as a competition hands it out: ids from 0, one class for all."""
    lines = ["Id,Category", *(f"{number},0" for number in range(num_images))]
    (folder / "sample.csv").write_text("\n".join(lines) + "\n")


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def begin(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "firstlight", *words],
        cwd=cwd,
        env={**os.environ, "FIRSTLIGHT_RUNS": "runs", "FIRSTLIGHT_CACHE": str(cwd / "cache"), "FIRSTLIGHT_DATA": str(cwd)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(*words: str, cwd: Path) -> Any:
    """Return what a command says with --json."""
    command = begin(*words, cwd=cwd)
    out, err = command.communicate()
    assert command.returncode == 0, err
    return json.loads(out)
