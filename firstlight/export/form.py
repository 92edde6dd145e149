"""The CSV of two columns, an id and a label, that a competition gives as a sample and takes as an answer.

A file is read whole and judged before anything is made of it: whoever has a Form has whole numbers or texts, each id once.
Reading order: Form, read_form, count_from.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from firstlight.errors import ConfigError, DataError

MAX_BYTES = 2**28
"""A sample of 190,841 rows has 1.5 MB; what is a hundred times that is another file."""
MAX_DIGITS = 15


@dataclass(frozen=True)
class Form:
    """Ids in their order, what stands beside each, and the names of the two columns."""

    id_column: str
    label_column: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    lines: tuple[int, ...] = ()
    """The line of each id in a file, counted from 1; none where the form was made up."""

    @property
    def header(self) -> str:
        """The first line, as it is written."""
        return to_text([(self.id_column, self.label_column)]).rstrip("\n")

    def line(self, row: int) -> str:
        """Return where a row stands, for a message."""
        return f"{self.source}: line {self.lines[row]}"

    def with_labels(self, labels: Sequence[str]) -> str:
        """Return the CSV with these labels beside the ids: commas, a newline behind each row, no byte order mark."""
        return to_text([(self.id_column, self.label_column), *zip(self.ids, labels, strict=True)])


def to_text(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV, quoted where they must be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def numbered_form(num_images: int, id_column: str, label_column: str, base: int) -> Form:
    """Return the form without a sample: ids counted from `base`."""
    ids = tuple(map(str, range(base, base + num_images)))
    return Form(id_column, label_column, ids, ("",) * num_images, f"ids {base} to {base + num_images - 1}")


def read_form(path: Path, encoding: str | None = None) -> Form:
    """Return the form in a CSV file. Raises DataError that names the line, ConfigError for an encoding that is none.

    encoding: UTF-8 unless given; a byte order mark, CRLF and empty lines at the end are left out.
    """
    text = _decode(path, _content(path), encoding)
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise DataError(
            f"{path}: line {line} holds a NUL character, which no CSV has (UTF-16 has it in every line); take the competition's own file"
        )
    rows, lines = _rows(path, text)
    id_column, label_column = _header(path, rows, lines)
    ids, labels = tuple(row[0] for row in rows[1:]), tuple(row[1] for row in rows[1:])
    form = Form(id_column, label_column, ids, labels, str(path), tuple(lines[1:]))
    _check_ids(form)
    return form


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a folder, a device or a pipe; name a CSV file")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path} has {path.stat().st_size / 2**20:,.0f} MiB, too many for ids and labels; take the competition's own file"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"cannot read {path} ({getattr(error, 'strerror', None) or error}); name a CSV file that you may read") from error


def _decode(path: Path, content: bytes, encoding: str | None) -> str:
    if encoding is None and content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is not UTF-8 but UTF-16 (byte 0 is 0x{content[0]:02x}); add --encoding utf-16")
    try:
        return content.decode(encoding or "utf-8-sig").removeprefix("\ufeff")
    except LookupError:
        raise ConfigError(f"--encoding {encoding} is no text encoding; allowed: utf-8, latin-1, utf-16, cp1252, ...") from None
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is 0x{content[error.start]:02x}" if error.start < len(content) else "it ends within a character"
        remedy = "add --encoding latin-1 if it comes from a spreadsheet" if encoding is None else "add the --encoding that it was saved in"
        raise DataError(f"{path} is not {encoding or 'UTF-8'} ({found}); {remedy}") from error
    except (ValueError, AttributeError, TypeError) as error:  # codecs that are no text, such as hex; a NUL in the name
        raise ConfigError(f"--encoding {encoding!r} is no text encoding; allowed: utf-8, latin-1, utf-16, cp1252, ...") from error


def _rows(path: Path, text: str) -> tuple[list[list[str]], list[int]]:
    """Return the rows of two fields, and the line of each; empty lines at the end are none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    empty = 0
    try:
        for row in reader:
            line = reader.line_num
            if not row:
                empty = empty or line
                continue
            if empty:
                raise DataError(f"{path}: line {empty} is empty, and rows follow it; delete it")
            if line != (first := lines[-1] + 1 if lines else 1):
                raise DataError(f"{path}: line {first}: a quoted field goes over to the next line; take the competition's own file")
            if len(row) == 1 and (";" in row[0] or "\t" in row[0]):
                marks = "semicolons" if ";" in row[0] else "tabs"
                raise DataError(f"{path}: line {line} has {marks} where commas are needed; save it again as CSV with commas")
            if len(row) != 2:
                raise DataError(
                    f"{path}: line {line}: an id and a label are expected, found {len(row)} columns; take the competition's own file"
                )
            rows.append(row)
            lines.append(line)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no CSV ({error}); take the competition's own file") from error
    return rows, lines


def _header(path: Path, rows: list[list[str]], lines: list[int]) -> tuple[str, str]:
    if not rows:
        raise DataError(f"{path} is empty; take the competition's own file")
    if is_number(rows[0][0]):
        raise DataError(f"{path}: line {lines[0]}: {_brief(','.join(rows[0]))} is no header; put one above it, such as Id,Category")
    first, second = rows[0]
    if first.strip() == second.strip() or not first.strip() or not second.strip():
        raise DataError(
            f"{path}: line {lines[0]}: the columns are called {_brief(first)} and {_brief(second)}; give two names, Id,Category"
        )
    if len(rows) == 1:
        raise DataError(f"{path} has a header and no rows; take the competition's own file")
    return first, second


def _check_ids(form: Form) -> None:
    """Raise DataError for an id that is empty or comes twice, as a text or as a number (7 and 007)."""
    if "" in form.ids:
        raise DataError(f"{form.line(form.ids.index(''))} has no id; take the competition's own file")
    first: dict[str, int] = {}
    for row, text in enumerate(form.ids):
        other = first.setdefault(str(int(text)) if is_number(text) else text, row)
        if other != row:
            raise DataError(f"{form.line(row)}: id {_brief(text)} stands in line {form.lines[other]} too; each image has one row")


def count_from(form: Form) -> tuple[int, list[int]] | None:
    """Return the least id and all ids as numbers; None where one of them is no whole number."""
    if not all(map(is_number, form.ids)):
        return None
    numbers = list(map(int, form.ids))
    return min(numbers), numbers


def check_count(form: Form, num_images: int, what: str, remedy: str = "take the competition's own file, or the right images") -> None:
    """Raise DataError where a form has fewer or more ids than there are images."""
    found = len(form.ids)
    if found != num_images:
        few = f"{num_images - found:,} too few" if found < num_images else f"{found - num_images:,} too many"
        raise DataError(f"{form.source} has {found:,} ids for {num_images:,} images of {what}: {few}; {remedy}")


def first_disorder(numbers: Sequence[int]) -> int | None:
    """Return the first row whose id does not follow on the one before; None where all do."""
    return next((row for row, (one, other) in enumerate(pairwise(numbers), 1) if other != one + 1), None)


def is_number(text: str) -> bool:
    """Tell whether a text is a whole number from 0 on, of ASCII digits alone."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
