"""Any images in class folders: a directory or an archive, decoded once into the cache.

A decoded part is two files in the cache, KEY.npy (pixels) and KEY.json (labels, names, hash); the second is written last.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.data.archive import Archive, open_archive
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.decode import decode_image, decode_images, is_grey
from firstlight.data.layout import Items, Layout, find_layout
from firstlight.data.places import missing, waiting_lock
from firstlight.errors import DataError
from firstlight.files import cache_dir, sha256, write_json, write_stream
from firstlight.limits import Fraction, PositiveInt

CACHE_VERSION = 1


def load_folder(part: str, data_dir: Path, *, path: str, test_fraction: Fraction = 0.2, image_size: PositiveInt | None = None) -> Dataset:
    """Return one part of the images in a directory, .tar, .tar.gz or .zip of class folders.

    path: the directory or archive; a relative path is tried from the working directory, then from the data folder.
    test_fraction: share that becomes the test part, stratified, where there are no folders train/ and test/.
    image_size: cut out the middle square of each image and resize it to so many pixels; null wants images of one size.

    Pixels are uint8, grey if all training images are, else RGB. Raises DataError that names the image that is in the way.
    """
    archive = open_archive(_find(path, data_dir))
    settings = [CACHE_VERSION, archive.content_key(), part, test_fraction, image_size]
    base = cache_dir() / "folders" / sha256(json.dumps(settings).encode())[:32]
    images, facts = _read_cache(base) or _decode_into_cache(archive, base, part, test_fraction, image_size)
    kind = "training" if part == "train" else "test"
    source = f"{archive.path.name} ({len(images):,} {kind} images{facts['note']})"
    return make_dataset(torch.from_numpy(images), torch.tensor(facts["labels"]), facts["class_names"], source)


def _find(path: str, data_dir: Path) -> Path:
    given = Path(path).expanduser()
    for candidate in (given, data_dir / given):
        if candidate.exists():
            return candidate.resolve()
    raise missing(f"the image folder or archive {path!r}", [Path.cwd(), data_dir], "correct data.path")


def _decode_into_cache(
    archive: Archive, base: Path, part: str, test_fraction: float, image_size: int | None
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    with waiting_lock(base.parent, base.name):
        made_meanwhile = _read_cache(base)
        if made_meanwhile is not None:
            return made_meanwhile
        layout = find_layout(archive, test_fraction)
        items = layout.train if part == "train" else layout.test
        if not items:
            raise DataError(f"{archive.path} has no {part} part with test_fraction={test_fraction:g}; choose another, or add images")
        images = _decode(archive, layout, items, image_size)
        facts = {
            "labels": [label for _, label in items],
            "class_names": layout.class_names,
            "note": layout.note,
            "sha256": hashlib.sha256(images.data).hexdigest(),
        }
        write_stream(base.with_suffix(".npy"), _npy_chunks(images))
        write_json(base.with_suffix(".json"), facts)
        return images, facts


def _decode(archive: Archive, layout: Layout, items: Items, image_size: int | None) -> NDArray[np.uint8]:
    """Return the pixels of the items, [N, C, H, W]; the training images alone decide the channels and the size."""
    grey = _all_grey(archive, layout.train)
    first, shape = _first_shape(archive, layout.train, grey=grey, image_size=image_size)
    row_of = {name: row for row, (name, _) in enumerate(items)}
    images = np.empty((len(items), 1 if grey else 3, *shape[:2]), np.uint8)
    for name, pixels in decode_images(archive.read(row_of.keys()), grey=grey, image_size=image_size):
        if isinstance(pixels, DataError):
            raise DataError(f"{archive.path}: {name}: {pixels}; `firstlight data check {archive.path}` lists every such image") from pixels
        if pixels.shape != shape:
            sizes = f"{first} has {shape[1]} x {shape[0]} pixels and {name} {pixels.shape[1]} x {pixels.shape[0]}"
            raise DataError(f"{archive.path}: the images differ in size: {sizes}; resize all with data.image_size=64")
        images[row_of[name]] = pixels if grey else pixels.transpose(2, 0, 1)
    return images


def _all_grey(archive: Archive, items: Items) -> bool:
    """Tell from the headers whether no training image has colour; the first that has ends the search."""
    for name, content in archive.read([name for name, _ in items]):
        try:
            if not is_grey(content):
                return False
        except DataError as error:
            raise DataError(f"{archive.path}: {name}: {error}; `firstlight data check {archive.path}` lists every such image") from error
    return True


def _first_shape(archive: Archive, items: Items, *, grey: bool, image_size: int | None) -> tuple[str, tuple[int, ...]]:
    name, content = next(iter(archive.read([items[0][0]])))
    try:
        return name, decode_image(content, grey=grey, image_size=image_size).shape
    except DataError as error:
        raise DataError(f"{archive.path}: {name}: {error}; `firstlight data check {archive.path}` lists every such image") from error


def _npy_chunks(images: NDArray[np.uint8]) -> Iterator[bytes]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
    yield header.getvalue()
    for start in range(0, len(images), 1024):
        yield images[start : start + 1024].tobytes()


def _read_cache(base: Path) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Return what the cache holds whole; anything else is made again."""
    try:
        facts = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
        images = np.load(base.with_suffix(".npy"), allow_pickle=False)
        whole = hashlib.sha256(images.data).hexdigest() == facts["sha256"]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return (images, facts) if whole else None
