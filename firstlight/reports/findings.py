"""What inspections and profiles left in a run: RUN/inspection/*.json and RUN/profile/*.json, each with its pictures, and its evaluations.

A file says `what` it is, of which `split`, and under `says` what was found; its other entries are figures and tables. So an inspection
that is new shows up here by itself.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstlight.reports.page import Section, Table, shortened
from firstlight.reports.pictures import read_pictures
from firstlight.tracking.values import Tree, listed, number, one_line, read_json, rows_of, texts

ORDER = (
    "data", "compare", "warmup", "evaluation", "predictions", "image", "mistakes", "confusion", "uncertainty", "embedding",
    "activations", "health", "throughput", "memory", "summary",
)  # fmt: skip
"""The order of what is shown; what is not named here comes last, by name."""
HEAD = ("run", "what", "split", "says", "files", "warnings", "remarks", "cells")
"""Entries that are no figures of a report; `cells` are the images behind a confusion matrix, which the dashboard shows."""
SPLITS = {"train": "training images", "val": "validation images", "test": "test images", "file": "an image file"}
MAX_COLUMNS = 16
MAX_MATRIX = 20
"""Classes up to which a confusion matrix is written out."""
MAX_LIST = 12
"""Numbers of a list that are written out."""


def findings(run: Path) -> list[Section]:
    """Return a section for each file that an evaluation, an inspection or a profile left in a run; a damaged one says so."""
    paths = [*run.glob("evaluation-*.json"), *(path for folder in ("inspection", "profile") for path in run.glob(f"{folder}/*.json"))]
    return [section for _, section in sorted(((_place(path), section_of(path)) for path in paths), key=lambda pair: pair[0])]


def section_of(path: Path) -> Section:
    """Return what a file of figures says, with the pictures that it names; those lie beside it, wherever the run was moved to."""
    found = read_json(path)
    if isinstance(found, str):
        return Section(title=_title(path.stem, None), warnings=[found])
    says = texts(found.get("says"))
    files = [path.parent / Path(name).name for name in texts(found.get("files")) if "\0" not in name]
    pictures, remarks = read_pictures(files, says[0] if says else _title(path.stem, None))
    kept = [f"{path.parent.name}/{file.name}" for file in files if file.suffix == ".csv" or file.suffix == ".parquet"]
    facts, tables, more = _figures(found, f"{path.parent.name}/{path.name}")
    return Section(
        title=_title(str(found.get("what") or path.stem.partition("-")[0]), found.get("split")),
        says=says,
        warnings=texts(found.get("warnings")),
        facts=facts,
        pictures=pictures,
        tables=tables,
        remarks=[*remarks, *more, *([f"All rows: {', '.join(kept)} in the run's folder."] if kept else [])],
    )


def says_of(run: Path, *whats: str) -> str:
    """Return the sentences of the inspections that have one of these names."""
    said = []
    for what in whats:
        for path in sorted(run.glob(f"*/{what}*.json")):
            found = read_json(path)
            said += [] if isinstance(found, str) else texts(found.get("says"))
    return "; ".join(said)


def _place(path: Path) -> tuple[int, int, str]:
    what = re.split("[-_]", path.stem)[0]  # image_17-val
    return (ORDER.index(what) if what in ORDER else len(ORDER), path.stem.count("-"), path.stem)


def _title(what: str, split: Any) -> str:
    name = what.replace("-", ", ").replace("_", " ")
    return name[:1].upper() + name[1:] + (f" ({SPLITS.get(split, one_line(split))})" if isinstance(split, str) else "")


def _figures(found: Tree, where: str) -> tuple[dict[str, Any], list[Table], list[str]]:
    """Return what is one value, what is a table, and remarks about what is neither."""
    facts: dict[str, Any] = {}
    tables: list[Table] = []
    remarks: list[str] = texts(found.get("remarks"))
    for key, value in found.items():
        name = str(key).replace("_", " ").removeprefix("num ")
        if key in HEAD or value in ([], {}):
            continue
        if isinstance(value, Mapping):
            tables += _tables_of(name, value, where)
        elif rows_of(value):
            tables.append(_table_of(name, value, where))
        elif (matrix := _matrix(key, value, found)) is not None:
            tables.append(Table(rows=matrix, heading="confusion: rows are true classes, columns predicted ones"))
        elif not isinstance(value, list):
            facts[name] = value
        elif len(value) <= MAX_LIST and not any(isinstance(item, list) for item in value):
            facts[name] = listed([_short(item) for item in value])
        else:
            remarks.append(f"{name}: {len(value):,} entries, in {where}")
    return facts, tables, remarks


def _table_of(name: str, rows: Any, where: str) -> Table:
    cells = [{column: _cell(item) for column, item in list(row.items())[:MAX_COLUMNS]} for row in rows_of(rows)]
    return shortened(cells, name, where=where)


def _tables_of(name: str, tree: Tree, where: str) -> list[Table]:
    """Return a tree as tables: its values, a row each; trees within it that are alike, a row each; and what else lies in it."""
    trees = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    values = {key: value for key, value in tree.items() if key not in trees and not rows_of(value)}
    alike = len({tuple(value) for value in trees.values()}) == 1 and not any(
        isinstance(v, Mapping) for t in trees.values() for v in t.values()
    )
    found = [shortened([{"name": key, "value": _cell(value)} for key, value in values.items()], name, where=where)] if values else []
    if alike:
        heading = name if not values else f"{name}, {listed(list(trees))}"
        found.append(_table_of(heading, [{"name": key, **value} for key, value in trees.items()], where))
    else:
        found += [table for key, value in trees.items() for table in _tables_of(f"{name}, {key}", value, where)]
    return found + [_table_of(f"{name}, {key}", value, where) for key, value in tree.items() if rows_of(value)]


def _matrix(key: str, value: Any, found: Tree) -> list[dict[str, Any]] | None:
    """Return a confusion matrix of few classes as a table."""
    if key != "confusion" or not isinstance(value, list) or not 0 < len(value) <= MAX_MATRIX or not all(isinstance(r, list) for r in value):
        return None
    classes = [str(row.get("class", index)) for index, row in enumerate(rows_of(found.get("classes")))]
    names = classes if len(classes) == len(value) else [str(index) for index in range(len(value))]
    return [{"true class": name, **dict(zip(names, row, strict=False))} for name, row in zip(names, value, strict=True)]


def _cell(value: Any) -> Any:
    """Return a value for a cell of a table; what is long or deep is only counted there."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping) or len(value) > MAX_LIST or any(isinstance(item, list | Mapping) for item in value):
        return f"{len(value):,} entries"
    return listed([_short(item) for item in value])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and number(value) is not None else one_line(value)
