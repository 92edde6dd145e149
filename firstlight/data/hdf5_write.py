"""HDF5 files in Medium ImageNet's layout, written so that a killed writer goes on where it stood and a reader can check every byte.

The file grows as FILE.part: h5py lays out its arrays and closes it, then pixels are written at their places, with FILE.part.json saying
how many. At the end all is read back for the checksums, and the file gets its name. Reading order: write_hdf5, _skeleton, _fill, _seal.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.data.hdf5 import require_h5py
from firstlight.data.stored import BLOCK_BYTES, Pixels, Rows
from firstlight.errors import DataError
from firstlight.files import check_room, make_by, make_dir, move, remove, sha256, write_at, write_json

SAVE_BYTES = 128 << 20
"""Pixels between two notes of how far the file has come."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, and how many images of all."""


@dataclass(frozen=True, kw_only=True)
class PartToWrite:
    """One part of a file.

    labels: int64 [N], None where nobody has them; num_images: N. produce: called with a number of images to leave out, yields
    (rows int64 [M] in the file, pixels uint8 [M, H, W, C]), always the same ones in the same order.
    """

    num_images: int
    labels: NDArray[np.int64] | None
    produce: Callable[[int], Iterator[tuple[Rows, Pixels]]]


@dataclass(frozen=True, kw_only=True)
class FilePlan:
    """What a file is to hold. image_shape: H, W, C; order: of the axes in the file, nhwc or nchw; made_from: names the pixels to come."""

    parts: Mapping[str, PartToWrite]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    order: str
    made_from: str
    chunked: bool = False

    def array_shape(self, part: str) -> tuple[int, ...]:
        """Return the shape of the images of a part in the file."""
        height, width, channels = self.image_shape
        inner = (height, width, channels) if self.order == "nhwc" else (channels, height, width)
        return self.parts[part].num_images, *inner

    @property
    def row_bytes(self) -> int:
        """Bytes of an image."""
        return int(np.prod(self.image_shape))

    @property
    def rows_per_block(self) -> int:
        """Images of a chunk, and of what a checksum is for."""
        return max(1, BLOCK_BYTES // self.row_bytes)

    def key(self) -> str:
        """Return what tells this plan from others."""
        labels = {name: None if part.labels is None else sha256(part.labels.tobytes()) for name, part in self.parts.items()}
        shapes = {name: self.array_shape(name) for name in self.parts}
        return sha256(json.dumps([labels, shapes, self.class_names, self.order, self.made_from]).encode())


def write_hdf5(path: Path, plan: FilePlan, progress: Progress) -> Path:
    """Write the file and return its path; what an earlier try left of the same plan is gone on from.

    Each images array has the attribute sha256 (of its bytes in the order of the array), and checksums-PART holds the CRC-32 of each of
    its blocks of `rows` images. chunked: store blocks as chunks with HDF5's own checksum (fletcher32), which every reader checks.
    """
    require_h5py()
    if path.exists():
        raise DataError(f"{path} is there already; remove it, or choose another name")
    make_dir(path.parent)
    growing, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    places, done = _places(growing, plan), _done_before(note, plan)
    if places is None or done is None:
        total = sum(part.num_images for part in plan.parts.values()) * plan.row_bytes
        check_room(path, total * (2 if plan.chunked else 1))
        remove(note)
        make_by(growing, lambda target: _skeleton(target, plan))
        places, done = _places(growing, plan), dict.fromkeys(plan.parts, 0)
        _save(note, plan, done)
    assert places is not None
    for name in plan.parts:
        _fill(growing, note, plan, name, places[name], done, progress)
    _seal(growing, plan, places, progress)
    if plan.chunked:
        repacked = path.with_name(path.name + ".chunked.part")
        remove(repacked)
        make_by(repacked, lambda target: _repack(growing, target, plan, progress))
        remove(growing)
        growing = repacked
    move(growing, path)
    remove(note)
    return path


def _places(growing: Path, plan: FilePlan) -> dict[str, int] | None:
    """Return where the images of each part begin in a file that an earlier try laid out, None where there is no such file."""
    import h5py

    try:
        with h5py.File(growing, "r") as file:
            arrays = {name: file[f"images-{name}"] for name in plan.parts}
            fits = all(arrays[name].shape == plan.array_shape(name) for name in plan.parts)
            return {name: int(array.id.get_offset()) for name, array in arrays.items()} if fits else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # none there, or a kill came while h5py wrote
        return None


def _done_before(note: Path, plan: FilePlan) -> dict[str, int] | None:
    """Return how many images of each part an earlier try has written, None where there was none of this plan."""
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        return {name: int(kept["done"][name]) for name in plan.parts} if kept["plan"] == plan.key() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(note: Path, plan: FilePlan, done: dict[str, int]) -> None:
    write_json(note, {"plan": plan.key(), "done": done})


def _skeleton(target: Path, plan: FilePlan) -> None:
    """Lay out a file whose arrays are all there, with pixels still to come."""
    import h5py

    with h5py.File(target, "w") as file:
        for name, part in plan.parts.items():
            early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(plan.array_shape(name))
            h5py.h5d.create(file.id, f"images-{name}".encode(), h5py.h5t.NATIVE_UINT8, space, early)
            if part.labels is not None:
                file.create_dataset(f"labels-{name}", data=part.labels)
        _write_names(file, plan)


def _write_names(file: Any, plan: FilePlan) -> None:
    import h5py

    file.create_dataset("class-names", data=[name.encode() for name in plan.class_names], dtype=h5py.string_dtype())
    file.attrs["made_from"] = plan.made_from
    file.attrs["written_by"] = "firstlight"


def _fill(growing: Path, note: Path, plan: FilePlan, name: str, offset: int, done: dict[str, int], progress: Progress) -> None:
    """Write the pixels of a part that are not there yet, and note every so often how many are."""
    part = plan.parts[name]
    blocks = part.produce(done[name])
    before = sum(other.num_images for other in list(plan.parts.values())[: list(plan.parts).index(name)])
    total = sum(other.num_images for other in plan.parts.values())
    while True:
        some = _up_to(blocks, SAVE_BYTES)
        written = 0

        def pieces() -> Iterator[tuple[int, bytes]]:
            nonlocal written
            for rows, pixels in some:  # noqa: B023
                ordered = pixels if plan.order == "nhwc" else pixels.transpose(0, 3, 1, 2)
                for first, last in _runs(rows):
                    yield offset + int(rows[first]) * plan.row_bytes, ordered[first:last].tobytes()
                written += len(rows)
                progress(f"images-{name}", before + done[name] + written, total)

        write_at(growing, pieces())
        if written == 0:
            break
        done[name] += written
        _save(note, plan, done)
    if done[name] != part.num_images:
        raise DataError(
            f"{growing}: {done[name]:,} of {part.num_images:,} images came for images-{name}: their source changed; start again"
        )


def _up_to(blocks: Iterator[tuple[Rows, Pixels]], num_bytes: int) -> Iterator[tuple[Rows, Pixels]]:
    """Yield blocks until so many bytes have come."""
    for rows, pixels in blocks:
        yield rows, pixels
        num_bytes -= pixels.nbytes
        if num_bytes <= 0:
            return


def _runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Yield first and last place of each run of rows that follow each other."""
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return zip(cuts, islice(cuts, 1, None), strict=False)


def _seal(growing: Path, plan: FilePlan, places: Mapping[str, int], progress: Progress) -> None:
    """Read the pixels back and put their checksums into the file."""
    import h5py

    sums = {name: _checksums(growing, plan, name, places[name], progress) for name in plan.parts}

    def seal(target: Path) -> None:
        with h5py.File(target, "r+") as file:
            for name, (digest, blocks) in sums.items():
                file[f"images-{name}"].attrs["sha256"] = digest
                file.pop(f"checksums-{name}", None)
                file.create_dataset(f"checksums-{name}", data=blocks).attrs["rows"] = plan.rows_per_block

    make_by(growing, seal)


def _checksums(growing: Path, plan: FilePlan, name: str, offset: int, progress: Progress) -> tuple[str, NDArray[np.uint32]]:
    """Return the SHA-256 of the pixels of a part, and the CRC-32 of each block of images, uint32 [blocks]."""
    num, digest, sums = plan.parts[name].num_images, hashlib.sha256(), []
    with growing.open("rb") as handle:
        handle.seek(offset)
        for first in range(0, num, plan.rows_per_block):
            last = min(first + plan.rows_per_block, num)
            block = handle.read((last - first) * plan.row_bytes)
            digest.update(block)
            sums.append(zlib.crc32(block))
            progress(f"checksums of images-{name}", last, num)
    return digest.hexdigest(), np.array(sums, np.uint32)


def _repack(growing: Path, target: Path, plan: FilePlan, progress: Progress) -> None:
    """Copy a file with its images cut into chunks that carry HDF5's own checksum."""
    import h5py

    with h5py.File(growing, "r") as source, h5py.File(target, "w") as file:
        for name in source:
            if not name.startswith("images-"):
                source.copy(name, file)
                continue
            images = source[name]
            rows = min(plan.rows_per_block, images.shape[0])
            copy = file.create_dataset(name, images.shape, np.uint8, chunks=(rows, *images.shape[1:]), fletcher32=True)
            for first in range(0, images.shape[0], rows):
                copy[first : first + rows] = images[first : first + rows]
                progress(f"chunks of {name}", min(first + rows, images.shape[0]), images.shape[0])
            copy.attrs["sha256"] = images.attrs["sha256"]
        for name, value in source.attrs.items():
            file.attrs[name] = value
