"""What an instructor gets: students' notebooks, a solution set that ran, bundles that install and run elsewhere (E14, E15, C12, B18)."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from firstlight.__main__ import main
from firstlight.errors import ConfigError, FirstlightError
from firstlight.notebooks.build import build_lessons
from firstlight.notebooks.bundle import make_wheel
from firstlight.notebooks.hand_in import check
from firstlight.notebooks.source import MARKED, find_lessons, read_source, solution_lines
from firstlight.notebooks.student import blank
from firstlight.tracking.console import Console
from tests.notebooks.hand_ins import LESSON

QUIET = Console(quiet=True)


def command(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command line that ends well and return what it prints."""
    with pytest.raises(SystemExit) as left:
        main(["lessons", *words])
    said = capsys.readouterr()
    assert left.value.code == 0, said.err
    return said.out


def test_one_command_gives_all_that_an_instructor_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """E14: students' version without outputs, the instructor's with them, which the checker finds good as it stands, run and all."""
    said = command(capsys, "build", str(LESSON), "--out", str(tmp_path / "built"), "--size", "small", "--json")
    row = json.loads(said)["lessons"][0]
    theirs, ours = (nbformat.read(row[version], as_version=4) for version in ("student", "instructor"))
    assert not any(cell.get("outputs") for cell in theirs.cells)
    assert [cell.execution_count for cell in ours.cells if cell.cell_type == "code"] == list(range(1, 9))
    assert (
        ours.cells[1].outputs[0].text == "4 heights\n" and "language_info" in ours.metadata and "version" not in ours.metadata.language_info
    )
    different = {one.id for one, other in zip(theirs.cells, ours.cells, strict=True) if one.source != other.source}
    assert len(different) == 3 and sorted(path.name for path in (tmp_path / "built").iterdir()) == [
        "README.md",
        "instructor",
        "sources",
        "student",
    ]
    found = check([Path(row["instructor"])], lesson=str(tmp_path / "built" / "sources"), rerun=True, seconds=60)
    assert found["notebooks"][0]["findings"] == [] and found["exit_code"] == 0


def test_a_lesson_that_fails_is_not_built(tmp_path: Path) -> None:
    """E14: the instructor's version stops with the file, the line, the cell and the error."""
    path = tmp_path / "01_means.py"
    path.write_text(LESSON.read_text(encoding="utf-8").replace("total / len(values)", "total / 3"), encoding="utf-8")
    with pytest.raises(
        FirstlightError, match=r"01_means.py: line 48: cell 8 \(check mean\): AssertionError: the mean of 1, 2, 3 and 6 is 3"
    ):
        build_lessons([str(path)], out=tmp_path / "built", versions=["instructor"], console=QUIET)


def test_students_get_no_solution(tmp_path: Path) -> None:
    """E14: no line of any solution of any lesson stands in what is built for students, bundle included."""
    found = build_lessons(out=tmp_path, versions=["student"], bundle="zip", console=QUIET)
    assert len(found["lessons"]) == len(find_lessons()) > 0
    with zipfile.ZipFile(tmp_path / "firstlight-lessons.zip") as archive:
        for row in found["lessons"]:
            source = read_source(tmp_path / "sources" / f"{row['lesson']}.py")
            hidden = {line for cell in source.of_kind(*MARKED) for line in solution_lines(cell.source)}
            for text in (
                Path(row["student"]).read_text(encoding="utf-8"),
                archive.read(f"firstlight/lessons/{row['lesson']}.ipynb").decode(),
            ):
                shown = {
                    line.removeprefix("# ").strip() for cell in json.loads(text)["cells"] for line in "".join(cell["source"]).splitlines()
                }
                assert hidden and not hidden & shown


