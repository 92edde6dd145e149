"""Any data set, or an image folder or archive, as one HDF5 file in Medium ImageNet's layout, its images shuffled."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.data.archive import Archive, DirectoryArchive, open_archive
from firstlight.data.dataset import Dataset
from firstlight.data.decode import decode_image, decode_images
from firstlight.data.hdf5_write import FilePlan, PartToWrite, Progress, write_hdf5
from firstlight.data.layout import Items, find_layout
from firstlight.data.splits import carve
from firstlight.data.stored import Pixels, Rows
from firstlight.errors import DataError

SEED = 20244
BLOCK = 256
VERSION = 1


def convert_folder(
    source: Path,
    out: Path,
    progress: Progress,
    *,
    size: int | None = None,
    order: str = "nhwc",
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    chunked: bool = False,
    shuffled: bool = True,
) -> Path:
    """Write the images of a folder or archive of class folders, in RGB, and return the path.

    size: cut out the middle square and resize it; None wants images of one size. val_fraction: share of the training part that becomes
    `val`, stratified; test_fraction: share that becomes `test` where there is no folder test/. A killed conversion goes on.
    Raises DataError that names the image that is in the way.
    """
    archive = open_archive(source)
    layout = find_layout(archive, test_fraction)
    train, val = carve(torch.tensor([label for _, label in layout.train]), val_fraction, SEED)
    chosen = {
        "train": [layout.train[row] for row in train.tolist()],
        "val": [layout.train[row] for row in val.tolist()],
        "test": layout.test,
    }
    side = size or _side_of(archive, chosen["train"])
    parts = {name: _part_of(archive, items, name, side, exact=size is None, shuffled=shuffled) for name, items in chosen.items() if items}
    settings = [VERSION, archive.content_key(), size, val_fraction, test_fraction, shuffled]
    plan = FilePlan(
        parts=parts,
        class_names=layout.class_names,
        image_shape=(*side, 3) if isinstance(side, tuple) else (side, side, 3),
        order=order,
        made_from=f"{source.name} {json.dumps(settings)}",
        chunked=chunked,
    )
    return write_hdf5(out, plan, progress)


def convert_datasets(
    datasets: dict[str, Dataset],
    out: Path,
    progress: Progress,
    *,
    made_from: str,
    order: str = "nhwc",
    chunked: bool = False,
    shuffled: bool = True,
) -> Path:
    """Write data sets that were read by their own reader, one a part, and return the path; an unlabelled part keeps its order."""
    parts = {}
    for number, (name, dataset) in enumerate(datasets.items()):
        labelled = dataset.labels is not None
        row_of = _row_of(len(dataset), number, shuffled=shuffled and labelled)

        def produce(done: int, dataset: Dataset = dataset, row_of: Rows = row_of) -> Iterator[tuple[Rows, Pixels]]:
            for first in range(done, len(dataset), BLOCK):
                images = dataset.images[first : first + BLOCK]
                yield row_of[first : first + len(images)], np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())

        labels = None if dataset.labels is None else _at_rows(dataset.labels.numpy(), row_of)
        parts[name] = PartToWrite(num_images=len(dataset), labels=labels, produce=produce)
    first = datasets["train"]
    if first.images.is_floating_point():
        raise DataError(f"{first.source}: pixels are not whole numbers 0..255, which is what the file holds; save them with 8 bits")
    channels, height, width = first.image_shape
    plan = FilePlan(
        parts=parts,
        class_names=first.class_names,
        image_shape=(height, width, channels),
        order=order,
        made_from=f"{made_from} {json.dumps([VERSION, shuffled])}",
        chunked=chunked,
    )
    return write_hdf5(out, plan, progress)


def _part_of(archive: Archive, items: Items, name: str, side: "int | tuple[int, int]", *, exact: bool, shuffled: bool) -> PartToWrite:
    """Return a part whose images are decoded in the order in which they lie, each to its place in the shuffle."""
    names = sorted(name for name, _ in items)
    label_of = dict(items)
    labels = np.array([label_of[name] for name in names], np.int64)
    row_of = _row_of(len(names), ("train", "val", "test").index(name), shuffled=shuffled)
    place_of = {name: place for place, name in enumerate(names)}
    shape = (side, side, 3) if isinstance(side, int) else (*side, 3)

    def produce(done: int) -> Iterator[tuple[Rows, Pixels]]:
        wanted = dict.fromkeys(names)
        in_order = isinstance(archive, DirectoryArchive)  # an archive is read from its beginning all the same
        contents = archive.read(names[done:]) if in_order else islice(archive.read(wanted.keys()), done, None)
        decoded = decode_images(contents, grey=False, image_size=None if exact else side)  # type: ignore[arg-type]
        while block := list(islice(decoded, BLOCK)):
            for image, pixels in block:
                if isinstance(pixels, DataError):
                    raise DataError(f"{archive.path}: {image}: {pixels}; repair or remove it and start again")
                if pixels.shape != shape:
                    found = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, others {shape[1]} x {shape[0]}"
                    raise DataError(f"{archive.path}: {image} has {found}; resize all with --size 96")
            yield row_of[[place_of[image] for image, _ in block]], np.stack([pixels for _, pixels in block])  # type: ignore[misc]

    return PartToWrite(num_images=len(names), labels=_at_rows(labels, row_of), produce=produce)


def _side_of(archive: Archive, items: Items) -> tuple[int, int]:
    """Return height and width of the first training image."""
    name, content = next(archive.read([items[0][0]]))
    try:
        height, width, _ = decode_image(content).shape
    except DataError as error:
        raise DataError(f"{archive.path}: {name}: {error}; repair or remove it and start again") from error
    return height, width


def _row_of(num: int, number: int, *, shuffled: bool) -> Rows:
    """Return the row in the file of each image, int64 [num]."""
    return np.random.default_rng([SEED, number]).permutation(num) if shuffled else np.arange(num)


def _at_rows(labels: NDArray[np.int64], row_of: Rows) -> NDArray[np.int64]:
    placed = np.empty_like(labels)
    placed[row_of] = labels
    return placed
