"""Monte-Carlo dropout over 100,000 images: the memory of the command beside that over 10,000, and its speed.

`python -m benchmarks.uncertainty_memory`. MNIST is repeated into two HDF5 files whose images stay there while they are looked at. A network
with dropout is trained for an epoch on each, on the same 10,000 images, and `firstlight inspect uncertainty` sends each image of the
validation part through it 10 times. Each look is a process of its own, which says its peak (VmHWM) at its end.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.pairs import row
from benchmarks.record import write_result
from firstlight.data.build import load_data

FEW, MANY = 10_000, 100_000
NUM_TRAIN, PASSES, ROUNDS, BUFFER_MIB = 10_000, 10, 3, 16
IMAGE_BYTES = 28 * 28
SETTINGS = (
    "data=hdf5", "data.stream=on", f"data.buffer_mib={BUFFER_MIB}", "model=mlp", "model.hidden=[128,128]", "model.dropout=0.3",
    "train.epochs=1", "train.test_at_end=false",
)  # fmt: skip
LOOK = """
import sys
from firstlight.__main__ import main
from firstlight.engine.memory import peak_memory_mib
try:
    main(sys.argv[1:])
finally:
    print(peak_memory_mib(), file=sys.stderr)
"""


def main() -> None:
    """Measure, print, and write results/uncertainty_memory.json."""
    peaks: dict[int, list[float]] = {FEW: [], MANY: []}
    seconds: dict[int, list[float]] = {FEW: [], MANY: []}
    with tempfile.TemporaryDirectory(prefix="firstlight-uncertainty-") as name:
        folder = Path(name)
        os.environ["FIRSTLIGHT_RUNS"], os.environ["FIRSTLIGHT_CACHE"] = str(folder / "runs"), str(folder / "cache")
        for num in peaks:
            train_on(write_images(folder / f"{num}.h5", num), f"run{num}")
        for _ in range(ROUNDS):
            for num in peaks:
                began = time.monotonic()
                peaks[num].append(look_at(f"run{num}", num))
                seconds[num].append(time.monotonic() - began)
                print(f"{num:,} images: peak {peaks[num][-1]:.0f} MiB, {seconds[num][-1]:.1f} s", file=sys.stderr)
    grown = [many - few for few, many in zip(peaks[FEW], peaks[MANY], strict=True)]
    added = (MANY - FEW) * IMAGE_BYTES / 2**20
    rates = [(MANY - FEW) / (many - few) for few, many in zip(seconds[FEW], seconds[MANY], strict=True)]
    note = f"{PASSES} passes, images streamed through a buffer of {BUFFER_MIB} MiB"
    rows = [
        *(row(f"peak memory over {num:,} images", peaks[num], "MiB", note=note) for num in peaks),
        row("growth between the two", grown, "MiB", aim_most=added / 2, note=f"the {MANY - FEW:,} images more are {added:.0f} MiB"),
        row("growth an image", [value * 2**20 / (MANY - FEW) for value in grown], "bytes", note=f"an image is {IMAGE_BYTES} bytes"),
        row("speed beyond the first 10,000 images", rates, "images/s", note=f"{PASSES} passes each, and one without dropout"),
    ]
    for each in rows:
        print(f"{each['what']}: {each['value']:.4g} {each['unit']}; {each['note']}")
    title = "Monte-Carlo dropout over 100,000 images"
    print(write_result("uncertainty_memory", title, "python -m benchmarks.uncertainty_memory", rows))


def write_images(path: Path, num: int) -> Path:
    """Write images of MNIST's training part, the first to train on and all, again and again, to validate."""
    mnist = load_data("mnist")
    assert mnist.labels is not None
    images, labels = mnist.images[:, 0].numpy(), mnist.labels.numpy()
    with h5py.File(path, "w") as file:
        for part, places in (("train", np.arange(NUM_TRAIN)), ("val", np.arange(num) % len(images))):
            array = file.create_dataset(f"images-{part}", (len(places), 28, 28), np.uint8)
            for begin in range(0, len(places), NUM_TRAIN):
                array[begin : begin + NUM_TRAIN] = images[places[begin : begin + NUM_TRAIN]]
            file.create_dataset(f"labels-{part}", data=labels[places])
    return path


def train_on(path: Path, name: str) -> None:
    """Train an epoch on the images of a file, in a process of its own."""
    command = ["-m", "firstlight", "train", "quickstart", *SETTINGS, f"data.path={path}", "--name", name]
    subprocess.run([sys.executable, *command], check=True, stdout=sys.stderr)


def look_at(name: str, num: int) -> float:
    """Look at the validation part of a run; return the peak memory of the command, in MiB."""
    words = ["inspect", "uncertainty", name, "--passes", str(PASSES), "--json"]
    done = subprocess.run([sys.executable, "-c", LOOK, *words], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["num_images"] == num
    return float(done.stderr.splitlines()[-1])


if __name__ == "__main__":
    main()
