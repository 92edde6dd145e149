"""Line 9, the quality of the shuffle: a file sorted by class, streamed in shuffled blocks, against the same file shuffled as a whole.

`python -m benchmarks.shuffle`: 16,000 made-up images of 24 pixels in 200 classes, class by class; a small network, four epochs, five seeds
each way. A window of the stream holds 144 blocks of 8 images before the blocks of a sorted file are cut; with 4 MiB blocks and the default
buffer it is 128 of 151. Only accuracies are compared, so a busy machine does no harm.
"""

import statistics
import tempfile
from pathlib import Path

import firstlight as fl
from benchmarks.pairs import row
from benchmarks.record import write_result
from firstlight.data import stored
from firstlight.data.generate import generate_hdf5
from firstlight.tracking.console import Console

SEEDS, SIZE, ROWS_PER_BLOCK, BATCH = 5, 24, 8, 64
SETTINGS = [
    *("data=hdf5", "data.buffer_mib=4", "train.epochs=4", f"train.batch_size={BATCH}", "schedule=one_cycle", "device.threads=1"),
    *("model={name: small_cnn, widths: [16, 32, 64]}", "optim={name: sgd, lr: 0.1, momentum: 0.9, nesterov: true}"),
    *("augment.flip=false", "augment.crop=0", "train.test_at_end=false"),
]


def main() -> None:
    """Train ten times, print, and write results/shuffle.json."""
    stored.BLOCK_BYTES = ROWS_PER_BLOCK * SIZE * SIZE * 3
    found: dict[str, list[float]] = {"on": [], "off": []}
    with tempfile.TemporaryDirectory(prefix="firstlight-shuffle-") as folder:
        file = generate_hdf5(Path(folder) / "sorted.h5", lambda what, done, total: None, num_images=16_000, size=SIZE, sorted_by_class=True)
        for seed in range(SEEDS):
            for stream, accuracies in found.items():
                words = [*SETTINGS, f"data.path={file}", f"data.stream={stream}", f"seed={seed}"]
                run = fl.train("quickstart", *words, runs_dir=folder, name=f"{stream}-{seed}", console=Console(quiet=True))
                accuracies.append(float(run.epochs[-1]["val_accuracy"]))
                print(stream, seed, accuracies[-1], flush=True)
    noise = statistics.stdev(found["off"]) * (2 / SEEDS) ** 0.5
    gap = statistics.mean(found["off"]) - statistics.mean(found["on"])
    rows = [
        row(
            "val accuracy of the last epoch, streamed in shuffled blocks", found["on"], "", note=f"mean {statistics.mean(found['on']):.4f}"
        ),
        row("val accuracy of the last epoch, shuffled as a whole", found["off"], "", note=f"mean {statistics.mean(found['off']):.4f}"),
        {
            "what": "accuracy that block shuffling costs (difference of the means)",
            "value": gap,
            "unit": "",
            "n": SEEDS,
            "most": 2 * noise,
            "note": "needed: no more than twice the standard error of such a difference between seeds of the whole shuffle",
        },
    ]
    print(write_result("shuffle", "Line 9: the quality of the shuffle", "python -m benchmarks.shuffle", rows))


if __name__ == "__main__":
    main()
