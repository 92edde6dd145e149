"""Any images in class folders: a directory or an archive, decoded once into the cache.

A decoded part is a folder of the cache with pixels.bin and facts.json (shape, labels, names, checksum), which is written last. There is
one for each path and its settings: when the images change, the new pixels take the place of the old ones.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.data.archive import Archive, open_archive
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.decode import decode_image, decode_images, is_grey
from firstlight.data.layout import Items, find_layout
from firstlight.data.places import missing, waiting_lock
from firstlight.errors import DataError
from firstlight.files import cache_dir, clean, make_dir, sha256, write_json, write_stream
from firstlight.limits import Fraction, PositiveInt

CACHE_VERSION = 3
BAD_SHARE = 1000
"""One image of so many may be replaced with bad_images=skip; one always may."""

Pixels = NDArray[np.uint8]

_ROW_BYTES = 8192
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: its multiples spread over all 64 bits (Knuth, The Art of Computer Programming 3, 6.4)."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Which part of which archive, and how it is decoded."""

    archive: Archive
    part: str
    test_fraction: float
    image_size: int | None
    bad_images: str

    @property
    def kind(self) -> str:
        return "training" if self.part == "train" else "test"


def load_folder(
    part: str,
    data_dir: Path,
    *,
    path: str,
    test_fraction: Fraction = 0.2,
    image_size: PositiveInt | None = None,
    bad_images: Literal["stop", "skip"] = "stop",
) -> Dataset:
    """Return one part of the images in a directory, .tar, .tar.gz or .zip of class folders.

    path: the directory or archive; a relative path is tried from the working directory, then from the data folder.
    test_fraction: share that becomes the test part, stratified, where there are no folders train/ and test/.
    image_size: cut out the middle square of each image and resize it to so many pixels; null wants images of one size.
    bad_images: what one that does not decode does: "stop" names it and ends; "skip" puts the next good image of its class in its place
    and warns, for one image in a thousand at most. No file is changed.

    Pixels are uint8, grey if all training images are, else RGB. Raises DataError that names the image that is in the way.
    """
    archive = open_archive(_find(path, data_dir))
    wanted = _Wanted(archive=archive, part=part, test_fraction=test_fraction, image_size=image_size, bad_images=bad_images)
    images, facts = _cached(wanted)
    source = f"{archive.path.name} ({len(images):,} {wanted.kind} images{facts['note']})"
    dataset = make_dataset(torch.from_numpy(images), torch.tensor(facts["labels"]), facts["class_names"], source)
    return replace(dataset, warnings=tuple(facts["warnings"]), names=tuple(facts["names"]))


def _find(path: str, data_dir: Path) -> Path:
    given = Path(path).expanduser()
    for candidate in (given, data_dir / given):
        if candidate.exists():
            return candidate.resolve()
    raise missing(f"the image folder or archive {path!r}", [Path.cwd(), data_dir], "correct data.path")


def _cached(wanted: _Wanted) -> tuple[Pixels, dict[str, Any]]:
    """Return pixels and facts from the cache, or decode them into it; a second process waits for the first and takes what it made."""
    archive, content = wanted.archive, wanted.archive.content_key()
    settings = [CACHE_VERSION, str(archive.path), wanted.part, wanted.test_fraction, wanted.image_size, wanted.bad_images]
    entry = cache_dir() / "folders" / sha256(json.dumps(settings).encode())[:32]
    found = _read_cache(entry, content)
    if found is not None:
        return found
    with waiting_lock(entry.parent, entry.name):
        found = _read_cache(entry, content)
        if found is not None:
            return found
        clean(make_dir(entry))
        images, facts = _decode(wanted)
        facts |= {"content": content, "shape": images.shape, "checksum": _checksum(images)}
        write_stream(entry / "pixels.bin", _chunks(images))
        write_json(entry / "facts.json", facts)
        return images, facts


