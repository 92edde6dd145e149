"""The parts of a report as plain data, and the page that is made of them.

Reading order: Report, render. templates/report.html escapes every text it is given.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from firstlight.studies.page import SORT, show_cell, table

if TYPE_CHECKING:
    from jinja2 import Environment

Rows = Sequence[Mapping[str, Any]]

MAX_ROWS = 100
"""Rows of a table that a page shows; all of more stand in the file that its remark names."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that lies in the page itself. source: a data URI; about: what it shows, in words."""

    source: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a heading. remark: what is left out."""

    rows: Rows
    heading: str = ""
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One thing that a report tells; what is empty is left out.

    says: sentences; figures: large numbers with their names and what stands below; facts: names and values; code: texts to copy, by
    their heading; remarks: what is small.
    """

    title: str
    says: Sequence[str] = ()
    warnings: Sequence[str] = ()
    figures: Sequence["Figure"] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    on_screen: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number that stands out: what it is, `0.9931`, and its spread."""

    name: str
    value: str
    below: str = ""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What a report says of one run, one study, or of several side by side. hints: figures for the write-up, by question."""

    title: str
    kind: str
    sections: Sequence[Section]
    hints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question of the write-up. hint: figures to begin from; answer: what was written already."""

    key: str
    text: str
    hint: str = ""
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole page. file: the name under which it is saved; author: who hands it in."""

    title: str
    file: str
    chapters: Sequence[Chapter]
    questions: Sequence[Question]
    author: str = ""
    made: str = ""


def render(report: Report) -> str:
    """Return the page as HTML. It loads nothing from outside, and runs no script but its own two."""
    environment = _environment()
    script = SORT + environment.get_template("report.js").render()
    style = environment.get_template("report.css").render()
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    return environment.get_template("report.html").render(report=report, style=style, script=script, policy=policy)


def shortened(rows: Rows, heading: str = "", *, where: str = "") -> Table:
    """Return a table of the first MAX_ROWS rows, which says how many there are and where the rest stands."""
    if len(rows) <= MAX_ROWS:
        return Table(rows=rows, heading=heading)
    return Table(rows=rows[:MAX_ROWS], heading=heading, remark=f"the first {MAX_ROWS} of {len(rows):,} rows; all are in {where}")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("firstlight.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": show_cell, "table": lambda rows: Markup(table(rows))}  # table escapes what it is given
    return environment


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
