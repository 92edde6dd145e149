"""The training part of a data set, parted into train and validation, with a record of exactly which images are where."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.measure import is_streamed, measure
from firstlight.data.normalize import Normalize
from firstlight.data.splits import carve, split_hash, take
from firstlight.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a run remembers of its data; `asdict` makes JSON of it.

    train_hash, val_hash: name the images of each part by their places in the data set.
    content_hash: names what those images are: shapes, labels and pixels, of the training part first.
    """

    source: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    num_train: int
    num_val: int
    train_hash: str
    val_hash: str
    content_hash: str
    normalize: Normalize
    own_validation: bool = False
    """Whether the data bring their validation images; else they are carved from the training part."""
    streamed: bool = False
    """Whether the pixels stay in their file."""
    num_measured: int | None = None
    """Images that the mean, the deviation and the content hash were measured on, where these are a sample."""

    @property
    def num_classes(self) -> int:
        """How many classes the labels can name."""
        return len(self.class_names)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return what a training says about its data."""
        channels, height, width = self.image_shape
        size = f"{channels} x {height} x {width}"
        own = " (its own part)" if self.own_validation else ""
        first = f"data: {self.source}; {self.num_train:,} to train, {self.num_val:,} to validate{own}, {size}, {self.num_classes} classes"
        sample = "" if self.num_measured is None else f"; pixels measured on {self.num_measured:,} training images, a fixed sample"
        return [first, *([f"data: streamed from the file{sample}"] if self.streamed else [])]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Labelled images to train on, those to validate on (None where none are held out), and their record."""

    train: Dataset
    val: Dataset | None
    record: DataRecord
    warnings: tuple[str, ...] = ()


def part_training_data(
    dataset: Dataset, *, val_fraction: float, split_seed: int, num_train: int | None, normalize: bool, val: Dataset | None = None
) -> TrainingData:
    """Carve validation out of a labelled training part, thin out the rest to `num_train`, and measure its pixels.

    The validation images depend on `val_fraction` and `split_seed` alone, so runs on fewer training images share them; where the data
    bring a validation part of their own (`val`), they are all of that.
    """
    if dataset.labels is None:
        raise DataError(f"{dataset.source}: these images have no labels to train on; take a labelled part")
    own_val = None if val is None or val.labels is None else _checked_val(val, dataset)
    train, carved = carve(dataset.labels, val_fraction if own_val is None else 0.0, split_seed)
    if num_train is not None:
        train = train[take(dataset.labels[train], num_train, split_seed)]
    held_out = carved if own_val is None else torch.arange(len(own_val))
    train_set, val_set = dataset.subset(train).settled(), (own_val or dataset.subset(carved)).settled()
    measured = measure(train_set, val_set)
    record = DataRecord(
        source=dataset.source,
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        num_train=len(train),
        num_val=len(held_out),
        train_hash=split_hash(train),
        val_hash=split_hash(held_out),
        content_hash=measured.content_hash,
        normalize=measured.normalize if normalize else Normalize.identity(dataset.image_shape[0]),
        own_validation=own_val is not None,
        streamed=is_streamed(train_set),
        num_measured=measured.num_images,
    )
    twins = [] if is_streamed(train_set) or is_streamed(val_set) else _twin_warnings(train_set, val_set)
    warnings = (*dataset.warnings, *_class_warnings(train_set), *twins)
    return TrainingData(train_set, val_set if len(held_out) else None, record, warnings)


def _checked_val(val: Dataset, train: Dataset) -> Dataset:
    if val.image_shape != train.image_shape or val.class_names != train.class_names:
        sizes = (
            f"{list(val.image_shape)} and {val.num_classes} classes, {list(train.image_shape)} and {train.num_classes} classes to train on"
        )
        raise DataError(
            f"{val.source}: the validation part does not fit the training part ({sizes}); set split.val_fraction=0, or repair it"
        )
    return val


def _class_warnings(train: Dataset) -> list[str]:
    assert train.labels is not None
    if train.num_classes == 1:
        return [f"there is only one class, {train.class_names[0]!r}: any network is right on all images"]
    present = set(train.labels.unique().tolist())
    absent = [name for label, name in enumerate(train.class_names) if label not in present]
    return [f"no image to train on in class {', '.join(absent)}; it cannot be learned"] if absent else []


def _twin_warnings(train: Dataset, val: Dataset) -> list[str]:
    """Warn of validation images that equal a training image to the last pixel."""
    return twin_warnings(int(_found_among(train.images, val.images).sum()), len(val))


def twin_warnings(num: int, num_val: int) -> list[str]:
    """Return what is said of `num` validation images that are training images too."""
    return [f"{num:,} of {num_val:,} validation images are training images too, pixel by pixel; val figures flatter"] if num else []


def _found_among(images: Tensor, wanted: Tensor) -> NDArray[np.bool_]:
    """Tell which of `wanted` [M, C, H, W] equal one of `images` [N, C, H, W] to the last bit, bool [M].

    Fingerprints name the candidates, and their bytes decide: CIFAR-10 takes 0.03 s, and 0.1 s where every image is hashed as bytes.
    """
    if not len(images) or not len(wanted):
        return np.zeros(len(wanted), bool)
    known, asked = fingerprints(images), fingerprints(wanted)
    found = np.isin(asked, known)
    for place in np.flatnonzero(found):
        candidates = np.flatnonzero(known == asked[place])
        found[place] = any(torch.equal(images[int(other)], wanted[int(place)]) for other in candidates)
    return found


def fingerprints(images: Tensor) -> NDArray[np.uint64]:
    """Return a number for each image, uint64 [N]: the words of its bytes times fixed odd numbers, added up."""
    num_bytes = images[0].numel() * images.element_size()
    rows = images.contiguous().numpy().reshape(len(images), -1).view(np.uint8)
    words = rows[:, : num_bytes // 8 * 8].view(np.uint64)
    rest = np.zeros((len(rows), 8), np.uint8)
    rest[:, : num_bytes % 8] = rows[:, num_bytes // 8 * 8 :]
    factors = np.random.default_rng(0).integers(0, 2**63, words.shape[1] + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    sums: NDArray[np.uint64] = words @ factors[:-1] + rest.view(np.uint64)[:, 0] * factors[-1]
    return sums
