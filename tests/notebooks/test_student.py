"""Both versions of a lesson: what is blanked, what stays to the byte, and nbgrader's metadata (E14, C13)."""

import copy
import json

import jsonschema
import nbformat

from firstlight.notebooks.source import MARKED
from firstlight.notebooks.student import blank, to_notebook
from tests.notebooks.hand_ins import lesson

NBGRADER = {
    "type": "object",
    "properties": {
        "schema_version": {"type": "integer", "minimum": 3, "maximum": 3},
        "grade": {"type": "boolean"},
        "locked": {"type": "boolean"},
        "solution": {"type": "boolean"},
        "task": {"type": "boolean"},
        "grade_id": {"type": "string", "pattern": r"^[a-zA-Z0-9_\-]+$"},
        "points": {"type": "number", "minimum": 0},
        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
        "cell_type": {"type": "string", "enum": ["raw", "code", "markdown"]},
    },
    "required": ["schema_version", "grade", "locked", "solution", "grade_id"],
    "additionalProperties": False,
}
"""What nbgrader documents of its cells' metadata, version 3."""


def test_what_students_get() -> None:
    """E14, C13: solutions give way to what a student fills in, calls stay."""
    texts = [blank(cell) for cell in lesson().cells]
    assert texts[3] == "guess = None  # write your guess"
    assert texts[6].splitlines()[-2:] == ["    # YOUR CODE HERE", "    raise NotImplementedError()"] and "def mean(values):" in texts[6]
    assert texts[11] == "When does a mean say little?\n\n*Write your answer here.*"
    assert "print(\"mean height:\", mean(heights))" in texts  # fmt: skip


def test_all_other_cells_are_the_same_bytes() -> None:
    """E14: both versions have the same cells, ids and metadata; only marked cells differ, and neither has outputs."""
    source = lesson()
    theirs, ours = to_notebook(source, student=True), to_notebook(source, student=False)
    for cell, given, whole in zip(source.cells, theirs.cells, ours.cells, strict=True):
        assert (given.id, given.metadata, given.cell_type) == (whole.id, whole.metadata, whole.cell_type)
        assert whole.source == cell.source
        assert (given.source != whole.source) == (cell.kind in MARKED)
        assert given.get("outputs", []) == [] and given.get("execution_count") is None
    nbformat.validate(theirs)
    nbformat.validate(ours)


def test_the_same_source_gives_the_same_file() -> None:
    """E14: no random ids, so that a notebook built again differs only where the lesson does."""
    assert nbformat.writes(to_notebook(lesson(), student=True)) == nbformat.writes(to_notebook(lesson(), student=True))


def test_metadata_are_those_of_nbgrader() -> None:
    """E14: nbgrader's schema 3; exercises are solutions, checks are graded and locked, answers are both; its ids are unique."""
    notebook = to_notebook(lesson(), student=True)
    found = {
        cell.metadata.nbgrader.grade_id: copy.deepcopy(cell.metadata.nbgrader) for cell in notebook.cells if "nbgrader" in cell.metadata
    }
    assert list(found) == ["predict-middle", "exercise-mean", "check-mean", "answer-why"]
    for value in found.values():
        jsonschema.validate(json.loads(json.dumps(value)), NBGRADER)
        assert ("points" in value) == value.grade
    roles = {name: (value.solution, value.grade, value.locked) for name, value in found.items()}
    assert roles["exercise-mean"] == (True, False, False) and roles["check-mean"] == (False, True, True)
    assert roles["answer-why"] == (True, True, False)
    assert not notebook.cells[7].metadata.deletable and not notebook.cells[7].metadata.editable
