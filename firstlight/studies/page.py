"""The table of a study as one HTML file: sortable by a click, readable without a network, every text escaped.

A report is made of the same tables.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from firstlight.studies.settings import show_value

Rows = Sequence[Mapping[str, Any]]

LARGE = 1000
"""Figures from here on have no decimals to read."""
LONG = 60
"""Letters from which on a text is broken into lines."""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #111; background: #fff }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .7rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }}
td.number, th.number {{ text-align: right }}
td.says {{ white-space: normal; min-width: 24rem }}
th button {{ font: inherit; font-weight: 600; border: 0; background: none; cursor: pointer; padding: 0; color: #0b4f79 }}
th[aria-sort=ascending] button::after {{ content: " \\25b2" }}
th[aria-sort=descending] button::after {{ content: " \\25bc" }}
.warning {{ border-left: 4px solid #d55e00; padding-left: .6rem }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #eee; background: #161616 }} th, td {{ border-color: #444 }} th button {{ color: #7cc4f0 }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
"""

SORT = """
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th").forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
      const order = isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
      return up ? order : -order;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }));
}
"""
"""The script that sorts the tables of a page by a click on a column's name."""


def study_page(title: str, *, findings: Sequence[str], warnings: Sequence[str], tables: Sequence[tuple[str, Rows]]) -> str:
    """Return the page: what was found, what to be wary of, and the tables, each with its heading; a click on a column sorts by it."""
    parts = [HEAD.format(title=escape(title))]
    parts += [f"<p>{escape(line)}</p>\n" for line in findings]
    parts += [f'<p class="warning">Warning: {escape(line)}</p>\n' for line in warnings]
    parts += [f"<h2>{escape(heading)}</h2>\n{table(rows)}" for heading, rows in tables if rows]
    return "".join(parts) + f"<script>{SORT}</script>\n</body>\n</html>\n"


def table(rows: Rows) -> str:
    """Return rows as a table in HTML, which scrolls by itself where it is wide; a row may lack a column. All text is escaped."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = {column for column in columns if {_is_number(row.get(column)) for row in rows if row.get(column) is not None} == {True}}
    heads = "".join(
        f'<th scope="col"{_class(column, numeric)}><button type="button">{escape(column.replace("_", " "))}</button></th>'
        for column in columns
    )
    body = "".join("<tr>" + "".join(_cell(column, row.get(column), numeric) for column in columns) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def _cell(column: str, value: Any, numeric: set[str]) -> str:
    sorted_by = "" if value is None or is_not_finite(value) else str(value)
    shown = show_cell(value, places=4 if column.startswith("val_") else None)
    says = len(shown) > LONG and column not in numeric
    kind = ' class="says"' if says else _class(column, numeric)
    return f'<td{kind} data-value="{escape(sorted_by)}">{escape(shown)}</td>'


def _class(column: str, numeric: set[str]) -> str:
    return ' class="number"' if column in numeric else ' class="says"' if column == "says" else ""


def show_cell(value: Any, places: int | None = None) -> str:
    """Return a value as a page shows it: a dash for none, numbers that broke by name. places: decimals of a number that is not large."""
    if value is None:
        return "-"
    if is_not_finite(value):
        return "not finite"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) >= LARGE * 10:
        return f"{value:,}"
    return f"{value:.{places}f}" if places is not None and _is_number(value) and abs(value) < LARGE else show_value(value)


def is_not_finite(value: Any) -> bool:
    """Tell whether a value is NaN or an infinity."""
    return isinstance(value, float) and not math.isfinite(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
