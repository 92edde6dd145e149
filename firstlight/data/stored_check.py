"""A check of HDF5 files and shards: every part and label, and, asked for, every pixel, against the checksums that a writer left."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from firstlight.data.dataset import Dataset
from firstlight.data.shards import ShardFile
from firstlight.data.stored import Pixels, StoredImages
from firstlight.errors import DataError

PARTS = ("train", "val", "test")
MAX_NAMED = 5


@dataclass(frozen=True)
class Checked:
    """findings: where, and what is wrong there; says: one sentence where nothing is."""

    source: str
    num_images: int
    findings: list[tuple[str, str]]
    says: str


def check_parts(
    load: Callable[[str], Dataset | None], *, full: bool, progress: Callable[[str, int, int], None] = lambda what, done, total: None
) -> Checked:
    """Check the parts that `load` returns by name (None where there is no such part); `full`: read every pixel.

    Also finds images of other parts that equal a training image. Raises DataError where a part cannot be read at all.
    """
    found = {part: dataset for part in PARTS if (dataset := load(part)) is not None}
    findings: list[tuple[str, str]] = []
    train = found["train"]
    if train.labels is not None:
        present = set(train.labels.unique().tolist())
        findings += [(f"class {name}", "has no training images") for label, name in enumerate(train.class_names) if label not in present]
    prints: dict[str, list[bytes]] = {}
    unsigned: list[str] = []
    for part, dataset in found.items() if full else ():
        images = dataset.images
        assert isinstance(images, StoredImages)
        wrong, prints[part], is_signed = _check_bytes(images, part, progress)
        findings += [(images.file.facts.key, reason) for reason in wrong]
        unsigned += [] if is_signed else [images.file.facts.key]
    known = set(prints.get("train", ()))
    for part in [part for part in prints if part != "train"]:
        twins = [row for row, name in enumerate(prints[part]) if name in known]
        if twins:
            which = ", ".join(map(str, twins[:MAX_NAMED])) + (", ..." if len(twins) > MAX_NAMED else "")
            findings.append((f"{part} rows {which}", f"{len(twins):,} images have the same pixels as a training image"))
    counts = Counter(prints.get("train", ()))
    if doubled := sum(number - 1 for number in counts.values() if number > 1):
        findings.append(("train", f"{doubled:,} images are there more than once"))
    images_in_all = sum(map(len, found.values()))
    are_shards = isinstance(cast(StoredImages, train.images).file, ShardFile)
    says = f"{train.source}: {'shards' if are_shards else 'arrays'} and labels of {', '.join(found)} are whole ({images_in_all:,} images)"
    if not full:
        says += "; --full decodes every image" if are_shards else "; --full reads every pixel and compares the checksums"
    elif are_shards:
        says += "; every image decodes"
    elif unsigned:
        says += f"; no checksums came with {', '.join(unsigned)}, whose bytes were read and not compared"
    else:
        says += "; every checksum matches"
    return Checked(train.source, images_in_all, findings, says)


def _check_bytes(images: StoredImages, part: str, progress: Callable[[str, int, int], None]) -> tuple[list[str], list[bytes], bool]:
    """Return what is wrong with the pixels of a part, a fingerprint of each image, and whether there were checksums to compare."""
    facts = images.file.facts
    wanted_digest, sums, rows = facts.sha256, facts.sums, facts.sum_rows or facts.rows_per_block
    digest, wrong, prints = hashlib.sha256(), [], []
    damaged: list[str] = []
    kept: dict[int, Any] = {}
    for number, first in enumerate(range(0, facts.shape[0], rows)):
        last = min(first + rows, facts.shape[0])
        try:
            block = _read(images, first, last, kept)
        except DataError as error:
            wrong += _errors(images, first, last, error)
            continue
        digest.update(block.data)
        if sums is not None and (number >= len(sums) or zlib.crc32(block.data) != sums[number]):
            damaged.append(f"{first:,} to {last - 1:,}")
        prints += [hashlib.blake2b(image.data, digest_size=16).digest() for image in block]
        progress(facts.key, last, facts.shape[0])
    if damaged:
        more = f" and {len(damaged) - MAX_NAMED:,} more blocks" if len(damaged) > MAX_NAMED else ""
        wrong.append(f"the pixels of rows {', '.join(damaged[:MAX_NAMED])}{more} are not those that were written")
    elif not wrong and wanted_digest is not None and digest.hexdigest() != wanted_digest:
        wrong.append("its SHA-256 is not that which its writer left")
    return wrong, prints, wanted_digest is not None


def _read(images: StoredImages, first: int, last: int, kept: dict[int, Any]) -> Pixels:
    """Return the pixels of some rows; the block that the last is in is kept for those that follow."""
    block = int(images.file.facts.blocks_of(np.array([last - 1]))[0])
    pixels = np.concatenate([pixels.copy() for _, pixels in images.file.read(np.arange(first, last), kept, block)])
    for number in [number for number in kept if number != block]:
        del kept[number]
    return pixels


def _errors(images: StoredImages, first: int, last: int, error: DataError) -> list[str]:
    """Return what is wrong with some rows, each once: found by halves, unless both say the same, such as that their chunk is damaged."""
    if last - first == 1:
        return [str(error)]
    middle = (first + last) // 2
    halves = [(begin, end, _error(images, begin, end)) for begin, end in ((first, middle), (middle, last))]
    if len({str(inside) for _, _, inside in halves}) == 1:
        return [str(error)]
    found = [line for begin, end, inside in halves if inside is not None for line in _errors(images, begin, end, inside)]
    return list(dict.fromkeys(found))


def _error(images: StoredImages, first: int, last: int) -> DataError | None:
    try:
        _read(images, first, last, {})
    except DataError as error:
        return error
    return None
