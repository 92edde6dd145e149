"""What hundreds of shards cost beside their pixels: the look into them, and the memory of an order of ten million images.

`python -m benchmarks.many_shards [--images 10000000]`: an index of 1,000 tars is made up (places and labels, no pixels) and goes through
what a training does with it before the first image is read: split, loader, the order of the first and of a middle window of an epoch.
The look is taken on real tars of 20,000 small samples in all. Seconds are those of the processor, so that a busy machine does little harm.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.pairs import row
from benchmarks.record import write_result
from benchmarks.shards import CLASSES, NORMALIZE
from firstlight.data.dataset import Dataset
from firstlight.data.shard_index import ShardIndex
from firstlight.data.shards import ShardFacts, ShardFile, TarReader
from firstlight.data.splits import carve
from firstlight.data.stored import StoredImages
from firstlight.data.streaming import StreamLoader
from firstlight.data.tar_shards import Keys, look_into_tars

SHARDS, SAMPLES, IMAGE_BYTES = 1000, 20_000, 3000


def main() -> None:
    """Measure, print, and write results/many_shards.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=int, default=10_000_000, help="images of the made-up index")
    num = words.parse_args().images
    rows = [row("look into a tar, a sample of two files", look_seconds(), "us")]
    began, peak = time.process_time(), peak_bytes()
    dataset = made_up(num)
    indexed = peak_bytes() - peak
    assert dataset.labels is not None
    train, _ = carve(dataset.labels, 0.01, 0)
    loader = StreamLoader(dataset.subset(train), batch_size=256, seed=0, normalize=NORMALIZE, shuffle=True)
    first = time.process_time() - began
    began = time.process_time()
    loader.indices(0, 0)
    loader.indices(0, loader.num_batches // 2)
    note = f"{num:,} images in {SHARDS:,} shards"
    rows.append(row("memory of the index, an image", [indexed / num], "bytes", note=note))
    rows.append(row("peak memory behind split and loader, an image", [(peak_bytes() - peak) / num], "bytes", note=note))
    rows.append(row("split and loader", [first], "s of the processor", note=note))
    rows.append(row("order of the first and of a middle window", [time.process_time() - began], "s of the processor", note=note))
    for each in rows:
        print(f"{each['what']}: {each['value']:.4g} {each['unit']}; {each['note']}")
    print(write_result("many_shards", "What hundreds of shards cost beside their pixels", "python -m benchmarks.many_shards", rows))


def peak_bytes() -> int:
    """Return the largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def look_seconds() -> list[float]:
    """Return the microseconds of the processor that a sample of each of five tars takes to be found."""
    from tests.data.made_shards import write_tar

    found = []
    with tempfile.TemporaryDirectory(prefix="firstlight-shards-") as folder:
        for shard in range(5):
            samples = range(shard * SAMPLES // 5, (shard + 1) * SAMPLES // 5)
            files = [file for at in samples for file in ((f"{at:07}.jpg", bytes(IMAGE_BYTES)), (f"{at:07}.cls", b"7"))]
            path = write_tar(Path(folder) / f"{shard}.tar", files)
            began = time.process_time()
            ((labels, _, _),) = look_into_tars([path], Keys())
            found.append((time.process_time() - began) / len(labels) * 1e6)
    return found


def made_up(num: int) -> Dataset:
    """Return a data set whose shards are not there."""
    draw, indices = np.random.default_rng(0), []
    for shard in range(SHARDS):
        size = len(range(shard, num, SHARDS))
        places = np.stack([np.arange(size, dtype=np.int64) * (IMAGE_BYTES + 1536), np.full(size, IMAGE_BYTES)], 1)
        indices.append(ShardIndex(Path(f"{shard}.tar"), (shard, 0, 0), draw.integers(0, CLASSES, size), places, {}))
    labels = torch.from_numpy(np.concatenate([index.labels for index in indices]))
    facts = ShardFacts(Path("made up"), "train", (), (num, 96, 96, 3), "nhwc", reader=TarReader(indices, Keys()))
    images: torch.Tensor = StoredImages(ShardFile(facts, None), policy="on")  # type: ignore[assignment]
    return Dataset(images, labels, tuple(map(str, range(CLASSES))), "made up")


if __name__ == "__main__":
    main()