def assert_allowed(names: list[str]) -> None:
    assert all(name.isascii() and len(name) < 100 and not set(name) & set('<>:"|?*\\') and name.startswith("firstlight/") for name in names)
    assert len({name.lower() for name in names}) == len(names)
    stems = {Path(name).name.split(".")[0].lower() for name in names}
    assert not stems & {"aux", "con", "nul", "prn", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def test_names_in_a_bundle_are_allowed_everywhere(tmp_path: Path) -> None:
    """E15: ASCII, short, no characters that Windows refuses, no two names that differ in case alone; the same bytes each time."""
    first = build_lessons([str(LESSON)], out=tmp_path / "a", versions=["student"], bundle="zip", console=QUIET)
    again = build_lessons([str(LESSON)], out=tmp_path / "b", versions=["student"], bundle="zip", console=QUIET)
    archives = [Path(found["files"][1]) for found in (first, again)]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    names = zipfile.ZipFile(archives[0]).namelist()
    assert_allowed(names)
    assert len(names) == 3
    text = zipfile.ZipFile(archives[0]).read("firstlight/README.txt").decode()
    assert "\r\n" in text and "Windows" in text and "macOS" in text and "01_means.ipynb  Means" in text


def test_every_lesson_has_a_name_for_all_systems(tmp_path: Path) -> None:
    """E15: all lessons in one bundle, none with a name that a system refuses."""
    found = build_lessons(out=tmp_path, versions=["student"], bundle="colab", console=QUIET)
    with zipfile.ZipFile(tmp_path / "firstlight-colab.zip") as archive:
        names = archive.namelist()
    assert_allowed(names)
    assert len(names) == len(found["lessons"]) + 2


@pytest.mark.parametrize("name", ["Means", "my lesson", "l\u00e4ngen", "con", "lpt1", "a" * 51])
def test_a_name_that_a_system_refuses_is_not_built(name: str, tmp_path: Path) -> None:
    """E15: said before anything is written."""
    path = tmp_path / f"{name}.py"
    path.write_bytes(LESSON.read_bytes())
    with pytest.raises(ConfigError, match=r"a lesson's file is named in a-z, 0-9 and _, at most 50 characters.*; rename it"):
        build_lessons([str(path)], out=tmp_path / "built", versions=["student"], console=QUIET)
    assert not (tmp_path / "built").exists()


def test_two_lessons_of_one_name_are_not_built(tmp_path: Path) -> None:
    """E14: the second would take the place of the first."""
    path = tmp_path / LESSON.name
    path.write_bytes(LESSON.read_bytes())
    with pytest.raises(ConfigError, match="a second lesson of the name 01_means; rename it"):
        build_lessons([str(LESSON), str(path)], out=tmp_path / "built", versions=["student"], console=QUIET)


def test_the_colab_bundle_runs_from_its_mounted_folder(tmp_path: Path) -> None:
    """C12, E15: the first cell installs firstlight from the folder; data and runs are in it, also after a restart."""
    found = build_lessons([str(LESSON)], out=tmp_path, versions=["student"], bundle="colab", console=QUIET)
    with zipfile.ZipFile(found["files"][1]) as archive:
        archive.extractall(tmp_path / "drive")
    folder = tmp_path / "drive" / "firstlight"
    cells = json.loads((folder / "lessons" / "01_means.ipynb").read_text(encoding="utf-8"))["cells"]
    program = "".join(cells[0]["source"]) + "\nimport firstlight.notebooks.source as s; print(s.__file__, len(s.find_lessons()))"
    site = tmp_path / "site"
    offline = {"PIP_TARGET": str(site), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_UPGRADE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment = {name: value for name, value in os.environ.items() if name not in ("FIRSTLIGHT_DATA", "FIRSTLIGHT_RUNS", "PYTHONPATH")}
    environment |= {**offline, "FIRSTLIGHT_FOLDER": str(folder), "PYTHONPATH": str(site), "PIP_ROOT_USER_ACTION": "ignore"}
    steps = [
        'fl.train("quickstart", "model=linear", "train.epochs=1", "train.test_at_end=false", name="digits")',
        'fl.resume("digits", "train.epochs=2")',
    ]
    for step in steps:
        words = [sys.executable, "-c", f"{program}\nimport firstlight as fl\nprint(len({step}.epochs))"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (folder / "work" / "runs" / "digits" / "run.json").is_file()
    lines = done.stdout.splitlines()
    assert lines[-1] == "2", "the second process, which is a restart, did not go on with the run of the first"
    assert lines[:2] == [f"data: {folder / 'data'}", f"runs and pictures: {folder / 'work'}"]
    assert lines[2].startswith(str(site)) and (folder / "work").is_dir()


def test_the_wheel_holds_the_package_and_the_lessons(tmp_path: Path) -> None:
    """E15: every file of the package and every lesson, each with its digest in RECORD, as installers check it."""
    import base64
    import hashlib

    name, content = make_wheel()
    path = tmp_path / name
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        record = next(entry for entry in names if entry.endswith(".dist-info/RECORD"))
        for line in archive.read(record).decode().splitlines()[:-1]:
            entry, digest, size = line.rsplit(",", 2)
            data = archive.read(entry)
            assert len(data) == int(size)
            assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        for entry in names:
            if "/share/firstlight/lessons/" in entry:
                (tmp_path / Path(entry).name).write_bytes(archive.read(entry))
    assert {"firstlight/cli.py", "firstlight/configs/quickstart.yaml", "firstlight/data/digits.npz"} <= set(names)
    for path in find_lessons():  # a student's checker reads the same lesson, without a line of its solutions
        whole, handed_out = read_source(path), read_source(tmp_path / path.name)
        assert handed_out.digest == whole.digest and [blank(cell) for cell in handed_out.cells] == [blank(cell) for cell in whole.cells]
        shown = {line.removeprefix("# ").strip() for line in (tmp_path / path.name).read_text(encoding="utf-8").splitlines()}
        assert not shown & {line for cell in whole.cells for line in solution_lines(cell.source)}
    packed = {Path(entry).name for entry in names if "/share/firstlight/lessons/" in entry}
    assert packed == {path.name for path in find_lessons()} and not [entry for entry in names if "__pycache__" in entry]


def test_the_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """E14: title, minutes, what a lesson shows, and the data it would use here."""
    found = json.loads(command(capsys, "list", "--json", "--data-dir", str(tmp_path)))
    assert found["data"] == "digits" and [row["lesson"] for row in found["lessons"]] == [path.stem for path in find_lessons()]
    assert next(row["shows"] for row in found["lessons"] if row["lesson"] == "04_training_loop") == ["B5"]
    said = command(capsys, "list", "4", "--data-dir", str(tmp_path))
    assert "04_training_loop" in said and "run minutes" in said and "the 8x8 digits that come with firstlight" in said
