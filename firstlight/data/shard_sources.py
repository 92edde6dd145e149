"""Data sets in shards: tars in WebDataset's convention, and Parquet files as Hugging Face's hub has them.

Reading order: load_webdataset, load_parquet, _load, _labels, _look.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from firstlight.data import stored
from firstlight.data.class_names import given_names, names_beside, numbered_names
from firstlight.data.dataset import Dataset
from firstlight.data.decode import decode_image, is_grey
from firstlight.data.parquet_shards import look_into_parquets, require_pyarrow
from firstlight.data.probe import NO_LABEL
from firstlight.data.shard_files import find_shards, part_named
from firstlight.data.shard_index import ShardIndex, index_shards
from firstlight.data.shards import ParquetReader, Reader, ShardFacts, ShardFile, TarReader, bad_image
from firstlight.data.stored import Rows, StoredImages
from firstlight.data.tar_shards import Keys, look_into_tars
from firstlight.errors import DataError, StorageError
from firstlight.files import cache_dir, make_dir, sha256, write_json
from firstlight.limits import PositiveInt

PARTS = {"train": "training", "val": "validation", "test": "test"}
LOOKS, IMAGES_A_LOOK = 8, 8
"""Images that channels and size are settled by: so many at so many places of the training shards."""
FEW_BLOCKS = 16
"""With fewer blocks in a window, a run says that its order is poorly mixed."""


def load_webdataset(
    part: str,
    data_dir: Path,
    *,
    path: str,
    val_path: str | None = None,
    test_path: str | None = None,
    images_key: str | None = None,
    labels_key: str | None = None,
    class_names: str | None = None,
    image_size: PositiveInt | None = None,
    channels: Literal[1, 3] | None = None,
    stream: Literal["auto", "on", "off"] = "auto",
    buffer_mib: PositiveInt = 1024,
) -> Dataset:
    """Return one part of the images in tar shards of WebDataset's convention, which stay there where they are too many for the memory.

    path: a folder of shards, or a pattern such as train-{000..099}.tar or {part}-*.tar; relative ones as data.path elsewhere.
    val_path, test_path: folder or pattern of further parts, where `path` does not name them.
    images_key: ending of the images, such as jpg; null takes the one image file of each sample.
    labels_key: ending of the labels, or json.FIELD; null takes cls, else the field `label` of json.
    class_names: a .txt or .json with the names of the classes; null looks beside the shards.
    image_size: cut out the middle square of each image and resize it to so many pixels; null wants images of one size.
    channels: 1 (grey) or 3 (RGB); null looks at 64 training images, and takes 1 where none of them has colour.
    stream: `on` leaves the images in the shards, `off` loads them whole, `auto` decides by the size of their pixels.
    buffer_mib: memory in which streamed images are shuffled.

    Raises DataError that names the shard and the sample.
    """
    found = load_webdataset_part(
        part,
        data_dir,
        path=path,
        val_path=val_path,
        test_path=test_path,
        images_key=images_key,
        labels_key=labels_key,
        class_names=class_names,
        image_size=image_size,
        channels=channels,
        stream=stream,
        buffer_mib=buffer_mib,
    )
    return _required(found, part, path)


def load_parquet(
    part: str,
    data_dir: Path,
    *,
    path: str,
    val_path: str | None = None,
    test_path: str | None = None,
    images_key: str | None = None,
    labels_key: str | None = None,
    class_names: str | None = None,
    image_size: PositiveInt | None = None,
    channels: Literal[1, 3] | None = None,
    stream: Literal["auto", "on", "off"] = "auto",
    buffer_mib: PositiveInt = 1024,
) -> Dataset:
    """Return one part of the images in Parquet files, as Hugging Face's hub has them, which stay there where they are too many.

    path: a folder of shards, or a pattern such as train-*.parquet or {part}-*.parquet; relative ones as data.path elsewhere.
    val_path, test_path: folder or pattern of further parts, where `path` does not name them.
    images_key: column of encoded images, binary or a struct with `bytes`; null takes what the file says, else `image` or `img`.
    labels_key: column of whole numbers; null takes what the file says, else `label` or `labels`.
    class_names: a .txt or .json with the names of the classes; null looks in the shards and beside them.
    image_size: cut out the middle square of each image and resize it to so many pixels; null wants images of one size.
    channels: 1 (grey) or 3 (RGB); null looks at 64 training images, and takes 1 where none of them has colour.
    stream: `on` leaves the images in the shards, `off` loads them whole, `auto` decides by the size of their pixels.
    buffer_mib: memory in which streamed images are shuffled.

    Raises DataError that names the shard and the row.
    """
    found = load_parquet_part(
        part,
        data_dir,
        path=path,
        val_path=val_path,
        test_path=test_path,
        images_key=images_key,
        labels_key=labels_key,
        class_names=class_names,
        image_size=image_size,
        channels=channels,
        stream=stream,
        buffer_mib=buffer_mib,
    )
    return _required(found, part, path)


def load_webdataset_part(part: str, data_dir: Path, *, images_key: str | None, labels_key: str | None, **settings: Any) -> Dataset | None:
    """Return a part as load_webdataset does, or None where there are no shards of it."""
    keys = Keys(None if images_key is None else images_key.lower().lstrip("."), labels_key and labels_key.lstrip("."))
    kind = _Kind(".tar", partial(look_into_tars, keys=keys), lambda shards, most: TarReader(shards, keys))
    return _load(kind, part, data_dir, keys=[images_key, labels_key], **settings)


def load_parquet_part(part: str, data_dir: Path, *, images_key: str | None, labels_key: str | None, **settings: Any) -> Dataset | None:
    """Return a part as load_parquet does, or None where there are no shards of it."""
    require_pyarrow()
    look = partial(look_into_parquets, images_key=images_key, labels_key=labels_key)
    return _load(_Kind(".parquet", look, ParquetReader), part, data_dir, keys=[images_key, labels_key], **settings)


@dataclass(frozen=True)
class _Kind:
    """What is particular to a kind of shard: its suffix, the look into it, and its reader for blocks of so many rows at most."""

    suffix: str
    look: Any
    reader: Any


def _required(found: Dataset | None, part: str, path: str) -> Dataset:
    if found is None:
        raise DataError(f"{path} has no {PARTS[part]} part; name its shards with data.{part}_path, or leave that part out")
    return found


def _load(
    kind: _Kind,
    part: str,
    data_dir: Path,
    *,
    keys: list[str | None],
    path: str,
    val_path: str | None,
    test_path: str | None,
    class_names: str | None,
    image_size: int | None,
    channels: int | None,
    stream: str,
    buffer_mib: int,
) -> Dataset | None:
    files = find_shards(path, data_dir, suffix=kind.suffix, others={"val": val_path, "test": test_path})
    if part not in files:
        return None
    train = index_shards(files["train"], kind.look, [kind.suffix, *keys])
    shards = train if part == "train" else index_shards(files[part], kind.look, [kind.suffix, *keys])
    _check_alike([*train, *shards])
    labels, known = _labels(shards, kind, part), _labels(train, kind, "train")
    folder = files["train"][0].parent
    names = _class_names(class_names, train, folder, cast(Tensor, known))
    if labels is not None:
        _check_range(labels, len(names), kind.reader(shards, 1))
    shape = _look(kind.reader(train, 1), image_size, channels)
    row_bytes = int(np.prod(shape))
    reader = kind.reader(shards, max(1, stored.BLOCK_BYTES // row_bytes))
    facts = ShardFacts(
        Path(path),
        f"{keys[0] or 'images'} of {part}",
        tuple(value for shard in shards for value in shard.identity),
        (len(reader), *shape),
        "nhw" if len(shape) == 2 else "nhwc",
        reader=reader,
    )
    images = StoredImages(ShardFile(facts, image_size), policy=stream, buffer_bytes=buffer_mib << 20)
    what = PARTS[part] if labels is not None else f"unlabelled {PARTS[part]}"
    whose = folder.parent if folder.name == "data" or part_named(folder.name) else folder
    source = f"{whose.name} ({len(images):,} {what} images in {len(shards):,} {kind.suffix[1:]} shard{'s' * (len(shards) > 1)})"
    return Dataset(cast(Tensor, images), labels, names, source, _warnings(images, reader))


def _check_alike(shards: Sequence[ShardIndex]) -> None:
    """Raise DataError where the columns of a shard are not those of the first."""
    first = shards[0].about
    for shard in shards:
        wrong = next((key for key in first if shard.about.get(key) != first[key]), None)
        if wrong is not None:
            said, others = (str(about.get(wrong))[:60] for about in (shard.about, first))
            raise DataError(
                f"{shard.path}: {wrong.replace('_', ' ')} are {said}, those of {shards[0].path.name} {others}; keep one data set a folder"
            )


def _labels(shards: Sequence[ShardIndex], kind: _Kind, part: str) -> Tensor | None:
    """Return the labels of a part, int64 [N]; None where none of its images has one, as in a test part."""
    labels = np.concatenate([shard.labels for shard in shards])
    absent = labels == NO_LABEL
    if part != "train" and bool((absent | (labels == -1)).all()):  # Hugging Face's data sets say -1 for it
        return None
    if absent.any():
        where = kind.reader(shards, 1).where(int(absent.argmax()))
        raise DataError(
            f"{where} has no label ({int(absent.sum()):,} of {len(labels):,} images have none); set data.labels_key, or add them"
        )
    return torch.from_numpy(labels)


def _class_names(given: str | None, train: Sequence[ShardIndex], folder: Path, labels: Tensor) -> tuple[str, ...]:
    """Return the names of the classes: from the file that is given, the shards, a file beside them or above, or the labels."""
    if given is not None:
        return given_names(given, folder)
    found = tuple(train[0].about.get("class_names") or ()) or names_beside(folder) or names_beside(folder.parent)
    return found or numbered_names(labels, str(folder))


def _check_range(labels: Tensor, num_classes: int, reader: Reader) -> None:
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        more = f" ({len(wrong):,} such images)"
        raise DataError(
            f"{reader.where(row)}: label {int(labels[row])}, allowed 0..{num_classes - 1}{more}; correct it, or data.class_names"
        )


def _look(reader: Reader, image_size: int | None, channels: int | None) -> tuple[int, ...]:
    """Return the shape of the images, (H, W) or (H, W, 3), by some of the training images; what was found is kept in the cache."""
    if image_size is not None and channels is not None:
        return (image_size, image_size) if channels == 1 else (image_size, image_size, 3)
    known = [[str(shard.path), *shard.identity] for shard in reader.shards]
    entry = cache_dir() / "shards" / f"look-{sha256(json.dumps([known, image_size, channels, reader.how]).encode())[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return tuple(int(length) for length in json.loads(entry.read_text(encoding="utf-8"))["shape"])
    sizes: dict[tuple[int, int], str] = {}
    has_colour = False
    total = len(reader)
    starts = np.unique(np.linspace(0, max(0, total - IMAGES_A_LOOK), LOOKS).astype(np.int64))
    rows: Rows = np.unique((starts[:, None] + np.arange(IMAGES_A_LOOK)).clip(max=total - 1))
    for _, shard, in_shard, images in reader.contents(rows, IMAGES_A_LOOK, {}, None):
        for row, content in zip(in_shard.tolist(), images, strict=True):
            try:
                has_colour = has_colour or not is_grey(bytes(content))
                height, width, _ = decode_image(bytes(content), image_size=image_size).shape
            except DataError as error:
                raise bad_image(reader, shard, row, str(error)) from error
            sizes.setdefault((height, width), f"{reader.shards[shard].path}: {reader.name(shard, row)}")
    if len(sizes) > 1:
        (one, first), (two, second) = list(sizes.items())[:2]
        pair = f"{first} has {one[1]} x {one[0]} pixels, {second} {two[1]} x {two[0]}"
        raise DataError(f"the images differ in size: {pair}; resize all with data.image_size=64")
    (size,) = sizes
    shape = size if (channels or (3 if has_colour else 1)) == 1 else (*size, 3)
    with suppress(StorageError):
        make_dir(entry.parent)
        write_json(entry, {"shape": shape})
    return shape


def _warnings(images: StoredImages, reader: Reader) -> tuple[str, ...]:
    """Return a line where row groups are so large that few of them are mixed."""
    largest = reader.largest_block
    window = images.buffer_bytes // 2 // images.file.facts.row_bytes
    if not images.stays or largest == 0 or largest * FEW_BLOCKS <= window:
        return ()
    return (
        f"a row group has up to {largest:,} images, and {window:,} are shuffled at a time, so that few groups are mixed; "
        "raise data.buffer_mib, or write the shards with smaller ones (row_group_size=100)",
    )
