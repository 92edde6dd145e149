"""Tar shards in WebDataset's convention: the files of one sample lie together and share their name up to the first dot of the last part.

A shard is looked through once, for the place of each image and for its label; then images are read at their places. Nothing is unpacked
to disk. Reading order: Keys, look_into_tars, _samples, _members, read_tars.
"""

import json
import os
import tarfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from firstlight.data.archive import BROKEN_ARCHIVE, check_member, no_file
from firstlight.data.decode import SUFFIXES
from firstlight.data.probe import NO_LABEL
from firstlight.data.shard_index import Contents, ShardIndex
from firstlight.data.stored import AHEAD_BYTES, BLOCK_BYTES, GAP_BYTES, Rows, check_unchanged
from firstlight.errors import DataError

MAX_HEADER_BYTES = 1 << 20
"""Of a long name, or of what else tar puts before a member."""
MAX_LABEL_BYTES = 1 << 20
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Keys:
    """What the files of a sample are called, behind its name.

    image: the ending of the images, such as jpg; None takes the one image file of a sample. label: that of the labels, such as cls, or
    json.FIELD; None takes cls, else the field `label` of json.
    """

    image: str | None = None
    label: str | None = None


@dataclass
class _Sample:
    """The files of one name: place and size of the image, and of each file that may hold the label."""

    name: str
    image: tuple[int, int] | None = None
    image_name: str = ""
    labels: dict[str, tuple[int, int]] | None = None


def look_into_tars(paths: Sequence[Path], keys: Keys) -> Iterator[tuple[Rows, Rows, dict[str, Any]]]:
    """Yield the labels int64 [N], and offset and size of the images int64 [N, 2], of tars. Raises DataError that names tar and sample."""
    for path in paths:
        with path.open("rb") as handle:
            found = [(_label_of(sample, handle, path, keys), sample.image) for sample in _samples(path, handle, keys)]
        labels = np.array([label for label, _ in found], np.int64)
        yield labels, np.array([image for _, image in found], np.int64).reshape(-1, 2), {}


def name_of(path: Path, row: int, keys: Keys) -> str:
    """Return what the image in a row of a shard is called, as well as can be said."""
    try:
        with path.open("rb") as handle:
            return next((repr(sample.image_name) for at, sample in enumerate(_samples(path, handle, keys)) if at == row), f"image {row:,}")
    except (OSError, DataError):
        return f"image {row:,}"


def _samples(path: Path, handle: IO[bytes], keys: Keys) -> Iterator[_Sample]:
    """Yield the samples that have an image, in their order; files without one (a README, statistics) are passed over."""
    wanted = _endings(keys)
    seen: set[str] = set()
    sample = _Sample("")
    for name, place, size in _members(path, handle):
        folder, slash, last = name.rpartition("/")
        stem, _, ending = last.partition(".")
        key, ending = folder + slash + stem, ending.lower()
        if not stem or folder.startswith("__MACOSX"):  # hidden files, and what a Mac adds
            continue
        if key != sample.name:
            yield from _whole(sample, path)
            if key in seen:
                raise DataError(
                    f"{path}: the files of {key!r} do not lie together, or its name is there twice; pack it anew with a name a sample"
                )
            seen.add(key)
            sample = _Sample(key, labels={})
        assert sample.labels is not None
        if ending == keys.image or (keys.image is None and f".{ending}" in SUFFIXES):
            if sample.image is not None:
                both = f"{sample.image_name!r} and {name!r}"
                remedy = "pack it anew" if sample.image_name == name else "name one with data.images_key=ENDING"
                raise DataError(f"{path}: the sample {key!r} has two images, {both}; {remedy}")
            sample.image, sample.image_name = (place, size), name
        elif ending in wanted:
            if ending in sample.labels:
                raise DataError(f"{path}: {name!r} is there twice; pack it anew with a name a sample")
            sample.labels[ending] = (place, size)
    yield from _whole(sample, path)


def _whole(sample: _Sample, path: Path) -> Iterator[_Sample]:
    """Yield a sample that has an image; one that has neither image nor label is something else."""
    if sample.image is None and sample.labels:
        raise DataError(
            f"{path}: the sample {sample.name!r} has .{', .'.join(sample.labels)} and no image; set data.images_key, or pack it anew"
        )
    if sample.image is not None:
        yield sample


def _endings(keys: Keys) -> tuple[str, ...]:
    return ("cls", "json") if keys.label is None else ("json",) if keys.label.startswith("json.") else (keys.label,)


