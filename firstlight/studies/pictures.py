"""The pictures of a study, each made of what its answer holds; which of them make sense follows from what was varied."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from firstlight.plotting.parameters import Axis, plot_coverage, plot_importance, plot_parallel
from firstlight.plotting.studies import plot_map, plot_response
from firstlight.plotting.trials import plot_trials
from firstlight.studies.answer import Answer
from firstlight.studies.importance import Importance, importance
from firstlight.studies.settings import show_value
from firstlight.studies.space import Choice, Interval, Parameter, number_of
from firstlight.studies.store import Row, Store
from firstlight.studies.study import OBJECTIVES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CURVES = 200
"""Trials whose curves are drawn on one graph; the best ones of more."""
LABELS = {"val_accuracy": "validation accuracy (share of images)", "val_loss": "validation loss (nats)"}


def pictures(found: Answer, store: Store, beside: Answer | None = None) -> dict[str, Callable[[], "Figure"]]:
    """Return what draws each picture, by file name. beside: another study whose coverage is shown to the right.

    curves of all trials; the response to a single parameter; the map of two that form a grid; and of several parameters the coverage of
    two that are numbers (of a map only beside another study), parallel coordinates and importance.
    """
    if not found.points:
        return {}
    figures = mattered(found)
    chosen = figures.names if figures is not None else tuple(found.study.space.parameters)
    drawn: dict[str, Callable[[], Figure]] = {"curves.png": partial(_curves, found, store, chosen[0])}
    if len(found.study.space.parameters) == 1:
        return {**drawn, "response.png": partial(_response, found)}
    if len(found.study.space.parameters) == 2 and _is_grid(found):
        drawn["map.png"] = partial(_map, found)
    numbers = [key for key in chosen if axis_of(found, key).is_numeric and _is_whole(found, key)]
    if len(numbers) >= 2 and ("map.png" not in drawn or beside is not None):
        drawn["coverage.png"] = partial(_coverage, [found, *([beside] if beside is not None else [])], numbers[:2])
    drawn["parallel.png"] = partial(_parallel, found)
    if figures is not None:
        drawn["importance.png"] = partial(_importance, found, figures)
    return drawn


def mattered(found: Answer) -> Importance | None:
    """Return how much each parameter mattered, where that can be said."""
    done = [point for point in found.points if point.objective is not None]
    logs = {key: axis_of(found, key).log for key in found.study.space.parameters}
    return importance([point.point for point in done], [point.values() for point in done], logs)


def _curves(found: Answer, store: Store, parameter: str) -> "Figure":
    axis, rows = axis_of(found, parameter), found.rows[:MAX_CURVES]
    histories = [read_epochs(store, row) for row in rows]
    more = f" (the best of {len(found.rows)})" if len(found.rows) > MAX_CURVES else ""
    values = as_numbers([row["point"].get(parameter) for row in rows])
    if axis.is_numeric and None in values:
        values = [show_value(value) for value in values]
    return plot_trials(
        histories,
        values,
        num_best=len(found.points[0].rows),
        parameter=parameter,
        log=axis.log,
        title=f"{found.study.name}, {len(rows)} trials{more}",
    )


def read_epochs(store: Store, row: Row) -> list[dict[str, Any]]:
    """Return the rows of a trial's metrics that close an epoch; those of steps, a hundred times as many, are not looked at."""
    path = store.path / row["trial"] / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        if line.startswith('{"kind": "epoch"'):
            try:
                found.append(json.loads(line))
            except ValueError:  # torn by a kill
                break
    return found


def _response(found: Answer) -> "Figure":
    ((key, parameter),) = found.study.space.parameters.items()
    ordered = in_order([point.point[key] for point in found.points], parameter)
    points = {repr(point.point[key]): point for point in found.points}
    chosen = [points[repr(value)] for value in ordered]
    nothing = (float("nan"), float("nan"))
    return plot_response(
        as_numbers(ordered),
        [list(point.values().values()) for point in chosen],
        [nothing if point.objective is None else (point.objective.low, point.objective.high) for point in chosen],
        parameter=key,
        objective=LABELS[found.study.objective],
        log=axis_of(found, key).log,
        title=f"{found.study.name}: {found.study.objective} over {key}",
    )


