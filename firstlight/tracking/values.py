"""Values of files that anyone may have written: numbers that are numbers, texts of one line, JSON that may be damaged."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Tree = Mapping[str, Any]


def read_json(path: Path) -> Tree | str:
    """Return the object of a JSON file, or what is wrong with the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"{path.name} cannot be read ({type(error).__name__}: {one_line(error)})"
    return found if isinstance(found, dict) else f"{path.name} holds no figures"


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def part(tree: Tree, key: str) -> Tree:
    """Return what stands under a key, or nothing where that is no tree."""
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def rows_of(value: Any) -> list[Tree]:
    """Return the rows of a table; nothing for what is none."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """Return one text or several as a list of texts."""
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [item if isinstance(item, str) else one_line(item) for item in listed]


def one_line(value: Any) -> str:
    """Return a value as text on one line."""
    return " ".join(str(value).split())


def listed(values: Sequence[Any]) -> str:
    """Return values in one line, comma between."""
    return ", ".join(one_line(value) for value in values)
