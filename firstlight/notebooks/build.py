"""Lessons as files to hand out: the students' notebooks, the instructor's with solutions and outputs, and bundles of them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from firstlight.data.places import data_dir_of
from firstlight.errors import ConfigError, FirstlightError
from firstlight.files import make_dir, write_bytes, write_text
from firstlight.notebooks.rerun import run
from firstlight.notebooks.source import Source, find_lessons, load_library, read_source
from firstlight.notebooks.student import to_notebook
from firstlight.tracking.console import Console

RESERVED = re.compile(r"aux|con|nul|prn|(com|lpt)[1-9]")
"""Names that Windows keeps for devices."""
Bundle = Literal["zip", "colab"]
SECONDS = 3_600
"""Time limit of a lesson's run; on two cores none takes half of it."""

README = """# Lessons, as built by `firstlight lessons build`

- `student/`: the notebooks to hand out. Solutions are taken out, outputs too; every other line is as in the lesson.
- `instructor/`: the same lessons with solutions and outputs: the solution set. Keep it.
- `sources/`: what both were made from, solutions and all. A hand-in is compared with it, also when firstlight's lessons have changed.
- `firstlight-lessons.zip` or `firstlight-colab.zip`, with `--bundle`: one file to hand out in the place of `student/`. It has the lessons
  that were named when it was built last, and firstlight itself.

To take in: put the handed-in notebooks into a folder `hand_ins` beside this file, go there, then

    firstlight lessons check hand_ins --lesson sources
    firstlight lessons check hand_ins --lesson sources --run

The first looks at the files. The second also runs each notebook twice, confined, and counts the points of the checks that passed.
Without `--lesson` each notebook is compared with the lesson of its name in the installed firstlight. Exit codes: 0 all good,
1 something was found, 3 a file cannot be read. All notebooks carry nbgrader's metadata (schema 3).
"""


def list_lessons(names: Sequence[str] = (), *, data_dir: Path | None = None) -> dict[str, Any]:
    """Return `lessons`, a row each: number, name, title, minutes, what it shows; and `data`, what they would run on here."""
    from firstlight.notebooks.lesson import data_here

    rows = [
        {
            "lesson": source.name,
            "title": source.title,
            "minutes": source.minutes,
            "shows": list(source.shows),
            "exercises": len(source.of_kind("exercise")),
            "points": sum(cell.points for cell in source.cells),
        }
        for source in map(read_source, find_lessons(tuple(names)))
    ]
    return {"lessons": rows, "data": data_here(data_dir), "data_dir": str(data_dir_of(data_dir))}


def print_lessons(found: dict[str, Any]) -> None:
    """Print a row a lesson, and the data that they would run on."""
    from firstlight.tracking.table import print_table

    rows = [{**row, "run_minutes": row["minutes"]} for row in found["lessons"]]
    print_table(rows, ("lesson", "title", "run_minutes", "exercises", "points"), decimals={"run_minutes": 0})
    here = (
        "MNIST" if found["data"] == "mnist" else "the 8x8 digits that come with firstlight: MNIST is not there, see `firstlight data fetch`"
    )
    print(f"\n{sum(row['minutes'] for row in found['lessons']):g} min to run. With {found['data_dir']} as data folder they use {here}.")


def build_lessons(
    names: Sequence[str] = (),
    *,
    out: Path = Path("built_lessons"),
    versions: Sequence[str] = ("student", "instructor"),
    size: Literal["small", "full"] = "full",
    bundle: Bundle | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write notebooks of these lessons, or of all, below `out`; return `lessons` with the files of each, and all `files`.

    versions: student, instructor or both. The instructor's is run from top to bottom, at this size, each in a temporary folder.
    bundle: also write one archive of the students' notebooks, plain or for Colab. Raises ConfigError for a source that is not as it
    should be, and FirstlightError, which names the cell, where one fails.
    """
    console = console or Console()
    sources = [read_source(path) for path in find_lessons(tuple(names))]
    _check_files([source.path for source in sources])
    rows = []
    for source in sources:
        row: dict[str, Any] = {"lesson": source.name, "title": source.title}
        write_bytes(make_dir(out / "sources") / source.path.name, source.path.read_bytes())
        for version in versions:
            row[version] = str(_write(source, version, out, size=size, data_dir=data_dir))
        console.line(f"{source.name}: {', '.join(versions)}")
        rows.append(row)
    write_text(out / "README.md", README)
    files = [row[version] for row in rows for version in versions]
    if bundle is not None:
        from firstlight.notebooks.bundle import write_bundle

        files.append(str(write_bundle(sources, out, kind=bundle)))
    return {"lessons": rows, "out": str(out), "files": [*files, str(out / "README.md")]}


def _check_files(paths: Sequence[Path]) -> None:
    """Refuse names that a system does not allow, or that would overwrite each other."""
    seen: set[str] = set()
    for path in paths:
        if not re.fullmatch(r"[a-z0-9_]{1,50}", path.stem) or RESERVED.fullmatch(path.stem):
            reserved = ", and not as Windows calls a device" if RESERVED.fullmatch(path.stem) else ""
            raise ConfigError(f"{path}: a lesson's file is named in a-z, 0-9 and _, at most 50 characters{reserved}; rename it")
        if path.stem in seen:
            raise ConfigError(f"{path}: a second lesson of the name {path.stem}; rename it, or name it once")
        seen.add(path.stem)


def print_built(found: dict[str, Any]) -> None:
    """Say what was written, and how hand-ins are checked."""
    print(f"lessons in {found['out']}: {len(found['lessons'])}; README.md there says what to hand out, and how to take in")
    archives = [path for path in found["files"] if path.endswith(".zip")]
    for path in archives:
        print(f"bundle: {path}")


def _write(source: Source, version: str, out: Path, *, size: str, data_dir: Path | None) -> Path:
    notebook = to_notebook(source, student=version == "student")
    if version == "instructor":
        notebook = _run(source, notebook, size=size, data_dir=data_dir)
    path = make_dir(out / version) / f"{source.name}.ipynb"
    write_text(path, load_library("nbformat").writes(notebook) + "\n")
    return path


def _run(source: Source, notebook: Any, *, size: str, data_dir: Path | None) -> Any:
    settings = {"FIRSTLIGHT_LESSON": size, "FIRSTLIGHT_DATA": str(data_dir_of(data_dir).resolve())}
    ran = run(notebook, settings=settings, seconds=SECONDS, confined=False)
    if ran.error:
        where = source.cells[ran.cell - 1]
        raise FirstlightError(f"{source.path}: line {where.line}: {where.label}: {ran.error}; run the file as a program to see all of it")
    return ran.notebook
