"""The digit CSVs of Kaggle's "Digit Recognizer": 42,000 labelled images to train on, 28,000 unlabelled ones.

Parsed as arrays of bytes, a few MB at a time: every value is 1 to 3 digits before a comma or a line's end.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.places import missing
from firstlight.errors import DataError

NUM_PIXELS = 28 * 28
PIXEL_COLUMNS = [f"pixel{number}" for number in range(NUM_PIXELS)]
BLOCK_BYTES = 4 << 20
MAX_ROWS = 1_000_000
COMMA, NEWLINE, ZERO = b",\n0"


def load_kaggle_digits(part: str, data_dir: Path) -> Dataset:
    """Return train.csv (labelled) or test.csv (labels None) of the folder digit-recognizer, uint8 [N, 1, 28, 28].

    Raises DataError that names the line and the column of the first wrong value.
    """
    path = data_dir / "digit-recognizer" / f"{part}.csv"
    if not path.is_file():
        remedy = "download it from kaggle.com/c/digit-recognizer, which asks for an account"
        raise missing(f"Kaggle's digits: {path.name}", [path.parent], remedy)
    columns = ["label"] * (part == "train") + PIXEL_COLUMNS
    table = np.concatenate(list(read_rows(path, columns)))
    labels = torch.from_numpy(table[:, 0].astype(np.int64)) if part == "train" else None
    images = torch.from_numpy(np.ascontiguousarray(table[:, -NUM_PIXELS:]).reshape(-1, 28, 28))
    kind = "training" if part == "train" else "unlabelled test"
    return make_dataset(images, labels, [str(digit) for digit in range(10)], f"Kaggle digits ({len(images):,} {kind} images)")


def read_pixels(path: Path) -> Iterator[Tensor]:
    """Yield the images of a CSV without labels, uint8 [M, 1, 28, 28], some thousands at a time. Raises DataError as above."""
    try:
        for rows in read_rows(path, PIXEL_COLUMNS, most=math.inf):
            yield torch.from_numpy(rows.reshape(-1, 1, 28, 28))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error


def count_rows(path: Path) -> int:
    """Return the lines of a CSV less its header; the last one may lack its newline."""
    try:
        with path.open("rb") as handle:
            num, last = 0, b"\n"
            while block := handle.read(BLOCK_BYTES):
                num, last = num + block.count(b"\n"), block[-1:]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error
    return max(num + (last != b"\n") - 1, 0)


def read_rows(path: Path, columns: list[str], *, most: float = MAX_ROWS) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of the table, uint8 [M, columns], in blocks. Raises DataError behind `most` of them."""
    with path.open("rb") as handle:
        _check_header(handle.readline(1 << 16), columns, path)
        line = 2
        rest = b""
        while block := handle.read(BLOCK_BYTES):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                rows = _parse((whole + newline).replace(b"\r\n", b"\n"), columns, path, line)
                line += len(rows)
                yield rows
            if line > most or len(rest) > BLOCK_BYTES:
                raise DataError(f"{path} has more than {most:,} rows or a row of more than {BLOCK_BYTES:,} bytes; is it another file?")
        if rest:
            yield _parse(rest.removesuffix(b"\r") + b"\n", columns, path, line)
        elif line == 2:
            raise DataError(f"{path} has a header and no rows; download it again")


def _check_header(header: bytes, columns: list[str], path: Path) -> None:
    try:
        names = header.decode("utf-8-sig").strip().replace('"', "").split(",")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is 0x{header[error.start]:02x}"
        raise DataError(f"{path}: line 1 is not UTF-8 ({found}); save the table as CSV in UTF-8, or download it again") from error
    if names == columns:
        return
    hint = "; it has semicolons where commas are needed" if b";" in header else ""
    expected = f"{columns[0]},{columns[1]},...,{columns[-1]}"
    raise DataError(
        f"{path}: line 1 must be the header {expected} ({len(columns)} columns), found {len(names)} columns{hint}; download the file again"
    )


def _parse(text: bytes, columns: list[str], path: Path, first_line: int) -> NDArray[np.uint8]:
    """Return the values in whole lines of text, uint8 [lines, columns]; `first_line` counts from 1 with the header."""
    characters = np.frombuffer(text, np.uint8)
    is_end = (characters == COMMA) | (characters == NEWLINE)
    ends = np.flatnonzero(is_end)
    lengths = np.diff(ends, prepend=-1) - 1
    line_ends = np.flatnonzero(characters[ends] == NEWLINE)
    widths = np.diff(line_ends, prepend=-1)
    if (widths != len(columns)).any():
        line = int((widths != len(columns)).argmax())
        raise DataError(f"{path}: line {first_line + line} has {widths[line]} values; expected {len(columns)}")
    digits = characters - ZERO  # wraps around below "0", so that what is no digit is above 9
    values = digits[ends - 1].astype(np.uint16)
    for place, weight in ((2, 10), (3, 100)):
        values += np.where(lengths >= place, digits[ends - place], 0).astype(np.uint16) * np.uint16(weight)
    wrong = (lengths < 1) | (lengths > 3) | (values > 255)
    wrong[np.searchsorted(ends, np.flatnonzero((digits > 9) & ~is_end))] = True
    table = values.reshape(-1, len(columns))
    limits = np.array([9 if name == "label" else 255 for name in columns], np.uint16)
    wrong |= (table > limits).reshape(-1)
    if wrong.any():
        index = int(wrong.argmax())
        found = text[ends[index] - lengths[index] : ends[index]][:20].decode(errors="replace")
        line, column = divmod(index, len(columns))
        allowed = f"a whole number 0..{limits[column]}"
        raise DataError(f"{path}: line {first_line + line}, column {columns[column]!r}: {found!r}; expected {allowed}")
    return table.astype(np.uint8)
