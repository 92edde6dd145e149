"""IDX, the file format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions, the values."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import DataError

MAX_BYTES = 1 << 30
UINT8 = 0x08


def read_idx(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an IDX file, plain or gzipped, that has `num_dims` dimensions.

    Raises DataError where the file is damaged, too long, too short, or of another kind.
    """
    content = _read_bounded(path)
    header_bytes = 4 + 4 * num_dims
    if len(content) < header_bytes or content[:2] != b"\0\0":
        raise DataError(f"{path} is no IDX file: it begins with {content[:4]!r}; fetch it again")
    if content[2] != UINT8 or content[3] != num_dims:
        found = f"type 0x{content[2]:02x} in {content[3]} dimensions"
        raise DataError(f"{path} holds {found}; expected unsigned bytes (0x08) in {num_dims}; is it another file under this name?")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=num_dims, offset=4))
    num_values = len(content) - header_bytes
    if math.prod(shape) != num_values:
        promised = " x ".join(map(str, shape))
        raise DataError(f"{path} is damaged: its header promises {promised} values and {num_values:,} follow; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _read_bounded(path: Path) -> bytearray:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            content = bytearray(handle.read(MAX_BYTES + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} holds more than {MAX_BYTES:,} bytes; it is not one of MNIST's files")
    return content
