"""What two new runs of a handed-in notebook tell: stale outputs, random numbers, hidden errors, what the limits refused."""

import math
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from firstlight.data.places import data_dir_of
from firstlight.errors import DataError
from firstlight.notebooks.match import Finding, install_cell, pairs, restored
from firstlight.notebooks.read import Given, HandedIn, one_line
from firstlight.notebooks.rerun import Ran, run
from firstlight.notebooks.source import Cell, Source, load_library

SHARE, SMALL, TINY = 0.05, 100, 1e-6
"""Numbers of another machine are the same within this share, or this far apart; whole numbers up to SMALL must be equal."""
NO_DATA = "/nonexistent"
"""A folder of data in which there is no MNIST."""
NUMBER = re.compile(r"[-+]?(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|\b(?:nan|inf)\b")
TIME = r"\d+(?:\.\d+)? ?(?:s|ms|us|\u00b5s|\u03bcs|ns|seconds?|minutes?|min|hours?|h)\b"
NEVER_THE_SAME = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    (re.compile(r"[^\n]*\r(?!\n)"), ""),
    (re.compile(r"0x[0-9a-fA-F]{6,}"), "0x"),
    (re.compile(rf"{TIME}(?:,? {TIME})*"), "T"),
    (re.compile(r"\d+ runs?, [\d,]+ loops?( each)?"), "loops"),
    (re.compile(r"The slowest run took [^\n]*(?:\n|$)"), ""),
)
"""Colours, progress bars, addresses, times and what %timeit makes of them: what differs from run to run and means nothing."""


def rerun_findings(
    hand_in: HandedIn, source: Source | None, *, seconds: float, data_dir: Path | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """Return what two new runs tell, and the points of the checks that passed.

    Cells that no student changes run as they are in the lesson. Both runs are confined children of their own, `seconds` each.
    """
    cells = {given.number: cell for cell, given in pairs(hand_in, source)}
    first = _run(hand_in, source, seconds, _settings(hand_in, data_dir))
    points = _points(source, cells, first)
    if first.error:
        given = hand_in.cells[max(first.cell, 1) - 1]
        return [(given, cells.get(given.number), _why(first, seconds))], points
    found: list[Finding] = [(None, None, f"was refused: {what}") for what in first.refused]
    second = _run(hand_in, source, seconds, _settings(hand_in, data_dir))
    if second.error:
        given = hand_in.cells[max(second.cell, 1) - 1]
        return [(given, cells.get(given.number), f"fails now and then: {_why(second, seconds)}")], points
    install = install_cell(hand_in, source)
    for given in hand_in.code:
        cell = cells.get(given.number)
        if not (cell and cell.varies) and given is not install:
            texts = [_plain(given.text), *(_plain(_output(ran, given)) for ran in (first, second))]
            found += [(given, cell, what) for what in _wrong_text(*texts)]
    return found, points


def _run(hand_in: HandedIn, source: Source | None, seconds: float, settings: dict[str, str]) -> Ran:
    v4 = load_library("nbformat.v4")
    ours = restored(hand_in, source) if source else {}
    install = install_cell(hand_in, source)
    if install is not None:
        ours[install.number] = "pass"
    notebook = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    for given in hand_in.cells:
        make = v4.new_code_cell if given.number in ours or given.type == "code" else v4.new_markdown_cell
        notebook.cells.append(make(ours.get(given.number, given.source), id=f"cell-{given.number}"))
    return run(notebook, settings={**settings, "PYTHONHASHSEED": "0"}, seconds=seconds, confined=True)


def _settings(hand_in: HandedIn, data_dir: Path | None) -> dict[str, str]:
    """Return the size and the data with which the notebook says that it ran, so that its numbers can be compared."""
    said = re.search(r"^data: (MNIST|8x8 digits).*; size: (small|full)$", "\n".join(given.text for given in hand_in.code), re.MULTILINE)
    if said is None:
        return {"FIRSTLIGHT_DATA": str(data_dir_of(data_dir).resolve())}
    from firstlight.notebooks.lesson import data_here  # it brings torch

    here = data_dir_of(data_dir).resolve()
    if said[1] == "MNIST" and data_here(data_dir) != "mnist":
        raise DataError(
            f"{hand_in.path}: ran on MNIST, which is not in {here}; `firstlight data fetch mnist`, or name the folder with --data-dir"
        )
    return {"FIRSTLIGHT_DATA": str(here) if said[1] == "MNIST" else NO_DATA, "FIRSTLIGHT_LESSON": said[2]}


def _output(ran: Ran, given: Given) -> str:
    cell = ran.notebook.cells[given.number - 1]
    return Given(number=0, type="code", source="", id="", metadata={}, count=None, outputs=list(cell.outputs)).text


def _why(ran: Ran, seconds: float) -> str:
    if ran.refused and "PermissionError" in ran.error:
        return f"fails when it runs again: {ran.refused[0]}"
    if ran.kind == "ModuleNotFoundError":
        return f"needs a package that is not installed here ({one_line(ran.error.partition(': ')[2])})"
    if ran.kind == "time":
        return f"{ran.error}: an endless loop, or it needs more time (--seconds)"
    return f"fails when it runs again: {one_line(ran.error)}"


def _points(source: Source | None, cells: dict[int, Cell], ran: Ran) -> dict[str, Any]:
    """Return the points of the checks that the run passed, and of all checks: answers in words are for people to mark."""
    if source is None:
        return {}
    passed = [cell.points for number, cell in cells.items() if cell.kind == "check" and _ran_well(ran, number)]
    return {"points": sum(passed), "most_points": sum(cell.points for cell in source.of_kind("check"))}


def _ran_well(ran: Ran, number: int) -> bool:
    """Whether this cell ran to its end; of a run that was ended no notebook is left, and the cells before the last one did."""
    if ran.error and number >= ran.cell:
        return False
    cell = ran.notebook.cells[number - 1] if ran.notebook is not None else None
    return cell is None or (cell.cell_type == "code" and cell.execution_count is not None)


def _wrong_text(stored: str, first: str, second: str) -> Iterator[str]:
    if first != second:
        yield f"prints something else each time ({_apart(first, second)}); set a seed before it draws random numbers"
    elif not stored and first:
        yield f"its output is missing: a new run prints `{one_line(first)}`"
    elif not _agree(stored, first):
        yield f"its output is stale: {_apart(stored, first)} in a new run; restart the kernel, run all cells, save"


def _plain(text: str) -> str:
    for pattern, stands in NEVER_THE_SAME:
        text = pattern.sub(stands, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _apart(one: str, other: str) -> str:
    """Return the first lines in which two texts differ."""
    ours, theirs = one.splitlines(), other.splitlines()
    lines = list(zip_longest(ours, theirs, fillvalue=""))
    left, right = next((pair for pair in lines if not _agree(*pair)), next((pair for pair in lines if pair[0] != pair[1]), ("", "")))
    return f"`{one_line(left)}`, and `{one_line(right)}`"


def _agree(one: str, other: str) -> bool:
    """Whether two texts are the same, but for numbers that another processor rounds otherwise."""
    if one == other:
        return True
    if NUMBER.sub("#", one).split() != NUMBER.sub("#", other).split():
        return False
    return all(_close(a.replace(",", ""), b.replace(",", "")) for a, b in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True))


def _close(one: str, other: str) -> bool:
    a, b = float(one), float(other)
    if one == other or (one.lstrip("+-").isdigit() and other.lstrip("+-").isdigit() and abs(a) <= SMALL):
        return one == other
    return math.isclose(a, b, rel_tol=SHARE, abs_tol=TINY)
