"""Which cell of a handed-in notebook is which cell of its lesson: by name, else by id, else by what stands in it."""

import ast
import re
from collections.abc import Callable, Iterator

from firstlight.notebooks.read import Given, HandedIn
from firstlight.notebooks.source import MARKED, Cell, Source, marked_lines
from firstlight.notebooks.student import INSTALL_LINE, blank, grade_id

Finding = tuple[Given | None, Cell | None, str]
NO_ANSWER = ("", "todo", "tbd", "answer", "your answer here", "write your answer here")


def match(hand_in: HandedIn, source: Source) -> dict[int, Given]:
    """Return, by the number of a lesson's cell, the cell that was handed in for it; those that are missing are not there."""
    found: dict[int, Given] = {}
    rules: tuple[Callable[[Cell, Given], bool], ...] = (_same_name, _same_id_and_text, _same_text, _same_id, _same_frame)
    for rule in rules:
        taken = {given.number for given in found.values()}
        for cell in source.cells:
            if cell.number in found:
                continue
            fitting = [given for given in hand_in.cells if given.number not in taken and rule(cell, given)]
            if fitting:
                before = next((found[number].number for number in range(cell.number - 1, 0, -1) if number in found), 0)
                given = next((given for given in fitting if given.number > before), fitting[0])
                found[cell.number] = given
                taken.add(given.number)
    return found


def pairs(hand_in: HandedIn, source: Source | None) -> list[tuple[Cell, Given]]:
    """Return the cells of a lesson that were handed in, each with what was handed in for it."""
    found = match(hand_in, source) if source else {}
    return [(cell, found[cell.number]) for cell in (source.cells if source else ()) if cell.number in found]


def compare(hand_in: HandedIn, source: Source) -> Iterator[Finding]:
    """Yield what is missing, was changed or moved, or is not filled in: the handed-in cell, the lesson's cell, what is wrong."""
    found = match(hand_in, source)
    last = 0
    for cell in source.cells:
        given = found.get(cell.number)
        if given is None:
            yield None, cell, f"was deleted: {_opening(cell)}"
            continue
        if given.number < last:
            yield given, cell, "was moved: it stands before a cell that comes first in the lesson"
        last = max(last, given.number)
        problem = _problem(cell, given)
        if problem:
            yield given, cell, problem


def restored(hand_in: HandedIn, source: Source) -> dict[int, str]:
    """Return, by the number of a handed-in cell, the lesson's own text of the cells that no student changes."""
    return {given.number: cell.source for cell, given in pairs(hand_in, source) if cell.kind in ("code", "check")}


def install_cell(hand_in: HandedIn, source: Source | None) -> Given | None:
    """Return the cell with which a notebook of Colab's bundle begins; it installs firstlight, and does not run again."""
    first = next(iter(hand_in.code), None)
    if first is None or not first.source.lstrip().startswith(INSTALL_LINE):
        return None
    return None if any(given is first for _, given in pairs(hand_in, source)) else first


def _problem(cell: Cell, given: Given) -> str:
    if given.type != cell.type:
        return f"was changed: it is a {given.type} cell, and a {cell.type} cell in the lesson"
    if cell.kind in ("code", "check"):
        return "" if _tidy(given.source) == _tidy(cell.source) else f"was changed: {_difference(cell, given)}"
    if cell.kind == "answer":
        return "" if _answer(cell, given) else "has no answer"
    if cell.kind in MARKED and (not given.source.strip() or _meaning(given.source) == _meaning(blank(cell))):
        return "has no guess" if cell.kind == "predict" else "is not filled in"
    return ""


def _answer(cell: Cell, given: Given) -> bool:
    asked = {line.strip() for line in blank(cell).splitlines()}
    written = " ".join(line for line in given.source.splitlines() if line.strip() not in asked)
    return re.sub(r"[\W_]+", " ", written).strip().lower() not in NO_ANSWER


def _difference(cell: Cell, given: Given) -> str:
    theirs, ours = _tidy(given.source).split("\n"), _tidy(cell.source).split("\n")
    gone = next((line.strip() for line in ours if line not in theirs), None)
    new = next((line.strip() for line in theirs if line not in ours), None)
    return f"`{_short(gone)}` is gone" if gone is not None else f"`{_short(new or '')}` is not in the lesson"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _opening(cell: Cell) -> str:
    return f"`{_short(next((line.strip() for line in blank(cell).splitlines() if line.strip()), ''))}`"


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").strip().split("\n"))


def _meaning(text: str) -> str:
    """Return code without comments and layout, to tell whether anything was written."""
    try:
        return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return _tidy(text)


def _same_name(cell: Cell, given: Given) -> bool:
    names = given.metadata.get("nbgrader")
    return bool(cell.name) and isinstance(names, dict) and names.get("grade_id") == grade_id(cell)


def _same_text(cell: Cell, given: Given) -> bool:
    return given.type == cell.type and cell.kind not in MARKED and _tidy(given.source) == _tidy(cell.source)


def _same_id_and_text(cell: Cell, given: Given) -> bool:
    return _same_id(cell, given) and _same_text(cell, given)


def _same_id(cell: Cell, given: Given) -> bool:
    return bool(re.fullmatch(rf".*-{cell.number:03d}", given.id))


def _same_frame(cell: Cell, given: Given) -> bool:
    """Whether what the lesson has around a solution stands there too; of a text, half of it."""
    if given.type != cell.type or cell.kind in ("code", "check"):
        return False
    theirs = {line.strip() for line in given.source.splitlines()}
    frame = [line.strip() for line, is_solution in marked_lines(cell.source) if not is_solution and line.strip()]
    if cell.kind == "predict" and not frame:
        return any(re.match(r"guess\w* =", line) for line in theirs)
    kept = sum(line in theirs for line in frame)
    return kept == len(frame) if cell.kind == "exercise" else 2 * kept >= len(frame) > 0
