"""Rows as a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.files import write_text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows with the same keys, at least one, below a line of the keys; fractions with six decimals. Return the path."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows[0])
    table.writerows([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()] for row in rows)
    write_text(path, text.getvalue())
    return path
