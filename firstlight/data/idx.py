"""IDX, the file format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions, the values."""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import DataError

MAX_BYTES = 1 << 30
CHUNK = 1 << 20
UINT8 = 0x08


def read_idx(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an IDX file, plain or gzipped, that has `num_dims` dimensions.

    Raises DataError where the file is damaged, too long, too short, or of another kind.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            shape = _shape(handle.read(4 + 4 * num_dims), num_dims, path)
            values = _read_at_most(handle, min(math.prod(shape), MAX_BYTES) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error
    if len(values) != math.prod(shape):
        promised = " x ".join(map(str, shape))
        raise DataError(f"{path} is damaged: its header promises {promised} values and {len(values):,} follow; fetch it again")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _shape(header: bytes, num_dims: int, path: Path) -> tuple[int, ...]:
    if len(header) < 4 + 4 * num_dims or header[:2] != b"\0\0":
        raise DataError(f"{path} is no IDX file: it begins with {header[:4]!r}; fetch it again")
    if header[2] != UINT8 or header[3] != num_dims:
        found = f"type 0x{header[2]:02x} in {header[3]} dimensions"
        raise DataError(f"{path} holds {found}; expected unsigned bytes (0x08) in {num_dims}; is it another file under this name?")
    return tuple(int(size) for size in np.frombuffer(header, ">u4", count=num_dims, offset=4))


def _read_at_most(handle: IO[bytes] | gzip.GzipFile, num_bytes: int) -> bytearray:
    """Read in pieces: one large read would allocate what a header promises before a byte of it has come."""
    content = bytearray()
    while len(content) < num_bytes and (chunk := handle.read(min(CHUNK, num_bytes - len(content)))):
        content += chunk
    return content
