"""The chapter of a study: its answer, its tables and pictures, what was asked, and its best run."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.errors import FirstlightError
from firstlight.reports.page import Chapter, Figure, Section, Table
from firstlight.reports.pictures import read_pictures
from firstlight.reports.run import chapter_of_run, safely
from firstlight.reports.values import duration, four
from firstlight.studies.report import revisit
from firstlight.studies.settings import show_point
from firstlight.tracking.run import Run
from firstlight.tracking.values import Tree, listed, one_line, part, read_json, rows_of, texts

MAX_TRIALS = 500
"""Rows of the table of trials; a page with more opens too slowly."""
ONLY_IN_FILE = ("difference", "difference_low", "difference_high", "p")
"""Columns of points.csv that the last one says in words."""
ABOUT = {
    "curves": "Curves of the trials on the same axes; those of the best point are black.",
    "response": "The objective over the parameter that was varied: each trial, and the mean of each value with its 95 % interval.",
    "map": "The mean objective of each pair of values; in the margins the best of each row and column.",
    "coverage": "Which values were tried, of the two parameters that mattered most.",
    "parallel": "Each line is a point: its value of every parameter, and its objective.",
    "importance": "How much each parameter mattered.",
}


def chapters_of_study(path: Path) -> list[Chapter]:
    """Return what there is to say of a study, and the chapter of its best run; its tables and pictures are made anew first."""
    try:
        found = revisit(str(path))
    except FirstlightError as error:
        return [Chapter(title=path.name, kind="Study", sections=[Section(title="Damaged", warnings=[str(error)])])]
    best = _best_run(path, found)
    parts: dict[str, Callable[[], Section | Sequence[Section]]] = {
        "Answer": lambda: _answer(found),
        "Pictures": lambda: _pictures(path, found),
        "Tables": lambda: _tables(found),
        "What was asked": lambda: _what_was_asked(path, best),
    }
    sections = [section for title, make in parts.items() for section in safely(title, make)]
    chapter = Chapter(title=path.name, kind="Study", sections=sections, hints=_hints(path, found))
    if best is None:
        return [chapter]
    of_best = chapter_of_run(best, "Best run")
    hints = {**of_best.hints, **{key: hint for key, hint in chapter.hints.items() if hint}}
    return [Chapter(title=chapter.title, kind=chapter.kind, sections=sections, hints=hints), of_best]


def _best_run(path: Path, found: Tree) -> Run | None:
    """Return the run of the best trial at the best point."""
    best = part(found, "best").get("point")
    trials = [row for row in rows_of(found["hparams"]) if best is not None and all(row.get(key) == value for key, value in best.items())]
    ended = [row for row in trials if row.get("state") == "finished"]
    return Run(path / Path(str(ended[0]["trial"])).name) if ended else None


def _answer(found: Tree) -> Section:
    trials, points, best = rows_of(found["hparams"]), rows_of(found["points"]), part(found, "best")
    states = Counter(str(row.get("state")) for row in trials)
    figures = []
    if best:
        low, high, at = four(best["low"]), four(best["high"]), show_point(best["point"])
        name = f"best {str(found['objective']).replace('_', ' ')}"
        below = f"95 % interval {low} to {high}, {best['n']} seeds, at {at}" if best["n"] > 1 else f"at {at}, one seed"
        figures.append(Figure(name=name, value=four(best["mean"]), below=below))
    figures.append(Figure(name="trials", value=f"{len(trials):,}", below=listed([f"{num} {state}" for state, num in states.items()])))
    figures.append(Figure(name="points", value=f"{len(points):,}", below=f"{len({row.get('seed') for row in trials})} seeds"))
    figures.append(Figure(name="time", value=duration(found["seconds"]), below="of training, all trials"))
    return Section(title="Answer", says=texts(found["findings"]), warnings=texts(found["warnings"]), figures=figures)


def _pictures(path: Path, found: Tree) -> list[Section]:
    sections = []
    for name in (Path(file) for file in texts(found["files"]) if file.endswith(".png")):
        pictures, remarks = read_pictures([path / name.name], ABOUT.get(name.stem, name.stem))
        sections.append(Section(title=name.stem.capitalize(), pictures=pictures, remarks=remarks))
    return sections


def _tables(found: Tree) -> list[Section]:
    trials, points = rows_of(found["hparams"]), rows_of(found["points"])
    sections = []
    if any(row.get("n", 0) != 1 for row in points):
        rest = f"the first {MAX_TRIALS} of {len(points):,} points; " if len(points) > MAX_TRIALS else ""
        rows = [{key: value for key, value in row.items() if key not in ONLY_IN_FILE} for row in points[:MAX_TRIALS]]
        remark = f"{rest}points.csv has all of them, and their differences with intervals"
        sections.append(Section(title="Points, with their spread over seeds", tables=[Table(rows=rows, remark=remark)]))
    rest = f"the first {MAX_TRIALS} of {len(trials):,} trials; all are in hparams.csv" if len(trials) > MAX_TRIALS else ""
    return [*sections, Section(title="Trials", tables=[Table(rows=trials[:MAX_TRIALS], remark=rest)])]


def _what_was_asked(path: Path, best: Run | None) -> Section:
    from firstlight.config.describe import tree_to_yaml

    known = read_json(path / "study.json")
    if isinstance(known, str):
        return Section(title="What was asked", warnings=[known])
    place = part(best.info, "environment") if best is not None else {}
    git = part(place, "git")
    facts = {
        "experiment": known.get("base"),
        "varied": "\n".join(f"{key}: {_entry(entry)}" for key, entry in part(known, "space").items()),
        "sampler": known.get("sampler"),
        "seeds": known.get("seeds"),
        "objective": known.get("objective"),
        "pruning": known.get("pruning"),
        "data": part(best.info, "data").get("source") if best is not None else None,
        "processor": place.get("cpu"),
        "versions": listed([f"Python {place['python']}", *(f"{name} {v}" for name, v in part(place, "packages").items())])
        if "python" in place
        else None,
        "commit": git.get("commit"),
        "folder": str(path),
    }
    budget = {key: value for key, value in {**part(known, "budget"), "seed": known.get("sampler_seed")}.items() if value is not None}
    keys = ("name", "base", "set", "space", "sampler", "pruning", "seeds", "objective")
    file = {key: known[key] for key in keys if known.get(key) not in (None, {})} | ({"budget": budget} if budget else {})
    code = {
        "To repeat it, save the study below as study.yaml, and": "firstlight sweep study.yaml",
        "study.yaml": tree_to_yaml(file),
        "The experiment, all settings": tree_to_yaml(part(known, "config")),
    }
    return Section(title="What was asked", facts={key: value for key, value in facts.items() if value}, code=code)


def _entry(entry: Any) -> str:
    return entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)


def _hints(path: Path, found: Tree) -> Mapping[str, str]:
    known, findings = read_json(path / "study.json"), texts(found["findings"])
    space = {} if isinstance(known, str) else part(known, "space")
    return {
        "question": f"Varied was {'; '.join(f'{key}: {one_line(_entry(entry))}' for key, entry in space.items())}." if space else "",
        "hyperparameters": "; ".join([*findings[:1], *(line for line in texts(found["warnings"]) if "end of its range" in line)]),
        "chance": "; ".join(findings[1:]),
    }
