"""The data sets that a config can name, and where each can be downloaded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.config.schema import Config, Kind
from firstlight.data.augment import Augment
from firstlight.data.cifar10 import load_cifar10
from firstlight.data.corrupted_mnist import load_corrupted_mnist
from firstlight.data.dataset import Dataset
from firstlight.data.digits import load_digits
from firstlight.data.downloads import CIFAR10_FILES, FASHION_MNIST_FILES, MNIST_FILES
from firstlight.data.fashion_mnist import load_fashion_mnist
from firstlight.data.fetch import RemoteFile
from firstlight.data.folder import load_folder
from firstlight.data.hdf5 import load_hdf5, load_hdf5_part, load_medium_imagenet, load_medium_imagenet_part
from firstlight.data.image_files import find_images, read_images
from firstlight.data.kaggle_digits import load_kaggle_digits
from firstlight.data.loader import WHOLE, Loader, Shard
from firstlight.data.mnist import load_mnist
from firstlight.data.normalize import Normalize
from firstlight.data.places import data_dir_of
from firstlight.data.resize import resize
from firstlight.data.shard_sources import load_parquet, load_parquet_part, load_webdataset, load_webdataset_part
from firstlight.data.splits import carve
from firstlight.data.stored import StoredImages
from firstlight.data.streaming import StreamLoader
from firstlight.data.training_data import TrainingData, part_training_data
from firstlight.errors import ConfigError, DataError, did_you_mean

EVALUATION_BATCH_SIZE = 500
"""Images a batch where nothing is learned: large enough for speed, small enough for the memory of any network here."""

SOURCES: Mapping[str, Callable[..., Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "corrupted_mnist": load_corrupted_mnist,
    "kaggle_digits": load_kaggle_digits,
    "folder": load_folder,
    "hdf5": load_hdf5,
    "medium_imagenet": load_medium_imagenet,
    "webdataset": load_webdataset,
    "parquet": load_parquet,
}

OWN_VALIDATION: Mapping[str, Callable[..., Dataset | None]] = {
    "hdf5": load_hdf5_part,
    "medium_imagenet": load_medium_imagenet_part,
    "webdataset": load_webdataset_part,
    "parquet": load_parquet_part,
}
"""Data sets that may bring a validation part of their own, which is asked for as `val`."""

DOWNLOADS: Mapping[str, tuple[RemoteFile, ...]] = {
    "mnist": MNIST_FILES,
    "fashion_mnist": FASHION_MNIST_FILES,
    "cifar10": CIFAR10_FILES,
    "corrupted_mnist": MNIST_FILES,
}
"""What `data fetch` can download; corrupted MNIST is made from MNIST's files."""


def load_part(kind: Kind, part: str, data_dir: Path) -> Dataset:
    """Return the "train" or "test" part of the data set that a checked config names; only that part is read.

    Raises DataError for missing or damaged files, ConfigError for a name that is none of SOURCES.
    """
    if kind.name not in SOURCES:
        raise ConfigError(f"{kind.name!r} is no data set{did_you_mean(kind.name, SOURCES)}")
    return SOURCES[kind.name](part, data_dir, **kind.options)


def load_experiment_part(config: Config, part: str, data_dir: Path) -> Dataset:
    """Return one part of the data of an experiment, at the size that the network sees; streamed where it is too large for the memory."""
    return _as_asked(config, load_part(config.data, part, data_dir)).settled()


def _as_asked(config: Config, dataset: Dataset) -> Dataset:
    wanted = config.input.num_classes
    if wanted not in (None, dataset.num_classes):
        raise DataError(
            f"{dataset.source} has {dataset.num_classes} classes, but input.num_classes is {wanted}; leave it out or correct it"
        )
    if isinstance(dataset.images, StoredImages) and config.device.threads is not None:
        dataset.images.file.num_threads = config.device.threads
    return dataset if config.input.image_size is None else resize(dataset, config.input.image_size)


