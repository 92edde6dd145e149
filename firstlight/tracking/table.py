"""Rows as a table on stdout: aligned, sorted, and readable without colours."""

from collections.abc import Mapping, Sequence
from typing import Any


def sort_rows(rows: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """Return the rows by falling `key`, those without a value last."""
    filled = [row for row in rows if row.get(key) is not None]
    return sorted(filled, key=lambda row: row[key], reverse=True) + [row for row in rows if row.get(key) is None]


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str | None = None) -> None:
    """Print the chosen columns of the rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(show(row.get(column))) for column in columns))
    console = Console()
    console.width = console.width if console.is_terminal else max(console.width, 160)
    console.print(table)


def show(value: Any) -> str:
    """Return a value as people read it: four decimals, thousands, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
