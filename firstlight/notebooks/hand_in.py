"""Is a handed-in notebook whole, and did it run: what can be told from the file, and on request what a new run in a limited child tells.

Reading order: read.py, match.py, at_sight.py (the file alone), check; for a new run confine.py, execute.py, rerun.py, second_run.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError, DataError, FirstlightError
from firstlight.notebooks.at_sight import findings_of
from firstlight.notebooks.match import Finding
from firstlight.notebooks.read import Given, HandedIn, one_line, read_hand_in
from firstlight.notebooks.source import Cell, Source, find_lessons, read_source
from firstlight.tracking.console import Console

SECONDS = 1_800
"""Time limit of a run: no lesson takes longer on two cores."""
MOST = 600
"""Letters of a message."""


def check(
    paths: Sequence[Path], *, lesson: str | None = None, rerun: bool = False, seconds: float = SECONDS, data_dir: Path | None = None
) -> dict[str, Any]:
    """Judge notebook files: `notebooks`, one each, with `good`, its `findings` and its `lesson`; `exit_code` 0 good, 1 not, 3 unreadable.

    paths: files, or folders of them. lesson: a name, a file or a folder of files, where others than the installed lessons are meant.
    rerun: run each twice, confined, within `seconds` a run.
    """
    paths = [found for path in paths for found in (_notebooks_in(path) if path.is_dir() else [path])]
    rows = []
    for number, path in enumerate(paths, 1):
        if rerun:
            Console().line(f"running {number} of {len(paths)}, twice: {one_line(path, most=MOST)}")
        rows.append(_check_one(path, lesson, rerun=rerun, seconds=seconds, data_dir=data_dir))
    if not rows:
        raise ConfigError("no notebook was named; give files, or a folder with .ipynb files in it")
    code = 3 if any("unreadable" in row for row in rows) else 0 if all(row["good"] for row in rows) else 1
    return {"notebooks": rows, "exit_code": code}


def print_check(found: dict[str, Any]) -> None:
    """Print a line a notebook, and behind it one a finding."""
    for row in found["notebooks"]:
        for finding in row["findings"] if "unreadable" in row else ():
            print(f"{one_line(row['file'], most=MOST)}: {finding['line']}")
        if "unreadable" in row:
            print(f"error: {row['unreadable']}")
            continue
        of = f"lesson {row['lesson']}" if row["lesson"] else "no lesson of firstlight: order, outputs and errors alone were looked at"
        points = f", {row['points']} of {row['most_points']} points of its checks" if "points" in row else ", the file alone"
        print(f"{one_line(row['file'], most=MOST)}: {'good' if row['good'] else 'not good'} ({of}{points})")
        for finding in row["findings"]:
            print(f"  {finding['line']}")


def _notebooks_in(folder: Path) -> list[Path]:
    """Return the notebooks below a folder, without Jupyter's checkpoints and what macOS puts into archives."""
    found = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob("*.ipynb")))
    return [path for path, parts in found if not any(part.startswith(".") or part == "__MACOSX" for part in parts)]


def _check_one(path: Path, lesson: str | None, *, rerun: bool, seconds: float, data_dir: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(path), "lesson": None}
    found: list[Finding] = []
    try:
        hand_in = read_hand_in(path)
        source = _lesson_of(hand_in, lesson)
        row["lesson"] = source.name if source else None
        found += [*_other_version(hand_in, source), *findings_of(hand_in, source)]
        if rerun:
            from firstlight.notebooks.second_run import rerun_findings

            again, points = rerun_findings(hand_in, source, seconds=seconds, data_dir=data_dir)
            known = {given.number for given, _, _ in found if given is not None}
            found += [finding for finding in again if finding[0] is None or finding[0].number not in known]
            row |= points
    except ConfigError:
        raise
    except FirstlightError as error:
        row["unreadable"] = one_line(error, most=MOST)
    found.sort(key=lambda finding: finding[0].number if finding[0] else finding[1].number if finding[1] else 0)
    return {**row, "good": not found and "unreadable" not in row, "findings": [_row(*finding) for finding in found]}


def _other_version(hand_in: HandedIn, source: Source | None) -> list[Finding]:
    ours = hand_in.metadata.get("firstlight")
    digest = ours.get("source") if isinstance(ours, dict) else None
    if source is None or digest in (None, source.digest):
        return []
    what = f"was made from another version of {source.name}: give --lesson the folder `sources` that was built with it"
    return [(None, None, what)]


def _row(given: Given | None, cell: Cell | None, what: str) -> dict[str, Any]:
    name = f" ({cell.kind} {cell.name})" if cell and cell.name else ""
    where = f"cell {given.number}{name}" if given else f"cell {cell.number} of the lesson{name}" if cell else "the notebook"
    what = one_line(what, most=MOST)
    return {"cell": given.number if given else None, "name": cell.name if cell else "", "what": what, "line": f"{where}: {what}"}


def _lesson_of(hand_in: HandedIn, lesson: str | None) -> Source | None:
    """Return the lesson that a notebook belongs to: the one named, what its metadata or its cells' ids say, what its file is called."""
    folder = Path(lesson) if lesson is not None and Path(lesson).is_dir() else None
    if lesson is not None and folder is None:
        return read_source(find_lessons((lesson,))[0])
    known = {path.stem: path for path in (sorted(folder.glob("*.py")) if folder else find_lessons())}
    ours = hand_in.metadata.get("firstlight")
    named = str(ours.get("lesson", "")) if isinstance(ours, dict) else ""
    by_id = next((cell.id.rpartition("-")[0] for cell in hand_in.cells if cell.id.rpartition("-")[0] in known), "")
    by_file = next((name for name in known if name in hand_in.path.stem), "")
    found = next((name for name in (named, by_id, by_file) if name in known), None)
    if found is None and named:
        raise DataError(f"{hand_in.path}: made from a lesson {named[:60]!r} that is not here; say which with --lesson FILE")
    return read_source(known[found]) if found else None