def _members(path: Path, handle: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Yield name, place and size of each plain file of a tar, to its end. Raises DataError for a tar that is not whole."""
    total = os.fstat(handle.fileno()).st_size
    if handle.read(2) == GZIP:
        raise DataError(f"{path} is compressed, so that no image can be read by itself; unpack it with gunzip, images are packed already")
    handle.seek(0)
    end = 0
    try:
        with tarfile.open(fileobj=_Headers(handle, path), mode="r:") as tar:  # type: ignore[call-overload]
            for member in tar:
                tar.members = []  # tarfile keeps every header otherwise
                if member.isdir():
                    end = member.offset_data
                    continue
                if not member.isreg() or member.issparse():
                    raise no_file(path, member.name)
                if member.size < 0 or member.offset_data < end:
                    raise DataError(
                        f"{path}: {member.name!r} lies before its own beginning; the tar is damaged or made to do harm, get it again"
                    )
                check_member(path, member.name, member.size)
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if member.offset_data + member.size > total:
                    raise DataError(f"{path} is truncated: {member.name!r} ends behind its {total:,} bytes; copy or download it again")
                yield member.name.removeprefix("./"), member.offset_data, member.size
    except BROKEN_ARCHIVE as error:
        if isinstance(error, tarfile.ReadError) and not end:
            handle.seek(0)
            begins = handle.read(8)
            raise DataError(f"{path} is no tar (it begins with {begins!r}); name the shards that were downloaded") from error
        raise DataError(f"{path} is not a whole tar ({' '.join(str(error).split())[:200]}); copy or download it again") from error
    handle.seek(end)
    mark = handle.read(tarfile.BLOCKSIZE)  # tarfile takes a damaged header for the end, and the end of the file too
    if len(mark) < tarfile.BLOCKSIZE:
        raise DataError(f"{path} is truncated: {total:,} bytes, and no mark of its end; copy or download it again")
    if mark != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} is damaged at byte {end:,}, where a file should begin; copy or download it again")


class _Headers:
    """The file as tarfile reads it: headers, which are short, and never a member."""

    def __init__(self, handle: IO[bytes], path: Path) -> None:
        self.seek, self.tell, self._handle, self._path = handle.seek, handle.tell, handle, path

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise DataError(f"{self._path}: a header of {size:,} bytes; the tar is damaged or made to do harm, get it again")
        return self._handle.read(size)


def _label_of(sample: _Sample, handle: IO[bytes], path: Path, keys: Keys) -> int:
    """Return the label of a sample, or NO_LABEL."""
    ending = next((ending for ending in _endings(keys) if sample.labels and ending in sample.labels), None)
    if ending is None or sample.labels is None:
        return NO_LABEL
    place, size = sample.labels[ending]
    name = f"{path}: {sample.name}.{ending}"
    if size > MAX_LABEL_BYTES:
        raise DataError(f"{name} has {size:,} bytes; a label has at most {MAX_LABEL_BYTES:,}; name another with data.labels_key")
    content = os.pread(handle.fileno(), size, place)
    value: Any = content.decode("ascii", errors="replace").strip()
    if ending == "json":
        field = (keys.label or "json.label").removeprefix("json.")
        value = _field(content, field, name)
        if value is None:
            return NO_LABEL
        name = f"{name}: {field}"
    try:
        label = int(value) if isinstance(value, str | int) and not isinstance(value, bool) and "_" not in str(value) else None
    except ValueError:
        label = None
    if label is None or abs(label) >= 2**62:
        shown = repr(value if isinstance(value, str) else json.dumps(value))[:60]
        raise DataError(
            f"{name} is {shown}, which is no whole number; write labels as numbers from 0, and their names into class-names.txt"
        )
    return label


def _field(content: bytes, field: str, name: str) -> Any:
    """Return a field of a JSON object, a.b for one inside another; None where there is none."""
    try:
        value = json.loads(content)
        for key in field.split("."):
            value = value.get(key)
            if value is None:
                return None
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{name} is no JSON object with {field!r} ({' '.join(str(error).split())[:80]}); repair it, or set data.labels_key"
        ) from error
    return value


def read_tars(shards: Sequence[ShardIndex], places: Rows, starts: Rows, rows: Rows, most: int) -> Generator[Contents]:
    """Yield the bytes of the images in `rows` (sorted) of all shards, some megabytes and at most `most` images at a time.

    places: int64 [N, 2], offset and size of each image; starts: the first row of each shard, and the end. The system is told of what
    comes next before it is read. A shard is open while it is read, so that no process hands an open one to another.
    """
    pieces = list(_pieces(places, starts, rows, most))
    opened: deque[int] = deque()
    told = ahead = 0
    try:
        for first, last, shard in pieces:
            while told < len(pieces) and (ahead < AHEAD_BYTES or not opened):
                opened.append(_open(shards[pieces[told][2]]))
                place, size = _span(places, rows, *pieces[told][:2])
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(opened[-1], place, size, os.POSIX_FADV_WILLNEED)
                ahead, told = ahead + size, told + 1
            place, size = _span(places, rows, first, last)
            content = memoryview(_pread(opened[0], place, size, shards[shard].path))
            os.close(opened.popleft())
            ahead -= size
            chosen = rows[first:last]
            images = [content[offset - place : offset - place + length] for offset, length in places[chosen].tolist()]
            yield first, shard, chosen - starts[shard], images
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _pieces(places: Rows, starts: Rows, rows: Rows, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield first and last place in `rows`, and the shard, of what is read at once: little that nobody wants, and BLOCK_BYTES at most."""
    shards = np.searchsorted(starts, rows, side="right") - 1
    offsets, sizes = places[rows, 0], places[rows, 1]
    breaks = np.ones(len(rows), bool)
    breaks[1:] = (shards[1:] != shards[:-1]) | (offsets[1:] - (offsets + sizes)[:-1] > GAP_BYTES)
    begins, ends, first = offsets.tolist(), (offsets + sizes).tolist(), 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or breaks[at] or at - first == most or ends[at] - begins[first] > BLOCK_BYTES:
            yield first, at, int(shards[first])
            first = at


def _span(places: Rows, rows: Rows, first: int, last: int) -> tuple[int, int]:
    begin, end = int(places[rows[first], 0]), int(places[rows[last - 1]].sum())
    return begin, end - begin


def _open(index: ShardIndex) -> int:
    path = index.path
    check_unchanged(path, index.identity)
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; put the file back, or correct data.path") from error


def _pread(descriptor: int, place: int, size: int, path: Path) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        try:
            got = os.preadv(descriptor, [view], place)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; check the disk") from error
        if got == 0:
            raise DataError(f"{path} ended at byte {place:,} while it was read; get the file again")
        view, place = view[got:], place + got
    return content
