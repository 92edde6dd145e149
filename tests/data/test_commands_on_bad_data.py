"""What a user sees of damaged data: the real command in a child process, its exit code and its one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def firstlight(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = {"PYTHONPATH": str(ROOT), "FIRSTLIGHT_CACHE": str(folder / "cache"), "FIRSTLIGHT_RUNS": str(folder / "runs"), **environment}
    command = [sys.executable, "-m", "firstlight", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | settings, check=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(40):
        path = tmp_path / "photos" / "train" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    (tmp_path / "photos" / "train" / "a" / "08.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_a_bad_image_ends_a_training_in_one_line_or_is_skipped_with_a_warning(photos: Path):
    """Fault 30: exit code 3 before anything is trained; the message says what to type next, and typing it trains."""
    words = ["train", "data=folder", "data.path=photos", "data.test_fraction=0", "train.epochs=1", "train.test_at_end=false"]
    stopped = firstlight(photos.parent, *words)
    (line,) = stopped.stderr.splitlines()
    assert (stopped.returncode, line.startswith("error: ")) == (3, True)
    assert "a/08.png: no image" in line and "(number 4 of the training images, from 0)" in line and "data.bad_images=skip" in line
    skipped = firstlight(photos.parent, *words, "data.bad_images=skip")
    assert skipped.returncode == 0
    assert "1 of 40 training images are bad, replaced by others of their class: train/a/08.png" in skipped.stdout + skipped.stderr


def test_check_lists_the_bad_image(photos: Path):
    """Fault 30."""
    checked = firstlight(photos.parent, "data", "check", "photos")
    assert checked.returncode == 3
    assert "train/a/08.png" in checked.stdout
    assert checked.stderr.startswith("error: 1 finding in ")


def test_no_network(tmp_path: Path):
    """Fault 41: exit code 3 and one line with each address and the way without a network. Port 9 of this machine takes no connection."""
    nowhere = "http://127.0.0.1:9"
    fetched = firstlight(tmp_path, "data", "fetch", "mnist", "--data-dir", "data", https_proxy=nowhere, HTTPS_PROXY=nowhere, no_proxy="")
    assert fetched.returncode == 3
    (line,) = [line for line in fetched.stderr.splitlines() if "MB" not in line]
    assert line.startswith("error: cannot fetch train-images-idx3-ubyte.gz: https://") and "--from FILE" in line
    assert not list((tmp_path / "data").rglob("*.part"))