def _map(found: Answer) -> "Figure":
    row_key, column_key = found.study.space.parameters
    rows, columns = (
        in_order([point.point.get(key) for point in found.points], known) for key, known in found.study.space.parameters.items()
    )
    means = np.full((len(rows), len(columns)), np.nan)
    for point in found.points:
        if point.objective is not None:
            means[rows.index(point.point.get(row_key)), columns.index(point.point.get(column_key))] = point.objective.mean
    return plot_map(
        as_numbers(rows),
        as_numbers(columns),
        means,
        names=(row_key, column_key),
        objective=found.study.objective,
        title=f"{found.study.name}: mean {found.study.objective} by {row_key} and {column_key}; in the margins the best of each",
        higher_is_better=OBJECTIVES[found.study.objective] is max,
    )


def _coverage(studies: Sequence[Answer], keys: Sequence[str]) -> "Figure":
    panels = [(f"{found.study.name} ({found.study.sampler})", axis_of(found, keys[0]), axis_of(found, keys[1])) for found in studies]
    return plot_coverage(panels)


def _parallel(found: Answer) -> "Figure":
    return plot_parallel(
        [axis_of(found, key) for key in found.study.space.parameters],
        [None if point.objective is None else point.objective.mean for point in found.points],
        name=found.study.objective,
        higher_is_better=OBJECTIVES[found.study.objective] is max,
        title=found.study.name,
    )


def _importance(found: Answer, figures: Importance) -> "Figure":
    return plot_importance(
        figures.names,
        figures.shares,
        figures.low,
        figures.high,
        chance=figures.chance,
        remark=f"{figures.method}\n{figures.remark}",
        title=f"{found.study.name}: how much each parameter mattered for {found.study.objective}",
    )


def axis_of(found: Answer, key: str) -> Axis:
    """Return the values of a parameter at all points, best first, as an axis shows them."""
    values = as_numbers([point.point.get(key) for point in found.points])
    shown = values if Axis(key, values).is_numeric else [None if value is None else show_value(value) for value in values]
    return Axis(key, shown, _is_log(found.study.space.parameters[key], values))


def _is_whole(found: Answer, key: str) -> bool:
    return all(key in point.point and point.point[key] is not None for point in found.points)


def _is_grid(found: Answer) -> bool:
    """Tell whether the points fill at least half of the cells that their values make."""
    cells = 1
    for key in found.study.space.parameters:
        cells *= len({repr(point.point.get(key)) for point in found.points})
    return 2 * len(found.points) >= cells


def in_order(values: list[Any], parameter: Parameter) -> list[Any]:
    """Return each value once: numbers by size, others as the study lists them."""
    once = [value for index, value in enumerate(values) if value not in values[:index]]
    if all(number_of(value) is not None for value in once):
        return sorted(once)
    listed = list(parameter.values) if isinstance(parameter, Choice) else []
    return sorted(once, key=lambda value: listed.index(value) if value in listed else len(listed))


def as_numbers(values: list[Any]) -> list[Any]:
    """Return lists of one number as that number where all values are such or missing; others as text or as they are."""
    if all(value is None or number_of(value) is not None for value in values):
        return [number_of(value) for value in values]
    return [_label(value) if isinstance(value, list | dict) else value for value in values]


def _label(value: Any) -> str:
    """Return a list or a kind as an axis shows it: `sgd lr=0.1`."""
    if not isinstance(value, dict):
        return show_value(value)
    return " ".join(show_value(item) if key == "name" else f"{key}={show_value(item)}" for key, item in value.items())


def _is_log(parameter: Parameter, values: list[Any]) -> bool:
    """Tell whether an axis shows the values best by their logarithm: a range says so, a list where it spans two powers of ten."""
    if isinstance(parameter, Interval):
        return parameter.log
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return bool(numbers) and len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= 100 * min(numbers)
