"""Many images: the inspections stream them, and keep a few numbers of each."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FEW, MANY = 3_000, 9_000
PIXELS = 28 * 28
HIDDEN = 2048
CODE = f"""
import resource, sys
import firstlight as fl
from firstlight.inspection.confusion import inspect_confusion
from firstlight.inspection.mistakes import inspect_mistakes
from firstlight.inspection.predictions import inspect_predictions
words = ["data=mnist", "model={{name: mlp, hidden: [{HIDDEN}]}}", "split.num_train=200", "split.val_fraction=0.9"]
for folder in sys.argv[1:]:
    places = {{"runs_dir": folder, "data_dir": folder}}
    fl.train("quickstart", *words, "train.epochs=1", "train.test_at_end=false", name="many", **places)
    inspect_predictions("many", num=1, **places)
    inspect_mistakes("many", num=1, **places)
    inspect_confusion("many", **places)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_images(folder: Path, num: int) -> None:
    """Write images of MNIST's form, a bright row whose height is the label, under noise; half of the labels are wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, num).astype(np.uint8)
    images = rng.integers(0, 120, (num, 28, 28), dtype=np.uint8)
    images[np.arange(num), labels.astype(int) * 2 + 3] = 255
    labels[::2] = rng.integers(0, 10, len(labels[::2]))
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, num, 28, 28) + images.tobytes())
    (raw / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, num) + labels.tobytes())


def peaks(*folders: Path) -> list[int]:
    """Bytes that a process has taken at most after it has trained on a few images of each folder, and looked at nine tenths of them."""
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, folders)], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_memory_grows_by_the_pixels_and_a_few_numbers_an_image(tmp_path: Path) -> None:
    """Issue 6, bad input: 100,000 images stream, memory flat.

    Between 3,000 and 9,000 images the peak may grow by five copies of the uint8 pixels (the file, the data set, its parts) and 1,000
    bytes an image; the features of all at once would take 8,192 bytes an image more.
    """
    write_images(tmp_path / "few", FEW)
    write_images(tmp_path / "many", MANY)
    few, many = peaks(tmp_path / "few", tmp_path / "many")
    grown = many - few
    assert grown < (MANY - FEW) * (5 * PIXELS + 1000), f"{grown / 2**20:.0f} MiB"
    assert (MANY - FEW) * 0.9 * HIDDEN * 4 > (MANY - FEW) * (5 * PIXELS + 1000)  # what would be noticed
