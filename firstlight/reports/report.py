"""The command: find what is named, make a chapter of each, write the page.

Reading order: report.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.engine.places import runs_dir_of
from firstlight.errors import ConfigError, RunNotFoundError
from firstlight.files import make_dir, write_text
from firstlight.reports.comparison import chapter_of_several
from firstlight.reports.page import Chapter, Report, render
from firstlight.reports.run import chapter_of_run, val_accuracy
from firstlight.reports.study import chapters_of_study
from firstlight.reports.writeup import answers_in, questions
from firstlight.tracking.run import Run

MAX_CHAPTERS = 12
"""Runs beside each other that have a chapter each; the best ones of more, so that a page of a hundred opens at once."""
SIGNS = ("run.json", "config.yaml", "metrics.jsonl")
"""What the folder of a run holds at least one of, be it half written."""


def report(*targets: str | Path, out: str | Path | None = None, runs_dir: str | Path | None = None) -> dict[str, Any]:
    """Write one HTML file about a run, a study, or several of them; return where it is and what is in it.

    targets: paths or names; out: default report.html in the folder of the run or study, of several in the current folder. What was written
    into the page that stands there is taken over. A damaged run is shown as such. Raises RunNotFoundError, ConfigError for `out`.
    """
    began = time.monotonic()
    if not targets:
        raise ConfigError("report needs a run or a study; `firstlight runs` lists the runs there are")
    places = list(dict.fromkeys(_find(target, runs_dir_of(runs_dir)) for target in targets))
    path = Path(out) if out is not None else (places[0] if len(places) == 1 else Path()) / "report.html"
    if path.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out {path} is no page; end it in .html")
    chapters, answers = _chapters(places), answers_in(path)
    title = f"Report on {places[0].resolve().name if len(places) == 1 else _number_of(places)}"
    asked = questions(chapters[0].hints, answers)
    made = time.strftime("on %d %B %Y at %H:%M")
    page = Report(title=title, file=path.name, chapters=chapters, questions=asked, author=answers.get("author", ""), made=made)
    make_dir(path.parent)
    write_text(path, text := render(page))
    sections = [
        {"chapter": chapter.title, "kind": chapter.kind, "sections": [one.title for one in chapter.sections]} for chapter in chapters
    ]
    found = {"report": str(path), "num_bytes": len(text.encode(errors="backslashreplace")), "seconds": round(time.monotonic() - began, 3)}
    return {**found, "chapters": sections, "answers": sorted(answers), "files": [str(path)]}


def print_report(result: dict[str, Any]) -> None:
    """Print what a report holds, and where it is."""
    for chapter in result["chapters"]:
        print(f"{chapter['kind']} {chapter['chapter']}: {', '.join(chapter['sections'])}")
    if result["answers"]:
        print(f"answers taken over from the page that stood there: {', '.join(result['answers'])}")
    print(f"\n{result['report']} ({result['num_bytes'] / 1e6:.2f} MB, {result['seconds']:.1f} s); open it in any browser")


def _find(target: str | Path, runs_dir: Path) -> Path:
    """Return the folder of a run or a study: the path, or else the one of that name in the folder of runs."""
    for path in (Path(target), runs_dir / target):
        if any((path / sign).is_file() for sign in ("study.json", *SIGNS)):
            return path
    raise RunNotFoundError(f"no run and no study at {target}; `firstlight runs` lists the runs there are, --runs-dir says where")


def _number_of(places: Sequence[Path]) -> str:
    """Return `3 runs and 1 study`."""
    num_studies = sum((path / "study.json").is_file() for path in places)
    num_runs = len(places) - num_studies
    runs = f"{num_runs} run{'s' * (num_runs > 1)}" if num_runs else ""
    studies = f"{num_studies} stud{'ies' if num_studies > 1 else 'y'}" if num_studies else ""
    return " and ".join(filter(None, (runs, studies)))


def _chapters(places: Sequence[Path]) -> list[Chapter]:
    runs = [Run(path) for path in places if not (path / "study.json").is_file()]
    shown = sorted(runs, key=lambda run: -(val_accuracy(run) or 0.0))[:MAX_CHAPTERS] if len(runs) > MAX_CHAPTERS else runs
    chapters = [chapter_of_several(runs, num_shown=len(shown))] if len(runs) > 1 else []
    for path in places:
        if (path / "study.json").is_file():
            chapters += chapters_of_study(path)
    return [*chapters, *map(chapter_of_run, shown)]
