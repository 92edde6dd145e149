"""What the page of a run's inspections shows, as plain data: what RUN/inspection/*.json say, checked, for anyone may have written them.

Reading order: inspections_of, _confusion. A file says `what` it is, of which `split`, and under `says` what was found; one that no function
here knows is shown with its sentences and pictures.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from firstlight.files import finite
from firstlight.tracking.values import Tree, number, one_line, part, read_json, rows_of, texts

FOLDERS = ("inspection", "profile")
ORDER = ("confusion", "mistakes", "predictions", "calibration", "uncertainty", "embedding", "data", "activations", "health")
"""The order of what is shown; what is not named here comes last, by name."""
SPLITS = {"train": "training images", "val": "validation images", "test": "test images"}
LOOKS = ("confusion", "mistakes", "predictions", "uncertainty", "embedding", "health")
"""Inspections that a page proposes where they are missing."""
MAX_BYTES = 20_000_000
"""Largest file that is read."""
MAX_CLASSES = 250
MAX_ROWS = 200
PICTURES = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<"}
TABLES = (".csv", ".parquet")

Data = dict[str, Any]


def inspections_of(run: Path) -> list[Data]:
    """Return a section for each inspection and profile of a run folder, in the order of a page; a damaged one says so."""
    paths = [path for folder in FOLDERS for path in sorted((run / folder).glob("*.json"))]
    return [section for _, section in sorted(((_place(path), section_of(path)) for path in paths), key=lambda pair: pair[0])]


def missing_looks(run: Path) -> list[str]:
    """Return the inspections that a run does not have yet."""
    there = {path.stem.partition("-")[0] for path in (run / "inspection").glob("*.json")}
    return [look for look in LOOKS if look not in there]


def section_of(path: Path) -> Data:
    """Return what a file of figures says; `kind` tells the page how to draw it, with what under `drawn`."""
    found: Tree | str = f"{path.name} is too large to show" if _size(path) > MAX_BYTES else read_json(path)
    name = path.stem.partition("-")[0]
    section: Data = {
        "id": path.stem,
        "what": name,
        "title": _title(path.stem, None),
        "says": [],
        "warnings": [],
        "pictures": [],
        "tables": [],
    }
    if isinstance(found, str):
        return {**section, "kind": "damaged", "warnings": [found]}
    drawing = DRAWN.get(name)
    drawn = _safely(drawing, found, path.parent) if drawing is not None else None
    return finite(  # type: ignore[no-any-return]
        {
            **section,
            "title": _title(one_line(found.get("what") or name), found.get("split")),
            "split": found.get("split") if isinstance(found.get("split"), str) else None,
            "num_images": number(found.get("num_images")),
            "says": texts(found.get("says")),
            "warnings": [*texts(found.get("warnings")), *texts(found.get("remarks"))],
            "kind": name if drawn is not None else "pictures",
            "drawn": drawn,
            "pictures": _pictures(path, found),
            "tables": _files(path, found, TABLES),
        }
    )


def picture_path(run: Path, name: str) -> Path | None:
    """Return the path of a picture or table that an inspection left, looked up by its name in the folders; None where there is none."""
    for folder in FOLDERS:
        try:
            there = {path.name: path for path in (run / folder).iterdir() if path.suffix in (*PICTURES, *TABLES)}
        except OSError:
            continue
        if name in there and there[name].is_file() and not there[name].is_symlink():
            return there[name]
    return None


def _confusion(found: Tree, folder: Path) -> Data | None:
    """Return a confusion matrix with its classes, and how the images of its cells lie in their picture."""
    matrix = _counts(found.get("confusion"))
    if matrix is None:
        return None
    names = texts(found.get("class_names"))
    names = names if len(names) == len(matrix) else [str(place) for place in range(len(matrix))]
    return {
        "class_names": names,
        "matrix": matrix,
        "accuracy": number(found.get("accuracy")),
        "accuracy_interval": [number(end) for end in _list(found.get("accuracy_interval"))] or None,
        "classes": [dict(row) for row in rows_of(found.get("classes"))],
        "pairs": [dict(row) for row in rows_of(found.get("pairs"))][:MAX_ROWS],
        "cells": _cells(part(found, "cells"), len(matrix), folder),
        "calibration": _calibration(part(found, "calibration")),
        "selective": _selective(part(found, "selective")),
    }


def _counts(value: Any) -> list[list[int]] | None:
    """Return a square table of counts, or None for what is none."""
    rows = _list(value)
    if not 0 < len(rows) <= MAX_CLASSES or not all(isinstance(row, list) and len(row) == len(rows) for row in rows):
        return None
    if not all(isinstance(cell, int) and not isinstance(cell, bool) and cell >= 0 for row in rows for cell in row):
        return None
    return rows


COLUMNS = ("index", "label", "predicted", "probability")


def _cells(cells: Tree, num_classes: int, folder: Path) -> Data | None:
    """Return how the thumbnails of the images lie in their picture; None where it is not there or they do not fit together."""
    name = cells.get("picture")
    sizes = [cells.get(key) for key in ("columns", "tile_height", "tile_width")]
    columns = [_list(cells.get(key)) for key in COLUMNS]
    if not isinstance(name, str) or "\0" in name or Path(name).name != name or not _is_picture(folder / name):
        return None
    if not all(isinstance(size, int) and 0 < size <= 1024 for size in sizes) or len({len(column) for column in columns}) != 1:
        return None
    if not all(isinstance(at, int) and 0 <= at < num_classes for column in columns[1:3] for at in column):
        return None
    return {
        "picture": name,
        "columns": sizes[0],
        "tile_height": sizes[1],
        "tile_width": sizes[2],
        "images": [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)],
    }


def _calibration(found: Tree) -> Data | None:
    keys = ("above", "up_to", "images", "confidence", "accuracy")
    bins = [{key: number(row.get(key)) for key in keys} for row in rows_of(found.get("bins"))]
    if not bins:
        return None
    kept = {key: number(found.get(key)) for key in ("ece", "mce", "adaptive_ece", "brier", "nll", "overconfidence", "temperature")}
    ends = {key: {name: number(part(found, key).get(name)) for name in ("ece", "nll", "brier")} for key in ("before", "after")}
    return {**kept, **ends, "temperature_says": one_line(found.get("temperature_says") or ""), "bins": bins}


def _selective(found: Tree) -> Data | None:
    curve = [[number(row.get("coverage")), number(row.get("risk"))] for row in rows_of(found.get("curve"))]
    return {"says": one_line(found.get("says") or ""), "aurc": number(found.get("aurc")), "curve": curve} if curve else None


def _mistakes(found: Tree, folder: Path) -> Data | None:
    keys = ("index", "label", "predicted", "probability", "label_probability", "loss", "possible_label_error")
    rows = [
        {**{key: row.get(key) for key in keys}, "neighbours": [one_line(near.get("label")) for near in rows_of(row.get("neighbours"))]}
        for row in rows_of(found.get("mistakes"))[:MAX_ROWS]
    ]
    return {
        "num_mistakes": number(found.get("num_mistakes")),
        "rows": rows,
        "doubted": _list(found.get("possible_label_errors"))[:MAX_ROWS],
    }


def _uncertainty(found: Tree, folder: Path) -> Data | None:
    areas = {one_line(key): number(value) for key, value in part(found, "auroc").items()}
    means = part(found, "means")
    scores = [
        {"score": name, "auroc": area, **{side: number(part(means, name).get(side)) for side in ("right", "wrong")}}
        for name, area in areas.items()
    ]
    keys = ("image", "label", "predicted", "probability", "votes", "predictive_entropy", "mutual_information")
    rows = [{key: row.get(key) for key in keys} for row in rows_of(found.get("most_uncertain"))[:MAX_ROWS]]
    return {"scores": scores, "rows": rows, "num_passes": number(found.get("num_passes"))} if scores or rows else None


DRAWN: dict[str, Callable[[Tree, Path], Data | None]] = {"confusion": _confusion, "mistakes": _mistakes, "uncertainty": _uncertainty}


def _safely(make: Callable[[Tree, Path], Data | None], found: Tree, folder: Path) -> Data | None:
    """Return what `make` draws of a file; nothing where a foreign one breaks it: its sentences and pictures are shown all the same."""
    try:
        return make(found, folder)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _pictures(path: Path, found: Tree) -> list[Data]:
    """Return the pictures that a file names and that are there, each once though it be there as PNG and as SVG."""
    names = _files(path, found, tuple(PICTURES))
    whole = [name for name in names if _is_picture(path.parent / name)]
    stems = list(dict.fromkeys(name.rpartition(".")[0] for name in whole))
    chosen = [f"{stem}.svg" if f"{stem}.svg" in whole and _size(path.parent / f"{stem}.svg") < 300_000 else f"{stem}.png" for stem in stems]
    return [{"name": name, "about": name.rpartition(".")[0].replace("-", ", ").replace("_", " ")} for name in chosen if name in whole]


def _files(path: Path, found: Tree, suffixes: Sequence[str]) -> list[str]:
    """Return the names of the files that a file of figures names, which lie beside it wherever the run was moved to."""
    names = [Path(name).name for name in texts(found.get("files")) if "\0" not in name]
    return [name for name in dict.fromkeys(names) if Path(name).suffix in suffixes and (path.parent / name).is_file()]


def _is_picture(path: Path) -> bool:
    head = PICTURES.get(path.suffix)
    try:
        with path.open("rb") as handle:
            return head is not None and handle.read(len(head)) == head
    except OSError:
        return False


def _size(path: Path) -> float:
    try:
        return path.stat().st_size
    except OSError:
        return math.inf


def _place(path: Path) -> tuple[int, int, str]:
    what = path.stem.partition("-")[0]
    return (ORDER.index(what) if what in ORDER else len(ORDER), path.stem.count("-"), path.stem)


def _title(what: str, split: Any) -> str:
    name = what.replace("-", ", ").replace("_", " ")
    return name[:1].upper() + name[1:] + (f" ({SPLITS.get(split, one_line(split))})" if isinstance(split, str) else "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
