"""The files that a study leaves for people: its tables as CSV and HTML, its pictures, and its answer as JSON.

Reading order: report, revisit.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from firstlight.engine.places import runs_dir_of
from firstlight.errors import FirstlightError, RunNotFoundError, StorageError
from firstlight.files import write_figure, write_json, write_text
from firstlight.studies.answer import Answer, answer, hparams, point_rows
from firstlight.studies.compare import compare_groups
from firstlight.studies.page import study_page
from firstlight.studies.pictures import mattered, pictures
from firstlight.studies.points import is_finished
from firstlight.studies.settings import parse_setting
from firstlight.studies.space import parse_space
from firstlight.studies.store import Row, Store, info_of
from firstlight.studies.study import Study
from firstlight.tracking.csv_table import harmless

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of a study beside its answer.

    interval: `t` or `bootstrap`, else what the study says; against: a point, `KEY=VALUE ...`, with which all are compared, else the best;
    compare: pairs of settings; beside: another study, whose coverage is drawn beside this one's.
    """

    interval: str | None = None
    against: str | None = None
    compare: Sequence[tuple[str, str]] = ()
    beside: Path | None = None


@dataclass
class _Written:
    """Files that were written, and why others were not: a study is never lost for want of a picture."""

    files: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def write(self, path: Path, action: Callable[[], object]) -> None:
        """Carry out what writes `path`; where it cannot be drawn or stored, that is a warning."""
        try:
            action()
            self.files.append(path)
        except StorageError as error:
            self.warnings.append(f"{error}; `firstlight study {path.parent}` makes it again")
        except Exception as error:
            self.warnings.append(f"{path.name} was not made: {type(error).__name__}: {' '.join(str(error).split())}")


def report(study: Study, store: Store, questions: Questions | None = None) -> dict[str, Any]:
    """Write tables, pages and pictures into the study's folder; return the answer as plain data with their paths.

    hparams.csv and hparams.html: a row a trial, by falling validation accuracy; points.csv: a row a point with its interval and its
    comparison with the best; answer.json; pictures. Raises ConfigError for a question about a point that the study does not have.
    """
    asked = questions or Questions()
    rows = store.rows()
    against = None if asked.against is None else parse_setting(asked.against, "--against")
    interval = asked.interval or study.interval
    found = answer(study, rows, num_classes_of(store, rows), interval=interval, against=against)
    compared = [compare_groups(found, parse_setting(a, "--compare"), parse_setting(b, "--compare")) for a, b in asked.compare]
    beside = None if asked.beside is None else _answer_of(Store(asked.beside), interval)
    table, points, written = hparams(found), point_rows(found), _Written()
    findings = [*found.sentences(), *(line for comparison in compared for line in comparison["says"])]
    tables = [("Trials", table)] if study.seeds == 1 else [("Points, with their spread over seeds", points), ("Trials", table)]
    page = study_page(study.name, findings=findings, warnings=found.warnings, tables=tables)
    places = {name: store.path / name for name in ("hparams.csv", "hparams.html", "points.csv", "answer.json")}
    written.write(places["hparams.csv"], lambda: write_text(places["hparams.csv"], to_csv(table)))
    written.write(places["hparams.html"], lambda: write_text(places["hparams.html"], page))
    if study.seeds > 1 or any(len(point.rows) > 1 for point in found.points):
        written.write(places["points.csv"], lambda: write_text(places["points.csv"], to_csv(points)))
    for name, draw in pictures(found, store, beside).items():
        path = store.path / name
        written.write(path, lambda path=path, draw=draw: write_figure(path, draw()))  # type: ignore[misc]
    facts = {**_facts(found, store), "findings": findings, "compared": compared, "warnings": [*found.warnings, *written.warnings]}
    with suppress(StorageError):  # it is printed all the same
        write_json(places["answer.json"], facts)
    return {**facts, "points": points, "hparams": table, "files": [str(path) for path in written.files]}


def revisit(study: str, questions: Questions | None = None, *, runs_dir: str | Path | None = None) -> dict[str, Any]:
    """Make the report of a study again from its folder alone, and answer more questions about it; nothing is trained.

    study: a path, or a name in the folder of runs. Raises RunNotFoundError where no study stands there.
    """
    store = find_study(study, runs_dir)
    asked = questions or Questions()
    if asked.beside is not None:
        asked = Questions(**{**vars(asked), "beside": find_study(str(asked.beside), runs_dir).path})
    return report(study_of(store), store, asked)


def find_study(name: str, runs_dir: str | Path | None = None) -> Store:
    """Return the folder of a study: the path, or else the one of that name in the folder of runs. Raises RunNotFoundError."""
    inside = runs_dir_of(runs_dir) / name
    path = inside if not (Path(name) / "study.json").is_file() and (inside / "study.json").is_file() else Path(name)
    if not (path / "study.json").is_file():
        kind = "it is a run: `firstlight runs` shows it" if (path / "run.json").is_file() else "`firstlight sweep STUDY` makes one"
        raise RunNotFoundError(f"no study at {path}; {kind}, --runs-dir says where to look")
    return Store(path)


def study_of(store: Store) -> Study:
    """Return the study that study.json describes, for reading: its experiment is not looked for again. Raises RunNotFoundError."""
    known = store.definition()
    try:
        space = parse_space(known["space"], needs_grid=False)
        names = {key: known[key] for key in ("name", "base", "sampler", "seeds", "objective")}
        names["interval"] = known.get("interval", "t")  # unknown to older studies
        return Study(**names, fixed=known["set"], space=space, entries=known["space"])
    except (KeyError, TypeError, AttributeError, FirstlightError) as error:
        what = " ".join(str(error).split())
        raise RunNotFoundError(f"{store.path / 'study.json'} is damaged ({what}); take it from a copy, or run the study anew") from error


def to_csv(table: Rows) -> str:
    """Return rows as CSV with a heading; nothing for none."""
    buffer = io.StringIO()
    if table:
        writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in table)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else harmless(value) if isinstance(value, str) else value


def _facts(found: Answer, store: Store) -> dict[str, Any]:
    best, importance = found.best, mattered(found)
    return {
        "study": str(store.path),
        "trials": len(found.rows),
        "objective": found.study.objective,
        "best": None if best is None or best.objective is None else {"point": best.point, **vars(best.objective)},
        "seconds": round(sum(row["seconds"] for row in found.rows), 3),
        "importance": None if importance is None else asdict(importance),
    }


def _answer_of(store: Store, interval: str) -> Answer:
    return answer(study_of(store), store.rows(), interval=interval)


def num_classes_of(store: Store, rows: Sequence[Row]) -> int | None:
    """Return the classes that the trials tell apart, from the first run that says so."""
    for row in filter(is_finished, rows):
        data = info_of(store.path / row["trial"]).get("data")
        if isinstance(data, dict) and isinstance(names := data.get("class_names"), list):
            return len(names)
    return None
