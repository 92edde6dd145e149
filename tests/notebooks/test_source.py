"""How a lesson's file is read, and what is refused, with file and line (E14)."""

from pathlib import Path

import pytest

from firstlight.errors import ConfigError
from firstlight.notebooks.source import find_lessons, lessons_dir, read_source, solution_lines
from tests.notebooks.hand_ins import LESSON, lesson


def test_cells_of_a_lesson() -> None:
    """E14: kinds, names, points and the lines at which the cells begin."""
    source = lesson()
    assert (source.name, source.title, source.minutes, source.shows) == ("01_means", "Means", 1.0, ("E14",))
    kinds = ["text", "code", "text", "predict", "code", "text", "exercise", "check", "code", "code", "code", "answer"]
    assert [cell.kind for cell in source.cells] == kinds
    assert [(cell.kind, cell.name, cell.points) for cell in source.cells if cell.points] == [("check", "mean", 3), ("answer", "why", 2)]
    text = LESSON.read_text(encoding="utf-8").splitlines()
    assert all(text[cell.line - 1].startswith("# %%") for cell in source.cells)
    assert [cell.varies for cell in source.cells].count(True) == 1
    assert solution_lines(source.cells[6].source) == ["total = sum(values)", "return total / len(values)"]


ANOTHER = '# %% kind="predict" name="middle"\n### BEGIN SOLUTION\nguess = 1\n### END SOLUTION\n'
LEAK = "# %%\nfor values in []:\n    total = sum(values)\nprint("
WRONG = {
    "line 27: no `guess = ...` between the marks": ("guess = 1.625", "my_guess = 1.625"),
    "line 39: the marks of a solution are not in pairs": ("    ### END SOLUTION\n", ""),
    "line 39: exercise 'mean' has no partner": ('kind="check" name="mean"', 'kind="check" name="means"'),
    "line 48: checks and answers alone have points": (" points=3", ""),
    "line 48: unknown setting 'pints' of a cell": ("points=3", "pints=3"),
    "line 48: a code cell cannot be of kind 'test' (allowed: predict, exercise, check)": ('kind="check"', 'kind="test"'),
    "line 48: a cell of kind check has a marked solution": ('print("mean is right")', "### BEGIN SOLUTION\npass\n### END SOLUTION"),
    "line 27: cells with a kind have a name": (' name="middle"', ""),
    "2 cells of kind predict are named 'middle'": ("# %% varies=true\n", ANOTHER),
    "line 39: 'total = sum(values)' of the solution is also in the cell at line 52": ('# %%\nprint("mean', LEAK),
    "line 1: the header names `firstlight:` with title, minutes and shows": ("#     minutes: 1\n", ""),
    "line 1: title is a text, minutes a number, shows a list": ("minutes: 1", "minutes: soon"),
    "the header is no YAML": ("#     title: Means", "#     title: [Means"),
    "cells, and": ("# %% [markdown]\n# # Means", "import os\n\n# %% [markdown]\n# # Means"),
}


@pytest.mark.parametrize("told", WRONG)
def test_a_source_that_is_not_as_it_should_be(told: str, tmp_path: Path) -> None:
    """E14: named with file and line, before anything is built."""
    before, after = WRONG[told]
    text = LESSON.read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "01_means.py"
    path.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_source(path)
    assert str(raised.value).startswith(f"{path}: ") and told in str(raised.value) and ";" in str(raised.value), raised.value


def test_lessons_are_found_by_number_name_and_path() -> None:
    """E14: 4, 04 and 04_training_loop are one lesson; a wrong name gets the nearest."""
    first = sorted(lessons_dir().glob("04_*.py"))[0]
    assert find_lessons(("4", "04", first.stem, str(first))) == [first] * 4
    assert find_lessons() == sorted(lessons_dir().glob("[0-9]*.py"))
    for name in ("99", "04_trainig_loop", "no.py"):
        with pytest.raises(ConfigError, match="no lesson"):
            find_lessons((name,))
