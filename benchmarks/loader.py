"""Line 8: augmented images a second on one core, against torchvision v1 (PIL) and v2 in a DataLoader, and timm's create_loader.

`python -m benchmarks.loader [--force] [--peers torchvision_v1,...] [--pairs N]`: images of 32x32x3 (noise; speed does not depend on the
content), random crop with a border of 4 pixels, random flip, normalisation, shuffled, batches of 500 and of 128, one process, one thread.
The peers pad with black as their documentation has it, and we reflect, which costs the same. v1 gets PIL images, as torchvision's data
sets hand them out; v2 gets uint8 tensors, as its guide recommends. timm's pipeline has its default random resized crop in place of the
padded one. Guard: without augmentation all arms give the same numbers. The limit is the bare lookup of windows in padded uint8 pixels.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.pairs import Measured, equal_within, limit_share, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.turns import Turns
from firstlight.data.augment import Augment
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.data.pixel_store import PixelStore

NUM_IMAGES = 45_000
NUM_PEER_IMAGES = 5_000
"""The peers work on this many of the images, so that a turn takes about as long as ours."""
BORDER = 4
GUARD_IMAGES = 500
LEAST_RATE = 60_000
"""images/s that the specification asks for."""
PEERS: dict[str, tuple[str, Row]] = {
    "torchvision_v1": ("torchvision v1 on PIL images", {"least": 12, "aim": 17}),
    "torchvision_v2": ("torchvision v2 on tensors", {"least": 12, "aim": 17}),
    "timm": ("timm create_loader", {}),
}
OURS = {"firstlight": "resident loader", "firstlight_channels_last": "resident loader, channels_last"}

Epoch = Callable[[int], Iterable[Any]]
Arm = tuple[Epoch, int, Callable[[], Tensor]]
"""Epoch number -> batches, the images in an epoch, and the first images without augmentation, for the guard."""


def main() -> None:
    """Measure, print, and write results/loader.json; or be the arm that --arm names."""
    words = parser(__doc__, tuple(PEERS))
    words.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    words.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.arm:
        be_arm(arguments.arm, arguments.batch_size)
    start, python = ready_to_measure(arguments), str(require_peers())
    rows: list[Row] = []
    every: dict[str, Measured] = {}
    for batch_size in (500, 128):

        def command(arm: str, batch_size: int = batch_size) -> list[str]:
            return [python, "-m", "benchmarks.loader", "--arm", arm, "--batch-size", str(batch_size)]

        measured = measure(
            command,
            [*arguments.peers, "firstlight_channels_last"],
            num_pairs=arguments.pairs,
            threads=1,
            check=lambda ours, theirs: equal_within(ours, theirs, tolerance=1e-5),
            limit="windows",
        )
        rows += rows_of(measured, batch_size)
        every |= {f"{batch_size} {arm}": one for arm, one in measured.items()}
    record("loader", "Line 8: augmented images a second on one core", "python -m benchmarks.loader", rows, every, arguments, start)


def rows_of(measured: dict[str, Measured], batch_size: int) -> list[Row]:
    """Return our rates with their share of the limit, then each peer's rate and the ratio."""
    at, rows = f"batch {batch_size}", []
    if "windows" in measured:
        one = measured["windows"]
        rates = [1 / cost for cost in one.pairs().ours]
        rows.append(row(f"resident loader, {at}", rates, "images/s", least=LEAST_RATE, limit=limit_share(one)))
        rows.append(row(f"the lookup of windows alone, {at}", [1 / cost for cost in one.pairs().theirs], "images/s"))
    if "firstlight_channels_last" in measured:
        rates = [1 / cost for cost in measured["firstlight_channels_last"].pairs().theirs]
        rows.append(row(f"resident loader, channels_last, {at}", rates, "images/s", least=LEAST_RATE))
    for arm, (name, needed) in PEERS.items():
        if arm in measured:
            one = measured[arm]
            rows.append(row(f"{name}, {at}", [1 / cost for cost in one.pairs().theirs], "images/s"))
            rows.append(row(f"resident loader over {name}, {at}", one.pairs().times_faster, "x", guard=one.guard, **needed))
    return rows


def be_arm(name: str, batch_size: int) -> None:
    """Go through an epoch of batches a repetition."""
    turns = Turns()
    torch.set_num_threads(1)
    dataset = noise(NUM_IMAGES)
    epoch, num_images, plain = ARMS[name](dataset, Normalize.measure(dataset.images), batch_size)
    number = 0

    def repetition() -> int:
        nonlocal number
        for _ in epoch(number):
            pass
        number += 1
        return num_images

    def guard() -> dict[str, float]:
        images = plain().double()
        weights = torch.linspace(0, 1, images[0].numel(), dtype=torch.float64).reshape(images[0].shape)
        return {"first_images_weighted_by_place": float((images * weights).abs().mean()), "first_images_squared": float((images**2).mean())}

    turns.repeat(repetition, guard)


