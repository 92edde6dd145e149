"""A lesson walked through with its exercises both ways: what is well, what fails and in which cell (E14)."""

import random
from pathlib import Path

import pytest

from firstlight.notebooks.source import read_source
from firstlight.notebooks.walk import Walked, walk
from tests.notebooks.hand_ins import LESSON, lesson


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Walked:
    text = LESSON.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / "01_means.py"
    path.write_text(text, encoding="utf-8")
    return walk(read_source(path))


def test_checks_fail_before_and_pass_after() -> None:
    """E14: the exercise without its solution fails, with it the lesson runs to its end; its output is that of one run."""
    walked = walk(lesson())
    assert walked.failures == [] and walked.exercises == {"mean": "NotImplementedError:  (line 1 of the cell)"}
    assert walked.output.splitlines()[:4] == ["4 heights", "you said 1.625 and it is 1.625", "mean is right", "mean height: 1.625"]
    assert walk(lesson(), guesses=False).output.splitlines()[1] == "you said None and it is 1.625"


def test_a_check_that_cannot_fail_is_named(tmp_path: Path) -> None:
    """E14: a check that passes on a blank exercise is no check."""
    walked = changed(tmp_path, ("assert mean([1, 2, 3, 6]) == 3", "assert True"))
    assert walked.failures == ["cell 8 (check mean): passes although the exercise is not filled in"]


def test_what_fails_is_named_by_its_cell(tmp_path: Path) -> None:
    """E14: a check that its own solution does not pass, an error, a blank exercise that is no Python, a lesson that leaves."""
    walked = changed(tmp_path, ("total / len(values)", "total"))
    assert walked.failures == [
        "cell 8 (check mean): AssertionError: the mean of 1, 2, 3 and 6 is 3: is the sum shared among all of them? (line 1 of the cell)"
    ]
    assert changed(tmp_path, ("tallest = max(heights)", "a = 1\nheights[9]")).failures == [
        "cell 11 (code): IndexError: list index out of range (line 2 of the cell)"
    ]
    open_end = (
        ('    """Return the mean of the values."""\n', "    if (\n"),
        ("total = sum(values)", "1):\n        total = sum(values)"),
        ("return total", "    return total"),
    )
    assert changed(tmp_path, *open_end).failures[0].startswith("cell 7 (exercise mean): no Python without its solution")
    assert changed(tmp_path, ("tallest = max(heights)", "raise SystemExit(2)")).failures == ["cell 11 (code): SystemExit: 2"]


def test_the_blank_try_leaves_nothing_behind(tmp_path: Path) -> None:
    """E14: names and random numbers are as if the exercise had never been tried blank."""
    counted = "import random\n    tries.append(random.random())\n    ### BEGIN SOLUTION\n    total"
    before = ("### BEGIN SOLUTION\n    total", counted)
    last = (("tallest = max(heights)", "print(len(tries), tries[-2])"),)
    state = random.getstate()
    try:
        random.seed(3)
        expected = random.random()
        random.seed(3)
        walked = changed(tmp_path, ("import time", "tries = []"), before, ('print("now:", time.time())', "heights[2]"), *last)
    finally:
        random.setstate(state)
    assert walked.failures == [] and walked.output.splitlines()[-1] == f"3 {expected}"


def test_numbers_and_bounds_of_a_lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E14: what `lesson.measured` holds is returned, once, with its bounds, the data and the size."""
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(tmp_path))
    monkeypatch.setenv("FIRSTLIGHT_LESSON", "small")
    begin = "from firstlight.notebooks.lesson import begin\n\nlesson = begin('means')\nimport time"
    walked = changed(tmp_path, ("import time", begin), ('print("mean is right")', 'lesson.measured("mean", mean([3]), least=3, most=4)'))
    assert walked.failures == [] and (walked.data, walked.size) == ("digits", "small")
    assert walked.numbers == {"mean": 3.0} and walked.bounds == {"mean": (3, 4)}
    walked = changed(tmp_path, ("import time", begin), ('print("mean is right")', 'lesson.measured("mean", mean([3]), least=3.5)'))
    assert walked.failures == ["cell 8 (check mean): AssertionError: mean is 3, and the lesson says at least 3.5 (line 2 of the cell)"]
