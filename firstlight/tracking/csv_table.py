"""Tables as CSV that a spreadsheet opens without running anything."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from firstlight.files import write_stream

BLOCK = 4096
"""Rows of a chunk."""
FORMULA = tuple("=+-@\t\r")
"""With these a cell begins that a spreadsheet runs."""


def csv_chunks(rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Yield rows as CSV, quoted where they must be, thousands of lines a chunk; fractions get seven significant digits."""
    left = iter(rows)
    while block := list(islice(left, BLOCK)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in block)
        yield text.getvalue().encode(errors="backslashreplace")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows with the same keys, at least one, below a line of the keys. Return the path."""
    write_stream(path, csv_chunks(_with_heading(rows)))
    return path


def harmless(text: str) -> str:
    """Return a text as a cell that no spreadsheet takes for a formula: a ' before one that begins as such; numbers stay as they are."""
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _with_heading(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for number, row in enumerate(rows):
        if number == 0:
            yield list(row)
        yield list(row.values())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return harmless(value).replace("\r", "\\r")  # before Python 3.13, csv leaves it without quotes, and it ends the line
    if value is True or value is False:
        return "yes" if value else "no"
    return f"{value:.7g}" if isinstance(value, float) else value