def noise(num: int) -> Dataset:
    """Return random images with random labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return make_dataset(images, torch.randint(0, 10, (num,), generator=generator), [str(label) for label in range(10)], "noise")


def ours(dataset: Dataset, normalize: Normalize, batch_size: int, *, channels_last: bool = False) -> Arm:
    """Return firstlight's loader, as training uses it."""
    loader = Loader(
        dataset,
        batch_size=batch_size,
        seed=0,
        normalize=normalize,
        augment=Augment(flip=True, crop=BORDER),
        shuffle=True,
        channels_last=channels_last,
    )
    plain = Loader(dataset, batch_size=GUARD_IMAGES, seed=0, normalize=normalize, channels_last=channels_last)
    return lambda epoch: loader.batches(epoch, reuse_buffers=True), NUM_IMAGES, lambda: next(iter(plain.batches(0))).images


class Items(TorchDataset[tuple[Any, int]]):
    """Images behind a transform, one at a time."""

    def __init__(self, images: list[Any], labels: list[int], transform: Callable[[Any], Any]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


def labels_of(dataset: Dataset) -> list[int]:
    """Return the labels of the peers' images."""
    assert dataset.labels is not None
    return [int(label) for label in dataset.labels[:NUM_PEER_IMAGES]]


def pil_images(dataset: Dataset) -> list[Any]:
    """Return the peers' images as PIL has them."""
    from PIL import Image

    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in dataset.images[:NUM_PEER_IMAGES]]


def in_loader(images: list[Any], labels: list[int], random: list[Any], fixed: list[Any], batch_size: int) -> Arm:
    """Return PyTorch's DataLoader over transforms."""
    from torchvision.transforms import Compose

    loader = DataLoader(Items(images, labels, Compose([*random, *fixed])), batch_size=batch_size, shuffle=True)
    plain = DataLoader(Items(images, labels, Compose(fixed)), batch_size=GUARD_IMAGES)
    return lambda epoch: loader, NUM_PEER_IMAGES, lambda: next(iter(plain))[0]


def torchvision_v1(dataset: Dataset, normalize: Normalize, batch_size: int) -> Arm:
    """Return the transforms of most tutorials."""
    from torchvision import transforms as T

    random = [T.RandomCrop(32, padding=BORDER), T.RandomHorizontalFlip()]
    fixed = [T.ToTensor(), T.Normalize(normalize.mean, normalize.std)]
    return in_loader(pil_images(dataset), labels_of(dataset), random, fixed, batch_size)


def torchvision_v2(dataset: Dataset, normalize: Normalize, batch_size: int) -> Arm:
    """Return the transforms that torchvision's guide recommends for speed: v2 on uint8 tensors."""
    from torchvision.transforms import v2

    random = [v2.RandomCrop(32, padding=BORDER), v2.RandomHorizontalFlip()]
    fixed = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(normalize.mean), list(normalize.std))]
    return in_loader(list(dataset.images[:NUM_PEER_IMAGES]), labels_of(dataset), random, fixed, batch_size)


def timm(dataset: Dataset, normalize: Normalize, batch_size: int) -> Arm:
    """Return timm's loader for training in this process, without the prefetcher that needs CUDA."""
    from timm.data import create_loader

    images, labels = pil_images(dataset), labels_of(dataset)
    common: dict[str, Any] = {
        "input_size": (3, 32, 32), "mean": normalize.mean, "std": normalize.std, "num_workers": 0, "use_prefetcher": False,
        "persistent_workers": False, "device": torch.device("cpu"), "pin_memory": False,
    }  # fmt: skip
    loader = create_loader(
        Items(images, labels, lambda image: image), batch_size=batch_size, is_training=True, hflip=0.5, color_jitter=None, **common
    )
    plain = create_loader(Items(images, labels, lambda image: image), batch_size=GUARD_IMAGES, is_training=False, crop_pct=1.0, **common)
    whole = NUM_PEER_IMAGES // batch_size * batch_size  # it leaves out the last odd batch
    return lambda epoch: loader, whole, lambda: next(iter(plain))[0]


def windows(dataset: Dataset, normalize: Normalize, batch_size: int) -> Arm:
    """Look up a window of every image and do nothing else; what is random is drawn before the clock starts."""
    store = PixelStore(dataset.images, crop=BORDER, channels_last=True)
    order = torch.randperm(NUM_IMAGES).split(batch_size)
    corners = torch.randint(0, 2 * BORDER + 1, (NUM_IMAGES,)).split(batch_size)

    def batches(epoch: int) -> Iterator[Tensor]:
        return (store.gather(indices, (places, places)) for indices, places in zip(order, corners, strict=True))

    return batches, NUM_IMAGES, lambda: dataset.images[:1]


ARMS: dict[str, Callable[[Dataset, Normalize, int], Arm]] = {
    "firstlight": ours,
    "firstlight_channels_last": lambda *arguments: ours(*arguments, channels_last=True),
    "torchvision_v1": torchvision_v1,
    "torchvision_v2": torchvision_v2,
    "timm": timm,
    "windows": windows,
}

if __name__ == "__main__":
    main()
