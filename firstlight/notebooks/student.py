"""A lesson as a notebook: the instructor's with its solutions, the student's without, both with the metadata of nbgrader (schema 3)."""

from typing import Any

from firstlight.notebooks.source import BEGIN, END, MARKED, Cell, Source, guess_names, load_library

STUBS = {
    "exercise": ["# YOUR CODE HERE", "raise NotImplementedError()"],
    "answer": ["*Write your answer here.*"],
}
"""What a student's version has in the place of a solution; the exercises' is nbgrader's own. A prediction's names the guess."""
INSTALL_LINE = "# Run this cell first, and again after every restart."
"""First line of the cell that installs firstlight in Colab; it is no part of a lesson."""


def blank(cell: Cell) -> str:
    """Return the text of a cell with its solutions taken out; all other lines are as they were."""
    if cell.kind not in MARKED:
        return cell.source
    stubs, lines, inside = blank_lines(cell), [], False
    for line in cell.source.split("\n"):
        if line.strip() == BEGIN:
            inside = True
            lines += [line[: line.index("#")] + stub for stub in stubs]
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def blank_source(source: Source) -> str:
    """Return the file of a lesson with its solutions taken out: a student checks a hand-in against it as an instructor does."""
    stubs = {cell.line: blank_lines(cell) for cell in source.of_kind(*MARKED)}
    lines: list[str] = []
    cell_stubs: list[str] = []
    inside = False
    for number, line in enumerate(source.path.read_text(encoding="utf-8").splitlines(), 1):
        cell_stubs = stubs.get(number, []) if line.startswith("# %%") else cell_stubs
        mark = line.removeprefix("# ").strip() if line.startswith("# ###") else line.strip()
        if mark == END:
            inside = False
        if not inside:
            lines.append(line)
        if mark == BEGIN:
            inside = True
            lines += [line[: line.index(BEGIN)] + stub for stub in cell_stubs]
    return "\n".join(lines) + "\n"


def blank_lines(cell: Cell) -> list[str]:
    """Return what stands in a student's version in the place of each solution of a cell."""
    return STUBS.get(cell.kind) or [f"{name} = None  # write your guess" for name in guess_names(cell.source)]


def to_notebook(source: Source, *, student: bool) -> Any:
    """Return a lesson as a notebook (nbformat 4.5) without outputs; the same source gives the same bytes."""
    v4 = load_library("nbformat.v4")
    notebook = v4.new_notebook()
    notebook.metadata = {
        "kernelspec": source.kernelspec,
        "language_info": {"name": "python"},
        "firstlight": {"lesson": source.name, "version": "student" if student else "instructor", "source": source.digest},
    }
    for cell in source.cells:
        make = v4.new_code_cell if cell.type == "code" else v4.new_markdown_cell
        made = make(blank(cell) if student else cell.source, metadata=metadata_of(cell))
        made.id = f"{source.name}-{cell.number:03d}"[:64]
        notebook.cells.append(made)
    return notebook


def metadata_of(cell: Cell) -> dict[str, Any]:
    """Return a cell's metadata: ours under `firstlight`, and nbgrader's for what students write and what is graded."""
    if not cell.name:
        return {"firstlight": {"varies": True}} if cell.varies else {}
    nbgrader = {
        "schema_version": 3,
        "grade_id": grade_id(cell),
        "solution": cell.kind != "check",
        "grade": cell.kind in ("check", "answer"),
        "locked": cell.kind == "check",
        "task": False,
        "cell_type": cell.type,
        **({"points": cell.points} if cell.kind in ("check", "answer") else {}),
    }
    ours = {"kind": cell.kind, "name": cell.name, **({"varies": True} if cell.varies else {})}
    return {"firstlight": ours, "nbgrader": nbgrader, **({"deletable": False, "editable": False} if cell.kind == "check" else {})}


def grade_id(cell: Cell) -> str:
    """Return the name of a cell that is unique in its lesson."""
    return f"{cell.kind}-{cell.name}"
