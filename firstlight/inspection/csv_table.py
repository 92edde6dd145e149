"""Rows as a CSV file."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from firstlight.files import write_text


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows with the same keys, at least one, below a line of the keys; fractions with six decimals. Return the path."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            table.writerow(row)
        table.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()])
    write_text(path, text.getvalue())
    return path
