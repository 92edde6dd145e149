"""Augmented images a second on one thread: the resident loader beside a DataLoader over PIL images.

`python -m benchmarks.loader [--force]`: 45,000 images of 32x32x3 (noise; speed does not depend on the content), random crop with a
border of 4 pixels, random flip, normalisation. Both take turns, A B A B. PIL pads
with black and we reflect, which costs the same. The limit is the bare lookup of the padded windows.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.record import Row, refuse_when_busy, write_result
from firstlight.data.augment import Augment
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.data.pixel_store import PixelStore

NUM_IMAGES = 45_000
NUM_PEER_IMAGES = 5_000
"""The peer works on this many of the images, so that a turn takes about as long as ours."""
BORDER = 4
PAIRS = 7


class PilImages(TorchDataset[tuple[Tensor, int]]):
    """Images as PIL objects, changed one at a time, as a first PyTorch script does it."""

    def __init__(self, dataset: Dataset, normalize: Normalize, *, augment: bool) -> None:
        assert dataset.labels is not None
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in dataset.images]
        self.labels = dataset.labels.tolist()
        self.mean, self.std = (np.array(values, dtype=np.float32) for values in (normalize.mean, normalize.std))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.augment:
            left, top = random.randint(0, 2 * BORDER), random.randint(0, 2 * BORDER)
            image = ImageOps.expand(image, BORDER).crop((left, top, left + image.width, top + image.height))
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = (np.asarray(image, dtype=np.float32) / 255 - self.mean) / self.std
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), self.labels[index]


def main() -> None:
    """Measure, print, and write results/loader.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    refuse_when_busy(parser.parse_args().force)
    torch.set_num_threads(1)
    dataset = noise(NUM_IMAGES)
    normalize = Normalize.measure(dataset.images)
    check_equal(dataset, normalize)
    rows = [row for batch_size in (500, 128) for row in measure(dataset, normalize, batch_size)]
    for row in rows:
        print(f"{row['what']}: {row['value']:,.4g} {row['unit']} {row.get('note', '')}")
    print(write_result("loader", "Augmented images a second on one core", "python -m benchmarks.loader", rows))


def noise(num: int) -> Dataset:
    """Return random images with random labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return make_dataset(images, torch.randint(0, 10, (num,), generator=generator), [str(label) for label in range(10)], "noise")


def check_equal(dataset: Dataset, normalize: Normalize) -> None:
    """Refuse to compare two loaders that give other numbers for the same images without augmentation."""
    ours = next(Loader(dataset, batch_size=500, seed=0, normalize=normalize).batches(0))
    images, labels = next(iter(DataLoader(PilImages(dataset.subset(torch.arange(500)), normalize, augment=False), batch_size=500)))
    torch.testing.assert_close(ours.images, images, rtol=0, atol=1e-5)
    assert torch.equal(ours.labels, labels)


def measure(dataset: Dataset, normalize: Normalize, batch_size: int) -> list[Row]:
    """Return the rates at this batch size: ours in both memory orders, the peer's, the limit, and the ratios."""
    augment = Augment(flip=True, crop=BORDER)
    peer = DataLoader(
        PilImages(dataset.subset(torch.arange(NUM_PEER_IMAGES)), normalize, augment=True),
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )
    contiguous, channels_last = (
        Loader(dataset, batch_size=batch_size, seed=0, normalize=normalize, augment=augment, shuffle=True, channels_last=last)
        for last in (False, True)
    )
    bare = PixelStore(dataset.images, crop=BORDER, channels_last=True)
    turns: dict[str, Callable[[int], Iterable[Any]]] = {
        "ours": lambda epoch: contiguous.batches(epoch, reuse_buffers=True),
        "ours, channels_last": lambda epoch: channels_last.batches(epoch, reuse_buffers=True),
        "peer": lambda epoch: peer,
        "limit": lambda epoch: windows(bare, batch_size),
    }
    sizes = {name: NUM_PEER_IMAGES if name == "peer" else NUM_IMAGES for name in turns}
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for epoch in range(PAIRS + 1):
        for name, batches in turns.items():
            rates[name].append(sizes[name] / seconds(batches(epoch)))
    return rows_of({name: values[1:] for name, values in rates.items()}, batch_size)  # the first turn warms up


def windows(store: PixelStore, batch_size: int) -> Iterable[Tensor]:
    """Look up a window of every image and do nothing else; what is random is drawn before the clock starts."""
    order = torch.randperm(NUM_IMAGES).split(batch_size)
    corners = torch.randint(0, 2 * BORDER + 1, (NUM_IMAGES,)).split(batch_size)
    return (store.gather(indices, (places, places)) for indices, places in zip(order, corners, strict=True))


def seconds(batches: Iterable[Any]) -> float:
    """Return how long it takes to go through the batches."""
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def rows_of(rates: dict[str, list[float]], batch_size: int) -> list[Row]:
    """Return the rows of one batch size from the rates in images/s."""
    at = f"batch {batch_size}"
    names = {"ours": "resident loader", "ours, channels_last": "resident loader, channels_last", "peer": "DataLoader over PIL images"}
    ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["peer"], strict=True)]
    shares = [100 * ours / limit for ours, limit in zip(rates["ours, channels_last"], rates["limit"], strict=True)]
    rows = [row(f"{title}, {at}", rates[name], "images/s", least=60_000 if name != "peer" else None) for name, title in names.items()]
    return [
        *rows,
        row(f"resident loader over DataLoader, {at}", ratios, "x", aim=12),
        row(f"share of the limit, channels_last, {at}", shares, "%", note="the limit is the lookup of padded uint8 windows; "),
    ]


def row(what: str, values: list[float], unit: str, *, note: str = "", **goals: float | None) -> Row:
    """Return the median of the values as a row, with their range in the note."""
    spread = (
        f"{note}range {min(values):,.4g} to {max(values):,.4g}" if unit != "images/s" else f"range {min(values):,.0f} to {max(values):,.0f}"
    )
    return {"what": what, "value": statistics.median(values), "unit": unit, "n": len(values), "note": spread, **goals}


if __name__ == "__main__":
    main()
