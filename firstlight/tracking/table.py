"""Rows as a table on stdout: aligned, sorted, and readable without colours."""

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

WIDE = 1000
"""Columns of a file or a pipe: no line of a table is broken there."""
GAP = 3
"""Characters between two columns."""


def sort_rows(rows: Rows, key: str) -> list[Mapping[str, Any]]:
    """Return the rows by falling `key`, those without a value last."""
    filled = [row for row in rows if row.get(key) is not None]
    return sorted(filled, key=lambda row: row[key], reverse=True) + [row for row in rows if row.get(key) is None]


def print_table(rows: Rows, columns: Sequence[str], *, decimals: Mapping[str, int] | None = None, may_drop: bool = False) -> None:
    """Print the chosen columns of the rows.

    decimals: of a column, where there are not four. may_drop: leave out the last columns on a terminal too narrow for all,
    and say so; otherwise long texts are folded.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = {column: [show(row.get(column), (decimals or {}).get(column, 4)) for row in rows] for column in columns}
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    shown = _fitting(cells, console.width) if may_drop else list(columns)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in shown:
        least = _least_width(column, cells[column]) if may_drop or _is_numeric(rows, column) else None
        table.add_column(
            column.replace("_", "\n" if may_drop and console.is_terminal else " "),
            justify="right" if _is_numeric(rows, column) else "left",
            overflow="fold",
            min_width=least,
        )
    for index in range(len(rows)):
        table.add_row(*(Text(cells[column][index]) for column in shown))
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip()))
    if missing := [column.replace("_", " ") for column in columns if column not in shown]:
        print(f"left out, the terminal is too narrow: {', '.join(missing)}")


def show(value: Any, decimals: int = 4) -> str:
    """Return a value as people read it: so many decimals below ten, thousands parted, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{decimals}f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_mflop(flops: float) -> str:
    """Return floating-point operations in millions: 71.4, 1,234.5, and of small networks 0.034."""
    return f"{flops / 1e6:,.1f}" if flops >= 1e6 else f"{flops / 1e6:.2g}"


def _fitting(cells: Mapping[str, list[str]], width: int) -> list[str]:
    """Return as many of the first columns as fit side by side, at least two."""
    fitting: list[str] = []
    used = 2 - GAP
    for column, texts in cells.items():
        used += GAP + _least_width(column, texts)
        if used > width and len(fitting) >= 2:
            break
        fitting.append(column)
    return fitting


def _least_width(column: str, texts: Sequence[str]) -> int:
    """Return the characters that a column needs when its heading is broken between words."""
    from rich.cells import cell_len

    return max(map(cell_len, [*column.split("_"), *texts]))


def _is_numeric(rows: Rows, column: str) -> bool:
    return any(isinstance(row.get(column), int | float) and not isinstance(row[column], bool) for row in rows)
