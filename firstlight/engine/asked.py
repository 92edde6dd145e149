"""A finished run that is asked about images without labels: a part of its data, image files, or a CSV of pixels.

Of files and of a CSV no more than a batch or two are in memory, however many there are; a part of the data is there as a training has it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.config.schema import Config
from firstlight.data.build import load_experiment_part, make_loader
from firstlight.data.dataset import Dataset
from firstlight.data.image_files import find_images, read_images
from firstlight.data.kaggle_digits import count_rows, read_pixels
from firstlight.data.loader import Loader
from firstlight.data.resize import resize
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import logits_of
from firstlight.engine.finished import draw_predictions
from firstlight.engine.matching import check_match
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import arithmetic_of, config_of, data_record, load_model, normalize_of
from firstlight.errors import ConfigError, DataError
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run, find_run

UNLABELLED = ("kaggle_digits", "hdf5", "medium_imagenet", "webdataset", "parquet")
"""The data sets whose test part may have no labels, so that reading it opens no seal."""


@dataclass(frozen=True)
class Asked:
    """A run with its network in eval mode on its device, and the images without labels that it is asked about.

    dataset: a part of the data, else None; paths: image files, or one .csv; what: the images in words.
    """

    run: Run
    config: Config
    arithmetic: Arithmetic
    model: Any
    dataset: Dataset | None
    paths: Sequence[Path]
    num_images: int
    what: str

    def __len__(self) -> int:
        return self.num_images

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return tuple(data_record(self.run)["class_names"])

    @cached_property
    def table(self) -> Path | None:
        """The CSV of pixels that the images are in, if they are."""
        return self.paths[0] if self.paths and is_table(self.paths[0]) else None

    def name(self, index: int) -> str:
        """Return what an image is called: its path, else its place, such as test[0]."""
        if self.paths and self.table is None:
            return str(self.paths[index])
        return f"{self.table or 'test'}[{index}]"

    @cached_property
    def batch_size(self) -> int:
        """Images in a batch, the last one apart."""
        return self._loader(self._first()).batch_size

    def probabilities(self, start: int = 0) -> Iterator[Tensor]:
        """Yield the class probabilities float32 [B, num_classes] on the CPU, batch by batch from batch number `start` on.

        A batch is the same to the last bit wherever one starts. Raises DataError for an image that cannot be read, OutOfMemoryError.
        """
        if self.dataset is not None:
            yield from self._ask(self._loader(self.dataset), start)
            return
        for images in self._read(start):
            yield from self._ask(self._loader(images), 0)

    def labels(self, console: Console) -> NDArray[np.int64]:
        """Return the most probable class of each image, int64 [N]."""
        found = np.empty(len(self), np.int64)
        done = 0
        with console.progress("predict", len(self)) as bar:
            for probabilities in self.probabilities():
                found[done : done + len(probabilities)] = probabilities.argmax(1).numpy()
                done += len(probabilities)
                bar.update(done)
        return found

    def sheet(self, title: str) -> Any:
        """Return a figure of 20 images of a part of the data, evenly spread, with what each is taken for."""
        assert self.dataset is not None
        return draw_predictions(self.model, self.dataset, self.config, self.run, title=title)

    def _ask(self, loader: Loader, start: int) -> Iterator[Tensor]:
        for logits, _ in logits_of(self.model, loader, self.arithmetic, self.config.evaluation, start=start):
            yield logits.softmax(1).cpu()

    def _loader(self, dataset: Dataset) -> Loader:
        arithmetic = self.arithmetic
        return make_loader(dataset, self.config, normalize_of(self.run), device=arithmetic.device, channels_last=arithmetic.channels_last)

    def _first(self) -> Dataset:
        """Return the first image."""
        if self.dataset is not None:
            return self.dataset.subset(torch.arange(1))
        return self._files(self.paths[:1]) if self.table is None else self._rows(next(read_pixels(self.table))[:1])

    def _read(self, start: int) -> Iterator[Dataset]:
        """Yield files or rows of a CSV, a batch at a time."""
        size = self.batch_size
        if self.table is None:
            for first in range(start * size, len(self), size):
                yield self._files(self.paths[first : first + size])
            return
        for number, images in enumerate(_regrouped(read_pixels(self.table), size)):
            if number >= start:
                yield self._rows(images)

    def _files(self, paths: Sequence[Path]) -> Dataset:
        return read_images(paths, tuple(data_record(self.run)["image_shape"]), self.class_names)

    def _rows(self, images: Tensor) -> Dataset:
        dataset = Dataset(images, None, self.class_names, str(self.table))
        if (size := self.config.input.image_size) is not None:
            dataset = resize(dataset, size)
        check_match(dataset, data_record(self.run))
        return dataset


@contextmanager
def asked(
    run: str | Path, images: Sequence[str | Path] = (), *, runs_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> Iterator[Asked]:
    """Open a run for a block that asks it about images, on the threads that it was trained on.

    images: files and folders, or one .csv of pixels; none means the unlabelled test part of the run's data.
    Raises ConfigError where that part has labels, DataError where images and run do not fit.
    """
    found = find_run(run, runs_dir_of(runs_dir))
    config, arithmetic, record = config_of(found), arithmetic_of(found), data_record(found)
    with (
        arithmetic.on_threads(),
        out_of_memory("reading the images and the network", "name fewer images, or use a machine with more memory"),
    ):
        dataset, paths = None, _paths_of([Path(image) for image in images])
        if not images:
            dataset = _unlabelled_part(config, record, data_dir_of(data_dir))
        table = paths[0] if paths and is_table(paths[0]) else None
        num = len(dataset) if dataset is not None else len(paths) if table is None else count_rows(table)
        if not num:
            raise DataError(f"{paths[0]} has no rows below its header; download it again")
        what = dataset.source if dataset is not None else f"{num:,} image files" if table is None else f"{table} ({num:,} rows)"
        yield Asked(found, config, arithmetic, arithmetic.place(load_model(found)), dataset, paths, num, what)


def is_table(path: Path) -> bool:
    """Tell whether a path names a CSV of pixels."""
    return path.suffix.lower() == ".csv" and not path.is_dir()


def _paths_of(images: Sequence[Path]) -> list[Path]:
    tables = [path for path in images if is_table(path)]
    if tables and len(images) > 1:
        raise ConfigError(f"{tables[0]} is a CSV of pixels and stands beside other images; name it alone, and predict the others apart")
    return tables or (find_images(images) if images else [])


def _unlabelled_part(config: Config, record: dict[str, Any], data_dir: Path) -> Dataset:
    dataset = load_experiment_part(config, "test", data_dir) if config.data.name in UNLABELLED else None
    if dataset is None or dataset.labels is not None:  # sealed: nothing of it is looked at
        raise ConfigError(
            "no image was named; give image files or folders (test images with labels: `firstlight evaluate RUN --split test`)"
        )
    check_match(dataset, record)
    return dataset


def _regrouped(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the rows of the blocks anew, `size` at a time."""
    rest: Tensor | None = None
    for block in blocks:
        rows = block if rest is None else torch.cat([rest, block])
        *whole, rest = rows.split(size)
        yield from whole
    if rest is not None:
        yield rest
