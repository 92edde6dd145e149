"""Shuffled images a second from shards of JPEGs, against a Dataset and a DataLoader with two workers over the same shards.

`python -m benchmarks.shards [--force] [--pairs N] [--images 2000]`: made-up pictures of 96x96x3 in six tars (WebDataset's convention) and
six Parquet files (row groups of 100); the page cache is dropped before each turn. All arms decode by Pillow and hand out float32 batches
of 256, normalised. Peers: items_2 looks at the tars once and reads one image at a time, in a random order; stream_2 goes through whole
shards, as the webdataset library does, each worker its own and through a buffer of 1,000. Guard: the mean of the pixels.
"""

import argparse
import io
import json
import os
import random
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from benchmarks.pairs import Measured, equal_within, measure, parser, record, row
from benchmarks.record import Row, refuse_when_busy
from benchmarks.turns import Turns
from firstlight.data.normalize import Normalize
from firstlight.data.shard_sources import load_parquet, load_webdataset
from firstlight.data.streaming import StreamLoader

SIZE, CLASSES, BATCH, SHARDS, BUFFER = 96, 200, 256, 6, 1000
NORMALIZE = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CASES = ("tar", "parquet")
PEERS = {"items_2": "one image at a time, DataLoader with 2 workers", "stream_2": "whole shards, DataLoader with 2 workers"}


def main() -> None:
    """Measure, print, and write results/shards.json; or be the arm that --arm names."""
    words = parser(__doc__, tuple(PEERS))
    words.add_argument("--images", type=int, default=2000, help="how many images")
    words.add_argument("--arm", help=argparse.SUPPRESS)
    words.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    words.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.arm:
        be_arm(arguments.arm, arguments.case, arguments.folder)
    refuse_when_busy(arguments.force)
    start = {"load": round(os.getloadavg()[0], 2), "forced": arguments.force}
    rows: list[Row] = []
    every: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="firstlight-shards-") as folder:
        os.environ["FIRSTLIGHT_CACHE"] = f"{folder}/cache"
        bytes_an_image = write_shards(Path(folder), arguments.images)
        for case in CASES:

            def command(arm: str, case: str = case) -> list[str]:
                return [sys.executable, "-m", "benchmarks.shards", "--arm", arm, "--case", case, "--folder", folder]

            peers = [peer for peer in arguments.peers if case == "tar" or peer == "stream_2"]
            check = partial(equal_within, tolerance=2e-2)
            measured = measure(command, peers, num_pairs=arguments.pairs, threads=1, check=check)
            rows += rows_of(measured, case, f"{arguments.images:,} JPEGs of {bytes_an_image:,.0f} bytes")
            every |= {f"{case} {arm}": one for arm, one in measured.items()}
    record("shards", "Shuffled images a second from shards", "python -m benchmarks.shards", rows, every, arguments, start)


def rows_of(measured: dict[str, Measured], case: str, what: str) -> list[Row]:
    """Return our rate, then each peer's rate and the ratio."""
    first = next(iter(measured.values()))
    rows = [row(f"firstlight, {case}", [1 / cost for cost in first.pairs().ours], "images/s", note=what)]
    for arm, one in measured.items():
        rows.append(row(f"{PEERS[arm]}, {case}", [1 / cost for cost in one.pairs().theirs], "images/s"))
        rows.append(row(f"firstlight over {PEERS[arm]}, {case}", one.pairs().times_faster, "x", guard=one.guard))
    return rows


