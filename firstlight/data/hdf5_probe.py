"""A look into an HDF5 file, made in a process of its own: the library may crash or swell on a file that is damaged or made to do harm.

A request names a path, parts (name -> keys of images and labels), and required (parts that must be there).
Reading order: look, _images_of, _chunks_of, _labels_of.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from firstlight.data.probe import Array, answer
from firstlight.errors import DataError, did_you_mean

MAX_CHUNKS = 4_000_000
MAX_IMAGES = 2**31
MAX_NAMES = 100_000
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
"""Filters that are undone without the library (H5Zpublic.h)."""
NAME_KEYS = ("class-names", "class_names", "classes", "label-names", "label_names")


def look(request: dict[str, Any], arrays: list[Array]) -> dict[str, Any]:
    """Return what is known of each part that is there; arrays collects labels and chunk tables, which the answer names by number."""
    path = request["path"]
    if not h5py.is_hdf5(path):
        with Path(path).open("rb") as handle:
            start = handle.read(8)
        raise DataError(f"it is no HDF5 file (it begins with {start!r}); name the file that was downloaded, unpacked")
    with _opened(path) as file:
        parts = {}
        for part, (images_key, labels_key) in request["parts"].items():
            if part not in request["required"] and images_key not in file:
                continue
            dataset = _dataset(file, images_key)
            facts = _images_of(dataset, images_key, path, arrays)
            if labels_key in file or part == "train":
                arrays.append(_labels_of(_dataset(file, labels_key), labels_key, images_key, facts["shape"][0]))
                facts |= {"labels": len(arrays) - 1, "labels_key": labels_key}
            facts |= _checksums(file, dataset, part, arrays)
            parts[part] = facts
        return {"parts": parts, "class_names": _class_names(file), "made_from": _made_from(file)}


def _opened(path: str) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        text = str(error)
        sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", text)
        if sizes:
            have, wanted = (int(size) for size in sizes.groups())
            raise DataError(f"it is truncated: {have:,} of {wanted:,} bytes are there; copy or download it again") from error
        if "unable to lock" in text:
            raise DataError("another process has it open for writing; wait for that to end") from error
        if "already open for write" in text or "consistency flags" in text:
            raise DataError("whoever wrote it has not closed it; wait for that, or make it anew") from error
        raise


def _dataset(file: h5py.File, key: str) -> h5py.Dataset:
    found = file.get(key, getlink=True)
    if found is None:
        names: list[str] = []
        file.visit(lambda name: names.append(name) if len(names) < 1000 else True)
        raise DataError(f"it has no {key!r}{did_you_mean(key, names[:50])}; set the key under data")
    if isinstance(found, h5py.ExternalLink):
        raise DataError(f"{key} lies in another file ({found.filename}); copy it into one file")
    value = file.get(key)
    if not isinstance(value, h5py.Dataset):
        inside = ", ".join(sorted(value)[:10]) if isinstance(value, h5py.Group) else ""
        raise DataError(f"{key} is a group{f' with {inside}' if inside else ''}, no array; name one of its arrays, such as 'group/images'")
    if value.is_virtual or value.external:
        raise DataError(f"{key} is put together from other files; copy it into one file")
    return value


def _images_of(dataset: h5py.Dataset, key: str, path: str, arrays: list[Array]) -> dict[str, Any]:
    shape: tuple[int, ...] = tuple(dataset.shape or ())
    if dataset.dtype != np.uint8:
        raise DataError(f"{key} is {dataset.dtype}; expected uint8 pixels in 0..255; store it so")
    if len(shape) not in (3, 4) or min(shape) == 0 or (len(shape) == 4 and not {1, 3} & {shape[1], shape[3]}):
        raise DataError(f"{key} has shape {list(shape)}; expected [N, H, W, C], [N, C, H, W] or [N, H, W] with 1 or 3 channels; reshape it")
    row_bytes = int(np.prod(shape[1:], dtype=object))
    if shape[0] > MAX_IMAGES or row_bytes > 2**28:
        raise DataError(f"{key} has shape {list(shape)}; at most {MAX_IMAGES:,} images of 256 MiB each are read; cut it")
    facts: dict[str, Any] = {"key": key, "shape": list(shape)}
    size = Path(path).stat().st_size
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:
            raise DataError(f"{key} has a shape and no pixels: nothing was ever written to it; make the file anew")
        if offset + shape[0] * row_bytes > size:
            raise DataError(f"{key} ends behind the end of the file; it is damaged, get it again")
        with Path(path).open("rb") as handle:
            handle.seek(offset)
            same = handle.read(row_bytes) == dataset[0].tobytes()
        return facts | ({"offset": offset} if same else {"library": True})
    facts["chunk_shape"] = list(dataset.chunks)
    filters = [dataset.id.get_create_plist().get_filter(number)[0] for number in range(dataset.id.get_create_plist().get_nfilters())]
    facts["filters"] = filters
    arrays.append(_chunks_of(dataset, key, size))
    facts["chunks"] = len(arrays) - 1
    if set(filters) - {DEFLATE, SHUFFLE, FLETCHER32} or not _as_stored(dataset, arrays[-1], path):
        facts["library"] = True
        dataset[0]  # raises where the filters are not here
    return facts


def _chunks_of(dataset: h5py.Dataset, key: str, size: int) -> Array:
    """Return place, length and filter mask of each chunk in the file, int64 [chunks, 3], in the order of the array (C order)."""
    grid = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    total = int(np.prod(grid, dtype=object))
    if total > MAX_CHUNKS:
        raise DataError(f"{key} is cut into {total:,} chunks; at most {MAX_CHUNKS:,} are read; convert it with `firstlight data convert`")
    table = np.full((total, 3), -1, np.int64)

    def note(info: Any) -> None:
        place = [offset // chunk for offset, chunk in zip(info.chunk_offset, dataset.chunks, strict=True)]
        table[int(np.ravel_multi_index(place, grid))] = (info.byte_offset, info.size, info.filter_mask)

    dataset.id.chunk_iter(note)
    lacking = int((table[:, 0] < 0).sum())
    if lacking:
        first = int((table[:, 0] < 0).argmax()) // max(total // grid[0], 1) * dataset.chunks[0]
        raise DataError(f"{key}: {lacking:,} of {total:,} chunks were never written, the first at row {first:,}; make the file anew")
    if ((table[:, 0] + table[:, 1]) > size).any() or (table[:, :2] < 0).any():
        raise DataError(f"{key}: a chunk ends behind the end of the file; it is damaged, get it again")
    return table


def _as_stored(dataset: h5py.Dataset, table: Array, path: str) -> bool:
    """Tell whether the table's places are places in the file (they are counted from the end of a user block in some versions)."""
    mask, raw = dataset.id.read_direct_chunk((0,) * len(dataset.shape))
    with Path(path).open("rb") as handle:
        handle.seek(int(table[0, 0]))
        return handle.read(int(table[0, 1])) == bytes(raw) and mask == table[0, 2]


