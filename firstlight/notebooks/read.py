"""A notebook file that somebody hands in, read as plain data: nothing of it is trusted, and nothing of it is run."""

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.errors import DataError

MAX_BYTES = 50 * 2**20
MAX_CELLS = 2_000


@dataclass(frozen=True, kw_only=True)
class Given:
    """A cell as it was handed in. number: its place, from 1. count: its execution count, None where it did not run."""

    number: int
    type: str
    source: str
    id: str
    metadata: dict[str, Any]
    count: int | None
    outputs: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """What it printed and displayed as text, warnings and pictures aside."""
        parts = []
        for output in self.outputs:
            given = output.get("data")
            data: dict[str, Any] = given if isinstance(given, dict) else {}
            if output.get("output_type") == "stream" and output.get("name") != "stderr":
                parts.append(joined(output.get("text")))
            elif "text/plain" in data and not any(kind.startswith("image/") for kind in data):
                parts.append(joined(data["text/plain"]) + "\n")
        return "".join(parts)

    @property
    def tags(self) -> list[str]:
        """Tags of the cell."""
        tags = self.metadata.get("tags")
        return [str(tag) for tag in tags] if isinstance(tags, list) else []


@dataclass(frozen=True, kw_only=True)
class HandedIn:
    """A notebook as it was handed in."""

    path: Path
    metadata: dict[str, Any]
    cells: tuple[Given, ...]

    @property
    def code(self) -> list[Given]:
        """The code cells that hold anything."""
        return [cell for cell in self.cells if cell.type == "code" and cell.source.strip()]


def read_hand_in(path: Path) -> HandedIn:
    """Return a notebook file's cells. Raises DataError, one line, where it is none, is damaged, or is too large to be one."""
    try:
        found = json.loads(_content(path))
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate can be neither run nor printed
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name a notebook file, such as 04_training_loop.ipynb") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: no notebook, or a damaged one ({str(error).splitlines()[0]}); save it again in Jupyter") from None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise DataError(f"{path}: no Jupyter notebook, it has no list of cells; open it where it was made and save it as .ipynb")
    if found.get("nbformat") != 4:
        raise DataError(f"{path}: nbformat {str(found.get('nbformat'))[:20]}, and only 4 is read; open it in Jupyter and save it again")
    if len(found["cells"]) > MAX_CELLS:
        raise DataError(f"{path}: {len(found['cells'])} cells, and at most {MAX_CELLS} are read; hand in the lesson's notebook")
    metadata = found.get("metadata")
    cells = tuple(_cell(path, number, cell) for number, cell in enumerate(found["cells"], 1))
    return HandedIn(path=path, metadata=metadata if isinstance(metadata, dict) else {}, cells=cells)


def joined(text: Any) -> str:
    """Return a text of a notebook, which is stored whole or as a list of lines."""
    return "".join(str(part) for part in text) if isinstance(text, list) else text if isinstance(text, str) else ""


def one_line(text: Any, *, most: int = 120) -> str:
    """Return a text from a notebook as it may stand in a message: on one line, without what steers a terminal, not too long."""
    shown = re.sub(r"\x1b\[[0-9;]*m", "", str(text))
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in shown).split())
    return line if len(line) <= most else line[: most - 3] + "..."


def _content(path: Path) -> bytes:
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{path}: no file; name a notebook file, such as 04_training_loop.ipynb")
    with path.open("rb") as handle:
        content = handle.read(MAX_BYTES + 1) if info.st_size <= MAX_BYTES else b""
    size = max(info.st_size, len(content))
    if size > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise DataError(f"{path}: {size / 2**20:.0f} MB, and a notebook has at most {limit}; clear the outputs that are too large")
    return content


def _cell(path: Path, number: int, cell: Any) -> Given:
    if (
        not isinstance(cell, dict)
        or cell.get("cell_type") not in ("code", "markdown", "raw")
        or not isinstance(cell.get("source"), str | list)
    ):
        raise DataError(f"{path}: cell {number} is no cell of a notebook (it has no type or no source); save it again in Jupyter")
    outputs = cell.get("outputs") if cell["cell_type"] == "code" else []
    metadata, count = cell.get("metadata"), cell.get("execution_count")
    return Given(
        number=number,
        type=cell["cell_type"],
        source=joined(cell["source"]),
        id=str(cell.get("id", ""))[:64],
        metadata=metadata if isinstance(metadata, dict) else {},
        count=count if isinstance(count, int) and not isinstance(count, bool) else None,
        outputs=[output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else [],
    )