def load_training_data(config: Config, data_dir: Path) -> TrainingData:
    """Return what an experiment trains and validates on; the test part is not touched."""
    val = None
    if config.data.name in OWN_VALIDATION and config.split.val_fraction > 0:
        val = OWN_VALIDATION[config.data.name]("val", data_dir, **config.data.options)
    return part_training_data(
        _as_asked(config, load_part(config.data, "train", data_dir)),
        val=None if val is None else _as_asked(config, val),
        val_fraction=config.split.val_fraction,
        split_seed=config.split.seed,
        num_train=config.split.num_train,
        normalize=config.input.normalize == "channel",
    )


class LastData:
    """Reads training data as load_training_data does, and hands what it read last to the next config with the same data."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Any, ...], TrainingData] | None = None

    def __call__(self, config: Config, data_dir: Path) -> TrainingData:
        """Return the data of a config."""
        asked = (config.data, config.split, config.input, config.device.threads, data_dir)
        if self._last is None or self._last[0] != asked:
            self._last = None  # what is not wanted any more makes room first
            self._last = asked, load_training_data(config, data_dir)
        return self._last[1]


def load_all_parts(kind: Kind, data_dir: Path, image_size: int | None, val_fraction: float) -> dict[str, Dataset]:
    """Return train, val (carved, unless the data bring their own) and test of a data set, as a converter writes them."""
    train = load_part(kind, "train", data_dir)
    load = OWN_VALIDATION.get(kind.name)
    own = None if load is None else load("val", data_dir, **kind.options)
    test = load_part(kind, "test", data_dir) if load is None else load("test", data_dir, **kind.options)
    assert train.labels is not None
    rest, carved = carve(train.labels, val_fraction if own is None else 0.0, seed=0)
    parts = {"train": train.subset(rest), "val": own or train.subset(carved), "test": test}
    return {name: part if image_size is None else resize(part, image_size) for name, part in parts.items() if part}


def make_train_loader(
    config: Config, dataset: Dataset, normalize: Normalize, *, seed: int, device: str, channels_last: bool, shard: Shard = WHOLE
) -> Loader:
    """Return the loader of the training part: shuffled, augmented, normalised."""
    augment = config.augment
    return _loader_of(dataset)(
        dataset,
        batch_size=config.train.batch_size,
        seed=seed,
        normalize=normalize,
        augment=Augment(augment.flip, augment.crop, augment.rotation, augment.color_jitter, augment.cutout),
        shuffle=True,
        drop_last=config.train.drop_last,
        device=device,
        channels_last=channels_last,
        shard=shard,
    )


def make_loader(
    dataset: Dataset, config: Config, normalize: Normalize, *, device: str, channels_last: bool, shard: Shard = WHOLE
) -> Loader:
    """Return a loader that goes over a part in order, as it is, to evaluate or predict."""
    size = max(config.train.batch_size, EVALUATION_BATCH_SIZE)
    options: dict[str, Any] = {"device": device, "channels_last": channels_last, "shard": shard}
    return _loader_of(dataset)(dataset, batch_size=size, seed=0, normalize=normalize, **options)


def _loader_of(dataset: Dataset) -> type[Loader]:
    return StreamLoader if isinstance(dataset.images, StoredImages) else Loader


def load_images(paths: Sequence[Path], image_shape: tuple[int, int, int], class_names: Sequence[str]) -> tuple[Dataset, list[Path]]:
    """Return image files (those inside folders too) as an unlabelled data set, and the path of each."""
    found = find_images(paths)
    return read_images(found, image_shape, class_names), found


def load_data(name: str, part: str = "train", *, data_dir: str | Path | None = None, **settings: Any) -> Dataset:
    """Return one part of a data set by name, such as `load_data("mnist")` or `load_data("folder", path="photos")`."""
    return load_part(Kind(name, settings), part, data_dir_of(data_dir))