def _labels_of(dataset: h5py.Dataset, key: str, images_key: str, num_images: int) -> Array:
    shape: tuple[int, ...] = tuple(dataset.shape or ())
    flat = shape[:1] if len(shape) == 2 and shape[1] == 1 else shape
    if flat != (num_images,):
        raise DataError(
            f"{key} has shape {list(shape)} for {num_images:,} images in {images_key}; expected one label an image; make it anew"
        )
    if dataset.dtype.kind not in "iu":
        raise DataError(f"{key} is {dataset.dtype}; expected whole numbers; store it as int64")
    values = dataset[()].reshape(-1)
    if dataset.dtype == np.uint64 and len(values) and int(values.max()) >= 2**63:
        raise DataError(f"{key}: row {int(values.argmax())} of labels: {int(values.max())}, which is no class; correct it")
    labels: Array = values.astype(np.int64)
    return labels


def _checksums(file: h5py.File, dataset: h5py.Dataset, part: str, arrays: list[Array]) -> dict[str, Any]:
    """Return the checksums that our writer leaves: SHA-256 of all pixels, and CRC-32 of each block of so many rows."""
    found: dict[str, Any] = {}
    digest = dataset.attrs.get("sha256")
    if isinstance(digest, str):
        found["sha256"] = digest
    sums = file.get(f"checksums-{part}")
    if isinstance(sums, h5py.Dataset) and sums.dtype == np.uint32 and len(sums.shape) == 1 and "rows" in sums.attrs:
        arrays.append(sums[()].astype(np.int64))
        found |= {"sums": len(arrays) - 1, "sum_rows": int(sums.attrs["rows"])}
    return found


def _class_names(file: h5py.File) -> list[str] | None:
    for key in NAME_KEYS:
        value = file.get(key)
        if (
            isinstance(value, h5py.Dataset)
            and value.shape
            and len(value.shape) == 1
            and value.shape[0] <= MAX_NAMES
            and value.dtype.kind in "OSU"
        ):
            return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in value[()]]
    return None


def _made_from(file: h5py.File) -> str | None:
    value = file.attrs.get("made_from")
    return value[:1000] if isinstance(value, str) else None


if __name__ == "__main__":
    answer(look)
