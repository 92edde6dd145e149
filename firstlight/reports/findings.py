"""What inspections and profiles left in a run: RUN/inspection/*.json and RUN/profile/*.json, each with its pictures, and its evaluations.

A file says `what` it is, of which `split`, and under `says` what was found; its other entries are figures and tables. So an inspection
that is new shows up here by itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstlight.reports.page import Section, Table, shortened
from firstlight.reports.pictures import read_pictures
from firstlight.reports.values import Tree, listed, number, one_line, read_json, rows_of, texts

ORDER = (
    "data", "evaluation", "predictions", "mistakes", "confusion", "uncertainty", "embedding", "activations", "health",
    "throughput", "memory", "summary",
)  # fmt: skip
"""The order of what is shown; what is not named here comes last, by name."""
HEAD = ("run", "what", "split", "says", "files", "warnings")
"""Entries that are no figures."""
SPLITS = {"train": "training images", "val": "validation images", "test": "test images"}
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
    what = path.stem.partition("-")[0]
    return (ORDER.index(what) if what in ORDER else len(ORDER), path.stem.count("-"), path.stem)


def _title(what: str, split: Any) -> str:
    name = what.replace("-", ", ").replace("_", " ")
    return name[:1].upper() + name[1:] + (f" ({SPLITS.get(split, one_line(split))})" if isinstance(split, str) else "")


def _figures(found: Tree, where: str) -> tuple[dict[str, Any], list[Table], list[str]]:
    """Return what is one value, what is a table, and remarks about what is neither."""
    facts: dict[str, Any] = {}
    tables: list[Table] = []
    remarks: list[str] = []
    for key, value in found.items():
        name = str(key).replace("_", " ").removeprefix("num ")
        if key in HEAD:
            continue
        if isinstance(value, Mapping):
            tables += [shortened(_rows_of_tree(value), name, where=where)] if value else []
        elif rows_of(value):
            rows = [{column: _cell(item) for column, item in list(row.items())[:MAX_COLUMNS]} for row in rows_of(value)]
            tables.append(shortened(rows, name, where=where))
        elif (matrix := _matrix(key, value, found)) is not None:
            tables.append(Table(rows=matrix, heading="confusion: rows are true classes, columns predicted ones"))
        elif not isinstance(value, list):
            facts[name] = value
        elif len(value) <= MAX_LIST and not any(isinstance(item, list) for item in value):
            facts[name] = listed([_cell(item) if isinstance(item, str) else _short(item) for item in value])
        else:
            remarks.append(f"{name}: {len(value):,} entries, in {where}")
    return facts, tables, remarks


def _rows_of_tree(tree: Tree) -> list[dict[str, Any]]:
    """Return a row an entry: its name and its value, or its values where it is a tree."""
    return [
        {"name": name, **{key: _cell(item) for key, item in list(value.items())[:MAX_COLUMNS]}}
        if isinstance(value, Mapping)
        else {"name": name, "value": _cell(value)}
        for name, value in tree.items()
    ]


def _matrix(key: str, value: Any, found: Tree) -> list[dict[str, Any]] | None:
    """Return a confusion matrix of few classes as a table."""
    if key != "confusion" or not isinstance(value, list) or not 0 < len(value) <= MAX_MATRIX or not all(isinstance(r, list) for r in value):
        return None
    classes = [str(row.get("class", index)) for index, row in enumerate(rows_of(found.get("classes")))]
    names = classes if len(classes) == len(value) else [str(index) for index in range(len(value))]
    return [{"true": name, **dict(zip(names, row, strict=False))} for name, row in zip(names, value, strict=True)]


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else one_line(value)[:200]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and number(value) is not None else one_line(value)