def _read_cache(entry: Path, content: str) -> tuple[Pixels, dict[str, Any]] | None:
    """Return what the cache holds whole and of this content; anything else is made again.

    The pixels are mapped, not copied: they are the system's file cache, which other processes share. Whoever writes to them (nobody
    here does) gets pages of his own. An entry that is made anew is another file under the same name, so a reader keeps what it has.
    """
    try:
        facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
        if facts["content"] != content or len(facts["names"]) != len(facts["labels"]):
            return None
        images = np.memmap(entry / "pixels.bin", np.uint8, "c").reshape(facts["shape"])
        whole = _checksum(images) == facts["checksum"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (images, facts) if whole else None


def _checksum(images: Pixels) -> str:
    """Return 16 hexadecimal digits that no damage to one word of the pixels leaves as they are, and other damage by chance only.

    Each word of 8 bytes is multiplied by an odd number that belongs to its place in a row, each row's sum by one that belongs to the
    row. It is there against damage, not against people: 150 MB take 0.02 s on one Zen 4 core, SHA-256 0.1 s.
    """
    flat = images.reshape(-1)
    whole = flat[: flat.size // _ROW_BYTES * _ROW_BYTES].view(np.uint64).reshape(-1, _ROW_BYTES // 8)
    rest = np.zeros(_ROW_BYTES, np.uint8)
    rest[: flat.size % _ROW_BYTES] = flat[flat.size // _ROW_BYTES * _ROW_BYTES :]
    in_row = np.arange(_ROW_BYTES // 8, dtype=np.uint64) * _MIX | np.uint64(1)
    sums = np.append(whole @ in_row, rest.view(np.uint64) @ in_row)
    return f"{int(sums @ (np.arange(1, len(sums) + 1, dtype=np.uint64) * _MIX | np.uint64(1))):016x}"


def _chunks(images: Pixels) -> Iterator[bytes]:
    for start in range(0, len(images), 1024):
        yield images[start : start + 1024].tobytes()


def _decode(wanted: _Wanted) -> tuple[Pixels, dict[str, Any]]:
    """Return the pixels of a part, [N, C, H, W], and what is known of them; the training images alone decide the channels and the size."""
    layout = find_layout(wanted.archive, wanted.test_fraction)
    items = layout.train if wanted.part == "train" else layout.test
    if not items:
        hint = f"with test_fraction={wanted.test_fraction:g}; choose another, or add images"
        raise DataError(f"{wanted.archive.path} has no {wanted.part} part {hint}")
    labels = [label for _, label in items]
    images, bad = _decode_items(wanted, items, layout.train)
    names = [name for name, _ in items]
    facts = {"labels": labels, "names": names, "class_names": layout.class_names, "note": layout.note, "warnings": []}
    if bad:
        _replace_bad(images, labels, names, bad, wanted)
        examples = "; ".join([*list(bad.values())[:3], *["..."] * (len(bad) > 3)])
        facts["note"] = f"{layout.note}, {len(bad):,} bad replaced"
        facts["warnings"] = [f"{len(bad):,} of {len(items):,} {wanted.kind} images are bad, replaced by others of their class: {examples}"]
    return images, facts


def _decode_items(wanted: _Wanted, items: Items, training: Items) -> tuple[Pixels, dict[int, str]]:
    """Return the pixels of the items, and by row the name and the reason of each bad one, whose pixels are left out."""
    archive = wanted.archive
    grey = _all_grey(archive, training)
    first, shape = _first_shape(archive, training, grey=grey, image_size=wanted.image_size)
    row_of = {name: row for row, (name, _) in enumerate(items)}
    images = np.empty((len(items), 1 if grey else 3, *shape[:2]), np.uint8)
    num_left = len(items)
    bad: dict[int, str] = {}
    for name, pixels in decode_images(archive.read(row_of.keys()), grey=grey, image_size=wanted.image_size):
        num_left -= 1
        row = row_of[name]
        if isinstance(pixels, DataError):
            bad[row] = f"{name}: {pixels}"
            _check_bad(wanted, bad, len(items))
        elif pixels.shape != shape:
            sizes = f"{first} has {shape[1]} x {shape[0]} pixels and {name} {pixels.shape[1]} x {pixels.shape[0]}"
            raise DataError(f"{archive.path}: the images differ in size: {sizes}; resize all with data.image_size=64")
        else:
            images[row] = pixels if grey else pixels.transpose(2, 0, 1)
    if num_left:
        raise DataError(f"{archive.path} changed while it was read: {num_left:,} of {len(items):,} images were gone; start again")
    return images, bad


def _check_bad(wanted: _Wanted, bad: dict[int, str], num_images: int) -> None:
    """Raise DataError where more images are bad than the setting bears."""
    row, reason = list(bad.items())[-1]
    lists_all = f"`firstlight data check {wanted.archive.path}` lists every such image"
    most = max(1, num_images // BAD_SHARE)
    if wanted.bad_images == "stop":
        where = f"{reason} (number {row} of the {wanted.kind} images, from 0)"
        raise DataError(f"{wanted.archive.path}: {where}; {lists_all}; data.bad_images=skip replaces up to {most:,}")
    if len(bad) > most:
        raise DataError(
            f"{wanted.archive.path}: more than {most:,} of {num_images:,} {wanted.kind} images are bad, the last one {reason}; {lists_all}"
        )


def _replace_bad(images: Pixels, labels: list[int], names: list[str], bad: dict[int, str], wanted: _Wanted) -> None:
    """Put the next good image of its class, round the end where need be, in the place of each bad one, with its name."""
    for row in bad:
        later_first = chain(range(row + 1, len(labels)), range(row))
        good = next((other for other in later_first if labels[other] == labels[row] and other not in bad), None)
        if good is None:
            raise DataError(f"{wanted.archive.path}: {bad[row]}; its class has no good {wanted.kind} image to take its place")
        images[row], names[row] = images[good], names[good]


def _all_grey(archive: Archive, items: Items) -> bool:
    """Tell from the headers whether no training image has colour; the first that has ends the search. Bad ones are named later."""
    return not any(_has_colour(content) for _, content in archive.read([name for name, _ in items]))


def _has_colour(content: bytes) -> bool:
    try:
        return not is_grey(content)
    except DataError:
        return False


def _first_shape(archive: Archive, items: Items, *, grey: bool, image_size: int | None) -> tuple[str, tuple[int, ...]]:
    """Return name and shape of the first training image that decodes."""
    problem = ""
    for name, content in archive.read([name for name, _ in items]):
        try:
            return name, decode_image(content, grey=grey, image_size=image_size).shape
        except DataError as error:
            problem = problem or f"{name}: {error}"
    raise DataError(f"{archive.path}: no training image decodes, the first: {problem}; `firstlight data check {archive.path}` lists all")
