"""Reads the python version of CIFAR-10 without unpickling it: nothing in the file is ever called or imported.

A batch is a pickle of {"labels": list of ints, "data": uint8 array [N, 3072], ...}. pickletools lists the instructions of a
pickle as plain data; the bytes and the ints are picked out of that list, and anything unexpected is refused.
"""

import hashlib
import pickletools
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import DataError

IMAGE_BYTES = 3 * 32 * 32
PUBLISHED_SIZE = 10_000
PUBLISHED_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
MAX_BYTES = 64 << 20
MAX_INSTRUCTIONS = 200_000
"""A published batch has some 40,000; 64 MB of the shortest would take 10 GB as a list."""

MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
INTS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
LIST_PARTS = {"MARK", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "FRAME"}

Instructions = list[tuple[str, Any]]


def read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, uint8 [N, 3, 32, 32], and labels, int64 [N], of one batch file.

    Raises DataError where the file is not such a pickle, or has 10,000 images and is not byte for byte the published one.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES:,} bytes; a batch of CIFAR-10 has 31 million")
    content = path.read_bytes()
    instructions = _instructions(content, path)
    labels = _labels(instructions, path)
    data = _data(instructions, len(labels), path)
    is_published = hashlib.md5(content, usedforsecurity=False).hexdigest() == PUBLISHED_MD5.get(path.name)
    if len(labels) == PUBLISHED_SIZE and not is_published:
        raise DataError(f"{path} is damaged or altered: its md5 is not that of the published file; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def _instructions(content: bytes, path: Path) -> Instructions:
    try:
        listed = list(islice(pickletools.genops(content), MAX_INSTRUCTIONS + 1))
    except Exception as error:  # pickletools raises several kinds on damaged bytes
        raise DataError(
            f"{path} is no batch of CIFAR-10's python version ({' '.join(str(error).split())[:200]}); fetch it again"
        ) from error
    if len(listed) > MAX_INSTRUCTIONS:
        raise DataError(f"{path} has more than {MAX_INSTRUCTIONS:,} instructions; it is no batch of CIFAR-10's python version")
    return [(opcode.name, argument) for opcode, argument, _ in listed if opcode.name not in MEMO]


def _labels(instructions: Instructions, path: Path) -> list[int]:
    start = next((i for i, (_, argument) in enumerate(instructions) if argument in ("labels", b"labels")), None)
    if start is None:
        raise DataError(f"{path} has no key 'labels'; it is no batch of CIFAR-10's python version")
    labels: list[int] = []
    for name, argument in instructions[start + 1 :]:
        if name in INTS:
            labels.append(argument)
        elif name not in LIST_PARTS:
            break
    if not all(0 <= label <= 9 for label in labels):
        raise DataError(f"{path} has a label outside 0..9; fetch it again")
    return labels


def _data(instructions: Instructions, num_images: int, path: Path) -> bytes:
    """Return the one byte string of the right length, which must be the content of an array in C order."""
    size = num_images * IMAGE_BYTES
    found = [i for i, (_, argument) in enumerate(instructions) if isinstance(argument, str | bytes | bytearray) and len(argument) == size]
    if num_images == 0 or len(found) != 1:
        raise DataError(f"{path} has {num_images} labels and no array of as many 3 x 32 x 32 images; fetch it again")
    order = next((entry for entry in reversed(instructions[: found[0]]) if entry[0] in INTS | {"NEWFALSE", "NEWTRUE"}), None)
    if order not in (("NEWFALSE", None), ("INT", False)):
        raise DataError(f"{path} does not lay its images out as the published file does (C order, protocol 2); fetch it again")
    data = instructions[found[0]][1]
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)