def write_shards(folder: Path, num: int) -> float:
    """Write the same pictures as tars and as Parquet files, and return the mean bytes of one: waves of three colours, and some noise."""
    import pyarrow as pa
    from pyarrow import parquet

    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    total = 0
    for shard, places in enumerate(np.array_split(np.arange(num), SHARDS)):
        images = []
        for _ in places:
            waves = [np.sin(columns / draw.uniform(3, 20)) + np.cos(rows / draw.uniform(3, 20)) for _ in range(3)]
            noisy = np.stack(waves, -1) * 60 + 128 + draw.normal(0, 8, (SIZE, SIZE, 3))
            buffer = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
            images.append(buffer.getvalue())
        labels = draw.integers(0, CLASSES, len(images)).tolist()
        with tarfile.open(folder / f"train-{shard:03}.tar", "w") as tar:
            for place, image, label in zip(places.tolist(), images, labels, strict=True):
                for ending, content in (("jpg", image), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{place:06}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        table = pa.table({"image": pa.array([{"bytes": image, "path": None} for image in images]), "label": labels})
        parquet.write_table(table, folder / f"train-{shard:03}.parquet", row_group_size=100)
        total += sum(map(len, images))
    for path in shards(folder, "*"):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    return total / num


def shards(folder: Path, case: str) -> list[Path]:
    """Return the shards of a kind."""
    return sorted(folder.glob(f"train-*.{case}"))


def be_arm(name: str, case: str, folder: Path) -> None:
    """Go through all images a repetition, the cache dropped before each; the clock counts from behind that."""
    torch.set_num_threads(1)
    turns, arm, epoch = Turns(), ARMS[name](folder, case), 0
    while True:
        turns.begin()
        for path in shards(folder, case):
            with path.open("rb") as handle:
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        turns.restart()
        count, total = 0, 0.0
        for images in arm(epoch):
            count += len(images)
            if turns.is_warm_up:
                total += float(images.double().mean()) * len(images)
        turns.end(count, guard=partial(dict, images=count, mean_of_pixels_and_2=total / count + 2))
        epoch += 1


Arm = Callable[[int], Iterator[torch.Tensor]]


def streamed(folder: Path, case: str) -> Arm:
    """Return firstlight's loader, as training uses it."""
    load = load_webdataset if case == "tar" else load_parquet
    dataset = load("train", Path(), path=str(folder / f"train-*.{case}"), stream="on")
    loader = StreamLoader(dataset, batch_size=BATCH, seed=0, normalize=NORMALIZE, shuffle=True)
    return lambda epoch: (batch.images for batch in loader.batches(epoch, reuse_buffers=True))


def decoded(content: bytes) -> torch.Tensor:
    """Return an image as the network sees it."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    images = pixels.permute(2, 0, 1).float() / 255
    return (images - torch.tensor(NORMALIZE.mean)[:, None, None]) / torch.tensor(NORMALIZE.std)[:, None, None]


class Items(TorchDataset[tuple[torch.Tensor, int]]):
    """One image at a time, at the place that a first look into the tars found."""

    def __init__(self, paths: list[Path]) -> None:
        self.places: list[tuple[Path, int, int]] = []
        self.labels: list[int] = []
        for path in paths:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".jpg"):
                        self.places.append((path, member.offset_data, member.size))
                    else:
                        self.labels.append(int(tar.extractfile(member).read()))  # type: ignore[union-attr]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, place, size = self.places[index]
        with path.open("rb") as handle:
            handle.seek(place)
            return decoded(handle.read(size)), self.labels[index]


class Streamed(IterableDataset[tuple[torch.Tensor, int]]):
    """Whole shards, the worker's own in a random order, each image through a buffer of encoded ones."""

    def __init__(self, paths: list[Path], epoch: int) -> None:
        self.paths, self.epoch = paths, epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        worker = get_worker_info()
        assert worker is not None
        mine, draw = self.paths[worker.id :: worker.num_workers], random.Random(self.epoch)
        draw.shuffle(mine)
        buffer: list[tuple[bytes, int]] = []
        for path in mine:
            for sample in samples_of(path):
                buffer.append(sample)
                if len(buffer) > BUFFER:
                    yield self._drawn(buffer, draw)
        while buffer:
            yield self._drawn(buffer, draw)

    def _drawn(self, buffer: list[tuple[bytes, int]], draw: random.Random) -> tuple[torch.Tensor, int]:
        place = draw.randrange(len(buffer))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        content, label = buffer.pop()
        return decoded(content), label


def samples_of(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield encoded images and labels of a shard from its beginning."""
    if path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        for batch in ParquetFile(path).iter_batches(100, use_threads=False):
            yield from zip((image["bytes"] for image in batch["image"].to_pylist()), batch["label"].to_pylist(), strict=True)
        return
    with tarfile.open(path, "r|") as tar:
        image = b""
        for member in tar:
            content = tar.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".jpg"):
                image = content
            else:
                yield image, json.loads(content)


def items(folder: Path, case: str) -> Arm:
    """Return a DataLoader over single images; its workers start anew each epoch, as they do by default."""
    dataset = Items(shards(folder, case))
    return lambda epoch: (images for images, _ in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=2))


def stream(folder: Path, case: str) -> Arm:
    """Return a DataLoader over whole shards."""
    return lambda epoch: (images for images, _ in DataLoader(Streamed(shards(folder, case), epoch), batch_size=BATCH, num_workers=2))


ARMS: dict[str, Callable[[Path, str], Any]] = {"firstlight": streamed, "items_2": items, "stream_2": stream}


if __name__ == "__main__":
    main()
