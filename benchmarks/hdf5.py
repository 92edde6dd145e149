"""Line 9: shuffled images a second from HDF5 files in Medium ImageNet's layout, against a Dataset that reads one image at a time.

`python -m benchmarks.hdf5 [--force] [--peers items_0,...] [--pairs N] [--gigabytes 2.1]`: noise of 96x96x3 in a file with its images in one
piece, and in one with chunks of 150 images; the page cache is dropped before each turn. All arms hand out float32 batches of 256, in
channels_last as the pixels lie, normalised, shuffled over the whole file. The peers are what courses write: `Dataset.__getitem__` opens
the file once a process and takes one image by h5py, in a DataLoader with 0 or 2 workers; they work through as many images as take a
second or more. h5py_sorted reads each batch by one sorted index. Guard: the mean of the pixels. The limit is the file read from its
beginning in 4 MiB. Files lie in a temporary folder and are deleted. benchmarks/shuffle.py measures the quality of the shuffle.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.pairs import Measured, equal_within, limit_share, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.turns import Turns
from firstlight.data.augment import Augment
from firstlight.data.hdf5 import load_hdf5
from firstlight.data.normalize import Normalize
from firstlight.data.resize import resize
from firstlight.data.streaming import StreamLoader

SIZE, CLASSES, BATCH = 96, 200, 256
CHUNK = 150
SMALL = 64
"""Pixels to which the arms with resize and flip bring the images."""
GUARD_IMAGES = 512
NORMALIZE = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CASES = ("contiguous", "chunked", "resize_flip")
ITEMS = {("items_0", "contiguous"): 768, ("items_2", "contiguous"): 1536, ("h5py_sorted", "contiguous"): 2048}
"""Images of a turn of the peers; where they are not named, `FEW`."""
FEW = 256
RESIZED = 6144
"""Images of a turn of ours where they are resized."""
PEERS: dict[str, str] = {
    "items_0": "one image at a time, DataLoader with 0 workers",
    "items_2": "one image at a time, DataLoader with 2 workers",
    "h5py_sorted": "h5py, a sorted index a batch",
}
LEAST = {"contiguous": 10, "chunked": 50, "resize_flip": 1.5}
LEAST_SHARE = 0.75


def main() -> None:
    """Measure, print, and write results/hdf5.json; or be the arm that --arm names."""
    words = parser(__doc__, tuple(PEERS))
    words.add_argument("--gigabytes", type=float, default=2.1, help="size of each file")
    words.add_argument("--folder", type=Path, help="where the files are made (default: the temporary folder)")
    words.add_argument("--arm", help=argparse.SUPPRESS)
    words.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    words.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.arm:
        be_arm(arguments.arm, arguments.case, arguments.file)
    start, python = ready_to_measure(arguments), str(require_peers())
    rows: list[Row] = []
    every: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="firstlight-hdf5-", dir=arguments.folder) as folder:
        num = int(arguments.gigabytes * 1e9 / (SIZE * SIZE * 3))
        for case in CASES:
            file = Path(folder) / ("chunked.h5" if case == "chunked" else "contiguous.h5")
            if not file.exists():
                write_noise(file, num, CHUNK if case == "chunked" else None)

            def command(arm: str, case: str = case, file: Path = file) -> list[str]:
                return [python, "-m", "benchmarks.hdf5", "--arm", arm, "--case", case, "--file", str(file)]

            measured = measure(
                command,
                arguments.peers if case != "resize_flip" else [peer for peer in arguments.peers if peer.startswith("items")],
                num_pairs=arguments.pairs,
                threads=1,
                check=lambda ours, theirs: equal_within(ours, theirs, tolerance=2e-2),
                limit=None if case == "resize_flip" else "sequential",
            )
            rows += rows_of(measured, case, num)
            every |= {f"{case} {arm}": one for arm, one in measured.items()}
    record("hdf5", "Line 9: shuffled images a second from HDF5 files", "python -m benchmarks.hdf5", rows, every, arguments, start)


def rows_of(measured: dict[str, Measured], case: str, num: int) -> list[Row]:
    """Return our rate with its share of the sequential one, the memory, then each peer's rate and the ratio."""
    rows = []
    what = {
        "contiguous": "in one piece",
        "chunked": f"in chunks of {CHUNK} images",
        "resize_flip": f"in one piece, to {SMALL} pixels, flipped",
    }[case]
    first = next(iter(measured.values()))
    rates = [1 / cost for cost in (measured.get("sequential") or first).pairs().ours]
    memory = f"{num:,} images; {first.ours_ready['mib_more']:.0f} MiB more than before the first batch"
    rows.append(row(f"firstlight, {what}", rates, "images/s", note=memory))
    if "sequential" in measured:
        one = measured["sequential"]
        rows[-1]["limit"] = limit_share(one)
        rows.append(row(f"the same file from its beginning, {what}", [1 / cost for cost in one.pairs().theirs], "images/s"))
        share = one.pairs().times_faster
        rows.append(row(f"share of the sequential rate, {what}", share, "", **({"least": LEAST_SHARE} if case == "contiguous" else {})))
    for arm, name in PEERS.items():
        if arm in measured:
            one = measured[arm]
            rows.append(row(f"{name}, {what}", [1 / cost for cost in one.pairs().theirs], "images/s"))
            needed = {"least": LEAST[case]} if arm.startswith("items") else {}
            rows.append(row(f"firstlight over {name}, {what}", one.pairs().times_faster, "x", guard=one.guard, **needed))
    return rows


