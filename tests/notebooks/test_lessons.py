"""Every lesson, from its source, in a process of its own: on MNIST and on the package's digits, exercises both ways (E14, C13, F11)."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firstlight.notebooks.build import build_lessons
from firstlight.notebooks.source import Source, find_lessons, read_source
from firstlight.tracking.console import Console
from tests.notebooks.warm import Warm

LESSONS = find_lessons()
IN_LESSONS = "A13 A14 B1 B2 B3 B4 B5 B6 C3 C11 C13 D23 E1 E2 E3 E4 E5 E6"
IN_TESTS = "B15 B16 B18 C10 C12 E14 E15 F11"
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    started = Warm()
    yield started
    started.close()


def walk(warm: Warm, path: Path, folder: Path, data_dir: str, size: str, *words: str) -> dict[str, Any]:
    done = warm.walk(str(path), *words, cwd=folder, FIRSTLIGHT_DATA=data_dir, FIRSTLIGHT_LESSON=size)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_walk(found: dict[str, Any], source: Source, folder: Path, data: str, size: str) -> None:
    assert (found["failures"], found["data"], found["size"]) == ([], data, size)
    assert list(found["exercises"]) == [cell.name for cell in source.of_kind("exercise")]
    assert found["numbers"] and all(any(bound is not None for bound in found["bounds"][name]) for name in found["numbers"])
    pictures = re.findall(r"^picture: (.+)$", found["output"], re.MULTILINE)
    assert all((folder / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert str(folder) not in found["output"], "the output depends on where the lesson runs"


@each_lesson
def test_a_quick_walk_on_mnist(warm: Warm, path: Path, shared_data: Path, tmp_path: Path) -> None:
    """E14, C13: every check fails on the blank exercise and passes on its solution; every number lies within what the lesson says."""
    check_walk(walk(warm, path.resolve(), tmp_path, str(shared_data), "small"), read_source(path), tmp_path, "mnist", "small")


@each_lesson
def test_a_quick_walk_on_the_digits_of_the_package(warm: Warm, path: Path, tmp_path: Path) -> None:
    """E14: the same without any data set on the machine, and as a student runs it who writes no guess."""
    check_walk(
        walk(warm, path.resolve(), tmp_path, "/nonexistent", "small", "--no-guesses"), read_source(path), tmp_path, "digits", "small"
    )


@pytest.mark.soak
@each_lesson
def test_a_full_walk(warm: Warm, path: Path, shared_data: Path, tmp_path: Path) -> None:
    """E14: the size that a reader runs, on both data sets, in at most half an hour."""
    for data, data_dir in (("mnist", str(shared_data)), ("digits", "/nonexistent")):
        (tmp_path / data).mkdir()
        found = walk(warm, path.resolve(), tmp_path / data, data_dir, "full")
        check_walk(found, read_source(path), tmp_path / data, data, "full")
        assert found["seconds"] < 1_800


@pytest.mark.soak
@each_lesson
def test_the_solution_set_is_good(path: Path, shared_data: Path, tmp_path: Path) -> None:
    """E14, C10: the instructor's notebook, run in a kernel, is what the checker calls a good hand-in, new runs included."""
    from firstlight.notebooks.hand_in import check

    places: dict[str, Any] = {"size": "small", "data_dir": shared_data, "console": Console(quiet=True)}
    found = build_lessons([str(path)], out=tmp_path, versions=["instructor"], **places)
    row = check([Path(found["lessons"][0]["instructor"])], lesson=str(path), rerun=True, data_dir=shared_data)["notebooks"][0]
    assert row["good"] and row["points"] == row["most_points"], row["findings"]


@each_lesson
def test_a_lesson_teaches_as_the_others_do(path: Path) -> None:
    """C13, E14: what will be learned, how long it takes, where it comes from; predictions, exercises, answers; firstlight at its end."""
    source = read_source(path)
    first, last = source.cells[0].source, source.cells[-1].source
    for words in (f"# {source.title}", "**You will learn**", "**Before", "**Takes**", "**Comes from**"):
        assert words in first
    assert re.search(r"\b(1[89]|20)\d\d\b", first), "no year of a paper or a course"
    assert last.startswith("## Where this stands in firstlight") and "`firstlight" in last
    assert len(source.of_kind("predict")) >= 2 and 1 <= len(source.of_kind("answer")) <= 3 and 1 <= len(source.of_kind("exercise")) <= 5
    assert source.minutes <= 30
    lines = path.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 140


@each_lesson
def test_a_lesson_runs_firstlight_and_not_a_copy(path: Path) -> None:
    """F11: what a student reads is what runs: every lesson imports the package's own pieces, and every file that it names is there."""
    text = path.read_text(encoding="utf-8")
    imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert [name for name in imported if name.split(".")[0] == "firstlight" and name != "firstlight.notebooks.lesson"]
    root = Path(__file__).parents[2]
    named = set(re.findall(r"\b((?:firstlight|docs|benchmarks|lessons)/[\w/]+\.(?:py|md|yaml))\b", text))
    assert not [name for name in sorted(named) if not (root / name).is_file()]


def test_every_point_of_the_specification_is_taught() -> None:
    """E14: each number that the lessons are to show is named by a lesson; what is no lesson's is held by a test of this folder."""
    shown = {item for path in LESSONS for item in read_source(path).shows}
    assert not set(IN_LESSONS.split()) - shown
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
    held = set(re.findall(r"\b[A-F]\d+\b", tests)) | {"F11"}
    assert not set(IN_TESTS.split()) - held


def test_lessons_are_numbered_and_named_once() -> None:
    """E14: 01, 02, ... and a topic, in reading order; titles differ."""
    numbers = [int(path.stem.partition("_")[0]) for path in LESSONS]
    assert numbers == sorted(set(numbers)) and all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in LESSONS)
    titles = [read_source(path).title for path in LESSONS]
    assert len(set(titles)) == len(titles)
