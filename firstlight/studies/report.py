"""The files that a study leaves for people: its table as CSV, its pictures, and its answer as JSON."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.files import write_figure, write_json, write_text
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.studies import plot_map, plot_response
from firstlight.studies.answer import Answer, answer, hparams, show_point
from firstlight.studies.space import Interval, Parameter
from firstlight.studies.store import Store
from firstlight.studies.study import OBJECTIVES, Study
from firstlight.tracking.run import Run

MAX_CURVES = 200
"""Runs whose curves are drawn on one graph; the best ones of more."""


def report(study: Study, store: Store) -> dict[str, Any]:
    """Write hparams.csv, answer.json and the pictures into the study's folder; return the answer as plain data with their paths."""
    rows = store.rows()
    found = answer(study, rows, _num_classes(store, rows))
    table = hparams(found)
    files = [store.path / "hparams.csv"]
    write_text(files[0], _csv(table))
    files += _pictures(found, store)
    facts = {
        "study": str(store.path),
        "trials": len(rows),
        "objective": study.objective,
        "best": None if found.best is None or found.best.objective is None else {"point": found.best.point, **vars(found.best.objective)},
        "findings": found.sentences(),
        "warnings": list(found.warnings),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
    }
    write_json(store.path / "answer.json", facts)
    return {**facts, "hparams": table, "files": [str(path) for path in files]}


def _pictures(found: Answer, store: Store) -> list[Path]:
    """Draw the curves of the trials, and the response to one parameter or the map of two."""
    drawn = [write_figure(store.path / "curves.png", plot_curves(_histories(found, store)))] if found.points else []
    numeric = list(found.study.space.parameters.items())
    if len(numeric) == 1:
        drawn.append(write_figure(store.path / "response.png", _response(found, *numeric[0])))
    if len(numeric) == 2:
        drawn.append(write_figure(store.path / "map.png", _map(found)))
    return drawn


def _histories(found: Answer, store: Store) -> dict[str, Any]:
    rows = [row for point in found.points for row in point.rows][:MAX_CURVES]
    return {f"{show_point(row['point'])} seed={row['seed']}": Run(store.path / row["trial"]).epochs for row in rows}


def _response(found: Answer, key: str, parameter: Parameter) -> Any:
    ordered = _ordered([point.point[key] for point in found.points])
    points = {repr(point.point[key]): point for point in found.points}
    chosen = [points[repr(value)] for value in ordered]
    return plot_response(
        ordered,
        [list(point.values().values()) for point in chosen],
        [float("nan") if point.objective is None else point.objective.high - point.objective.mean for point in chosen],
        parameter=key,
        objective=found.study.objective,
        log=_is_log(parameter, ordered),
        title=f"{found.study.name}: {found.study.objective} over {key}",
    )


def _map(found: Answer) -> Any:
    row_key, column_key = found.study.space.parameters
    rows, columns = (_ordered([point.point.get(key) for point in found.points]) for key in (row_key, column_key))
    means = np.full((len(rows), len(columns)), np.nan)
    for point in found.points:
        if point.objective is not None:
            means[rows.index(point.point.get(row_key)), columns.index(point.point.get(column_key))] = point.objective.mean
    return plot_map(
        rows,
        columns,
        means,
        names=(row_key, column_key),
        objective=found.study.objective,
        title=f"{found.study.name}: mean {found.study.objective} by {row_key} and {column_key}",
        higher_is_better=OBJECTIVES[found.study.objective] is max,
    )


def _ordered(values: list[Any]) -> list[Any]:
    """Return each value once: numbers by size, others as they came."""
    once = [value for index, value in enumerate(values) if value not in values[:index]]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in once)
    return sorted(once) if numbers else once


def _is_log(parameter: Parameter, values: list[Any]) -> bool:
    """Tell whether an axis shows the values best by their logarithm: a range says so, a list where it spans two powers of ten."""
    if isinstance(parameter, Interval):
        return parameter.log
    numbers = all(isinstance(value, int | float) and value > 0 for value in values)
    return numbers and max(values) >= 100 * min(values)


def _num_classes(store: Store, rows: list[dict[str, Any]]) -> int | None:
    for row in rows:
        data = Run(store.path / row["trial"]).info.get("data", {})
        if isinstance(names := data.get("class_names"), list):
            return len(names)
    return None


def _csv(table: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    if table:
        writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return buffer.getvalue()
