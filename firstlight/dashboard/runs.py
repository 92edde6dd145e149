"""The first page: all runs, chosen by a query, sorted by any key, in pages of a hundred or by groups."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from firstlight.dashboard.index import Index
from firstlight.dashboard.query import PROPERTIES, Condition, column_of
from firstlight.dashboard.render import page
from firstlight.errors import ConfigError

PAGE = 100
"""Runs on one page."""
MAX_GROUPS = 300
"""Groups on one page."""
USUAL = (
    "state",
    "val_accuracy",
    "val_loss",
    "model.name",
    "data.name",
    "optim.lr",
    "train.epochs",
    "seed",
    "seconds",
    "started",
    "tag",
    "note",
)
"""The columns that are shown unless others are chosen, beside the name."""
MAX_SHOWN = 40
"""Columns that one can choose."""
FIGURES = (
    "val_accuracy", "val_loss", "train_accuracy", "train_loss", "test_accuracy", "test_loss", "best_epoch", "epoch", "epochs", "steps",
    "step", "seconds", "num_parameters", "flops_per_image",
)  # fmt: skip
HEADINGS = {"val_accuracy": "val accuracy", "val_loss": "val loss", "model.name": "model", "data.name": "data", "optim.lr": "lr"}
SHORT = {"train.epochs": "epochs", "train_accuracy": "train accuracy", "test_accuracy": "test accuracy", "test_loss": "test loss"}


@dataclass(frozen=True)
class View:
    """What a page of runs shows, as its address says."""

    query: str = ""
    sort: str = "started"
    descending: bool = True
    group: str = ""
    columns: tuple[str, ...] = ()
    number: int = 1

    def link(self, **changes: Any) -> str:
        """Return the address of the same page with other values."""
        values = {**self.__dict__, "number": 1, **changes}
        words = {"q": values["query"], "sort": values["sort"], "order": "" if values["descending"] else "asc", "group": values["group"]}
        words |= {"page": "" if values["number"] == 1 else values["number"]}
        pairs = [(key, value) for key, value in words.items() if value and (key, value) != ("sort", "started")]
        return "/?" + urlencode([*pairs, *(("show", key) for key in values["columns"])])


def read_view(words: Mapping[str, str], columns: list[str]) -> View:
    """Return the view that an address asks for; a page number that is none becomes 1."""
    number = words.get("page", "1")
    return View(
        query=words.get("q", "").strip(),
        sort=words.get("sort") or "started",
        descending=words.get("order", "desc") != "asc",
        group=words.get("group", ""),
        columns=tuple(dict.fromkeys(columns[:MAX_SHOWN])),
        number=int(number) if number.isdecimal() and len(number) < 10 and int(number) else 1,
    )


async def show_runs(request: Request) -> Response:
    """Show a page of runs, or of groups of runs."""
    index: Index = request.app.state.index
    view, problem = read_view(request.query_params, request.query_params.getlist("show")), None
    try:
        where = index.where(view.query)
        for key in (view.sort, *([view.group] if view.group else []), *view.columns):
            column_of(key, index.columns)
        if view.group == "id":
            raise ConfigError("runs cannot be grouped by their id; choose another setting")
    except ConfigError as error:
        problem, where, view = str(error), Condition(), View(query=view.query)
    num_all = index.count()
    num_found = index.count(where) if view.query else num_all
    values: dict[str, Any] = {"view": view, "problem": problem, "num_all": num_all, "num_found": num_found, "index": index}
    values |= {"keys": choices(index), "num_training": index.count(index.where("state=running"))}
    if num_all == 0:
        return page(request, "no_runs.html", **values)
    if view.group:
        figure = view.sort if view.sort in index.columns else best_figure(index)
        groups = index.groups(where, view.group, figure, num=MAX_GROUPS)
        return page(request, "groups.html", groups=groups, figure=figure, heading=heading, chosen=chosen(view), **values)
    shown = list(view.columns) or usual_columns(index, where)
    num_pages = max(-(-num_found // PAGE), 1)
    number = min(view.number, num_pages)
    options: dict[str, Any] = {"sort": view.sort, "descending": view.descending, "first": (number - 1) * PAGE, "num": PAGE}
    rows = index.runs(where, ["name", *dict.fromkeys(["state", *shown])], **options)
    numeric = {key for key in shown if all(isinstance(row[key], int | float | None) for row in rows)} - {"started"}
    values |= {"rows": rows, "shown": shown, "numeric": numeric, "number": number, "num_pages": num_pages, "heading": heading}
    return page(request, "runs.html", **values)


def usual_columns(index: Index, where: Condition) -> list[str]:
    """Return the columns that are shown when none are chosen."""
    return [key for key in USUAL if key in PROPERTIES or key in index.columns]


def choices(index: Index) -> dict[str, list[str]]:
    """Return all keys by kind, for menus."""
    keys = sorted(index.columns)
    figures = [key for key in FIGURES if key in index.columns]
    return {"run": list(PROPERTIES)[1:], "figures": figures, "settings": [key for key in keys if key not in figures]}


def best_figure(index: Index) -> str:
    """Return the figure by which groups are compared when none is chosen."""
    return next((key for key in ("val_accuracy", "train_accuracy", "val_loss") if key in index.columns), "started")


def chosen(view: View) -> Any:
    """Return a function that gives the address of the runs of one group."""

    def link(value: Any) -> str:
        text = "" if value is None else str(value).strip("\n")
        return view.link(query=f"{view.query} {shlex.quote(f'{view.group}={text}')}".strip(), group="")

    return link


def heading(key: str) -> str:
    """Return the heading of a column."""
    return HEADINGS.get(key) or SHORT.get(key) or key.replace("_", " ")