def write_noise(path: Path, num: int, chunk: int | None) -> None:
    """Write random images with random labels; the same thousand come again and again, shifted, which no reader can profit from."""
    import h5py

    random = np.random.default_rng(0)
    block = random.integers(0, 256, (1000, SIZE, SIZE, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        chunks = None if chunk is None else (chunk, SIZE, SIZE, 3)
        images = file.create_dataset("images-train", (num, SIZE, SIZE, 3), np.uint8, chunks=chunks)
        for first in range(0, num, 3000):
            rows = np.roll(np.concatenate([block] * 3), first // 3000, axis=1)[: num - first]
            images[first : first + len(rows)] = rows
        file["labels-train"] = random.integers(0, CLASSES, num)
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def drop_cache(path: Path) -> None:
    """Let the system forget what it keeps of the file, so that the next read comes from the disk."""
    with path.open("rb") as handle:
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def be_arm(name: str, case: str, path: Path) -> None:
    """Go through images a repetition, the cache dropped before each; the clock counts from behind that."""
    torch.set_num_threads(1)
    turns, arm = Turns(), ARMS[name](path, case)
    epoch = 0
    while True:
        turns.begin()
        drop_cache(path)  # now: the other arm has read the file meanwhile
        turns.restart()
        began = peak_mib()
        count, total, seen = 0, 0.0, 0
        for batch in arm(epoch):
            count += len(batch)
            if turns.is_warm_up and seen < GUARD_IMAGES and not isinstance(batch, bytes):
                seen += len(batch)
                total += float(batch.double().sum()) / batch[0].numel()
        facts = {"mib_more": peak_mib() - began} if turns.is_warm_up else {}
        mean = total / max(seen, 1)
        turns.end(count, guard=partial(dict, mean_of_pixels_and_2=mean + 2), **facts)
        epoch += 1


def peak_mib() -> float:
    """Return the largest memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


Arm = Callable[[int], Iterator[Any]]


def streamed(path: Path, case: str) -> Arm:
    """Return firstlight's loader, as training uses it."""
    dataset = load_hdf5("train", Path(), path=str(path), stream="on")
    flips = case == "resize_flip"
    loader = StreamLoader(
        resize(dataset, SMALL) if flips else dataset,
        batch_size=BATCH,
        seed=0,
        normalize=NORMALIZE,
        augment=Augment(flip=flips),
        shuffle=True,
    )
    wanted = RESIZED // BATCH if flips else None
    return lambda epoch: (batch.images for batch in islice(loader.batches(epoch, reuse_buffers=True), wanted))


class Items(TorchDataset[tuple[torch.Tensor, int]]):
    """One image at a time, as course code reads them: the file opened at first use in each process."""

    def __init__(self, path: Path, case: str, order: list[int]) -> None:
        self.path, self.case, self.order = path, case, order
        self.file: Any = None

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        import h5py

        self.file = self.file or h5py.File(self.path, "r")
        row = self.order[index]
        image = as_batch(torch.from_numpy(self.file["images-train"][row])[None], self.case)[0]
        if self.case == "resize_flip" and torch.rand(()) < 0.5:
            image = image.flip(2)
        return image, int(self.file["labels-train"][row])


def as_batch(pixels: torch.Tensor, case: str) -> torch.Tensor:
    """Return pixels [B, H, W, C] as the network sees them."""
    images = pixels.permute(0, 3, 1, 2).float() / 255
    if case == "resize_flip":
        images = torch.nn.functional.interpolate(images, (SMALL, SMALL), mode="bilinear", antialias=True)
    return (images - torch.tensor(NORMALIZE.mean)[:, None, None]) / torch.tensor(NORMALIZE.std)[:, None, None]


def order_of(path: Path, epoch: int, num: int) -> list[int]:
    """Return the first `num` places of a random order of all images."""
    import h5py

    with h5py.File(path, "r") as file:
        total = len(file["images-train"])
    chosen: list[int] = torch.randperm(total, generator=torch.Generator().manual_seed(epoch))[:num].tolist()
    return chosen


def items(path: Path, case: str, workers: int) -> Arm:
    """Return a DataLoader over single images; its workers start anew each epoch, as they do by default."""
    num = ITEMS.get((f"items_{workers}", "contiguous" if case == "resize_flip" else case), FEW)

    def epoch_of(epoch: int) -> Iterator[torch.Tensor]:
        loader = DataLoader(Items(path, case, order_of(path, epoch, num)), batch_size=BATCH, num_workers=workers)
        for images, _ in loader:
            yield images

    return epoch_of


def h5py_sorted(path: Path, case: str) -> Arm:
    """Read each batch by one fancy index, sorted as h5py asks for it."""
    import h5py

    file = h5py.File(path, "r")
    num = ITEMS.get(("h5py_sorted", case), FEW)

    def epoch_of(epoch: int) -> Iterator[torch.Tensor]:
        order = order_of(path, epoch, num)
        for first in range(0, num, BATCH):
            yield as_batch(torch.from_numpy(file["images-train"][sorted(order[first : first + BATCH])]), case)

    return epoch_of


def sequential(path: Path, case: str) -> Arm:
    """Read the file from its beginning in 4 MiB, and do nothing with it; an image is as many bytes as it has pixels."""

    def epoch_of(epoch: int) -> Iterator[Any]:
        buffer = bytearray(4 << 20)
        with path.open("rb", buffering=0) as handle:
            left = 0
            while got := handle.readinto(buffer):
                left += got
            yield bytes(left // (SIZE * SIZE * 3))

    return epoch_of


ARMS: dict[str, Callable[[Path, str], Arm]] = {
    "firstlight": streamed,
    "items_0": lambda path, case: items(path, case, 0),
    "items_2": lambda path, case: items(path, case, 2),
    "h5py_sorted": h5py_sorted,
    "sequential": sequential,
}


if __name__ == "__main__":
    main()
