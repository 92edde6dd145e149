"""Runs as rows of one SQLite table, to be chosen, sorted and grouped.

A column is a property, a setting or a figure. A setting that all runs share has no column: it is written down once, with the keys, and gets
its column when the first run differs. Among many runs most settings are shared, and narrow rows are read three times as fast.
Reading order: RunTable.write, RunTable.runs, RunTable.groups.
"""

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from firstlight.dashboard.query import PROPERTIES as QUERIED
from firstlight.dashboard.query import SEARCHED, Condition, column_of, parse_query
from firstlight.errors import FirstlightError
from firstlight.files import cache_dir, make_dir, remove, sha256

MAX_KEYS = 800
"""Keys that can be sorted by; SQLite allows 2,000 columns."""
MANY = 5000
"""Runs from which on sorting and choosing need an index of SQLite's."""
MAX_INDEXES = 60
MAX_ANSWERS = 200
"""Counts and groups that are remembered until a run changes; of 100,000 runs with rates of their own, groups take 0.15 s."""
USUAL_ORDER = ("started", "name", "state", "study", "val_accuracy", "val_loss", "optim.lr", "model.name", "data.name", "seed")
"""Keys that get an index as soon as there are many runs; others when they are first asked for."""
COLUMNS = {
    "id": "TEXT PRIMARY KEY", "path": "BLOB", "stamp": "INTEGER", "name": "TEXT", "study": "TEXT", "state": "TEXT", "started": "REAL",
    "notes": "TEXT", "tags": "TEXT", "warnings": "INTEGER", "damage": "TEXT", "report": "REAL",
}  # fmt: skip
"""The properties of a run; a setting or a figure is a column f0, f1, ... by its number among the keys."""
FORMAT = crc32(repr(("2", COLUMNS)).encode()) >> 1
"""Of the file; one of another format is made anew."""
_COLUMN = re.compile("f[0-9]+")


@dataclass(frozen=True)
class Found:
    """A run or a study that is known: its id in addresses, and its folder."""

    id: str
    path: Path
    name: str


class RunTable:
    """The table of the runs below `runs_dir`. cache: the file that keeps it, by default one in the user's cache folder.

    A damaged file is made anew; one that cannot be written, or that another server holds, is not used: the table is kept in memory.
    """

    def __init__(self, runs_dir: Path, cache: Path | None = None) -> None:
        self.runs_dir = runs_dir.resolve()
        self.columns: dict[str, str] = {}
        """The keys that can be sorted by, and how SQL says each: a column, or the value that all runs share."""
        self._common: dict[str, Any] = {}
        self._answers: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        self._open(cache)
        for number, key, common in self._db.execute("SELECT number, key, common FROM keys"):
            self.columns[key] = f"f{number}" if common is None else _constant(common)
            if common is not None:
                self._common[key] = common
        self._any_whole = bool(self._db.execute("SELECT EXISTS(SELECT 1 FROM runs WHERE damage IS NULL)").fetchone()[0])
        self._indexes = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'by_%'")}

    def _open(self, cache: Path | None) -> None:
        try:
            path = cache or make_dir(cache_dir() / "dashboard") / f"{sha256(os.fsencode(self.runs_dir))[:16]}.sqlite"
        except FirstlightError:
            return self._start(":memory:")
        with suppress(sqlite3.OperationalError):  # held by another server, or not ours to write
            try:
                return self._start(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._db.close()
                with suppress(FirstlightError):
                    remove(path)
                return self._start(path)
        return self._start(":memory:")

    def _start(self, place: str | Path) -> None:
        self._db = sqlite3.connect(place, timeout=0, isolation_level=None)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = OFF")  # it can be made again
        self._db.execute("PRAGMA cache_size = -65536")
        self._db.execute("BEGIN EXCLUSIVE")
        if self._db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            for table in ("runs", "keys"):
                self._db.execute(f"DROP TABLE IF EXISTS {table}")
            self._db.execute(f"CREATE TABLE runs({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
            self._db.execute("CREATE INDEX by_report ON runs(report) WHERE report IS NOT NULL")
            self._db.execute("CREATE TABLE keys(number INTEGER PRIMARY KEY, key TEXT UNIQUE, common)")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the cache."""
        self._db.close()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of runs: every property of COLUMNS, and `facts` by key. A run that was known is replaced."""
        self._answers.clear()
        self._db.execute("BEGIN")
        for row in rows:
            if row["damage"] is None:
                self._make_room(row["facts"])
        keys = [key for key in self.columns if key not in self._common]
        names = [*COLUMNS, *(self.columns[key] for key in keys)]
        values = [[*map(row.__getitem__, COLUMNS), *map(row["facts"].get, keys)] for row in rows]
        self._db.executemany(f"INSERT OR REPLACE INTO runs({', '.join(names)}) VALUES({', '.join('?' * len(names))})", values)
        self._db.execute("COMMIT")

    def _make_room(self, facts: Mapping[str, Any]) -> None:
        """Make the columns that the facts of a whole run need."""
        for key in facts.keys() - self.columns.keys():
            if len(self.columns) == MAX_KEYS:
                break
            number, value = len(self.columns), None if self._any_whole else facts[key]
            self._db.execute("INSERT INTO keys VALUES(?, ?, ?)", (number, key, value))
            if value is None:
                self._db.execute(f"ALTER TABLE runs ADD COLUMN f{number}")
                self.columns[key] = f"f{number}"
            else:
                self.columns[key], self._common[key] = _constant(value), value
        self._any_whole = True
        if not self._common.items() <= facts.items():
            for key in [key for key, value in self._common.items() if facts.get(key) != value]:
                self._part(key)

    def _part(self, key: str) -> None:
        """Give a setting that runs no longer share a column."""
        number = list(self.columns).index(key)
        self._db.execute(f"ALTER TABLE runs ADD COLUMN f{number}")
        self._db.execute(f"UPDATE runs SET f{number} = ? WHERE damage IS NULL", (self._common.pop(key),))
        self._db.execute("UPDATE keys SET common = NULL WHERE number = ?", (number,))
        self.columns[key] = f"f{number}"

    def delete(self, ids: Sequence[str]) -> None:
        """Forget these runs."""
        self._answers.clear()
        self._db.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in ids])

    def stamps(self) -> dict[str, tuple[int, str]]:
        """Return the stamp and the state of every run by its path below runs_dir."""
        return {os.fsdecode(path): (stamp, state) for path, stamp, state in self._db.execute("SELECT path, stamp, state FROM runs")}

    def order_usual(self) -> Iterator[None]:
        """Keep many runs in the orders that are usually asked for; yield after each."""
        if self.count() >= MANY:
            self._index_on(*SEARCHED)
            for key in USUAL_ORDER:
                yield
                self._index_on(QUERIED.get(key) or self.columns.get(key, ""), "started")

    def _index_on(self, *columns: str) -> None:
        """Let SQLite keep the runs in the order of these columns, too; it takes 0.2 s for 100,000 runs, once."""
        kept = list(dict.fromkeys(columns))
        name = "by_" + "_".join(kept)
        real = all(column in COLUMNS or _COLUMN.fullmatch(column) for column in kept)
        if real and name not in self._indexes and len(self._indexes) < MAX_INDEXES:
            self._db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON runs({', '.join(kept)})")
            self._indexes.add(name)

    def find(self, run_id: str) -> Found | None:
        """Return the run of an id; None where there is none."""
        row = self._db.execute("SELECT path, name FROM runs WHERE id = ?", (run_id,)).fetchone()
        return row and Found(run_id, self.runs_dir / os.fsdecode(row[0]), row[1])

    def count(self, where: Condition | None = None) -> int:
        """Return how many runs there are, or fulfil a condition."""
        condition = where or Condition()
        return int(self._ask(f"SELECT count(*) FROM runs WHERE {condition}", condition.values)[0][0])

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query that looks at all runs; the same question has the same answer until a run changes."""
        key = (question, *values)
        if key not in self._answers:
            if len(self._answers) == MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = self._db.execute(question, values).fetchall()
        return self._answers[key]

    def where(self, text: str) -> Condition:
        """Return what a query asks for. Raises ConfigError."""
        return parse_query(text, self.columns)

    def runs(self, where: Condition, keys: Sequence[str], *, sort: str, descending: bool, first: int, num: int) -> list[dict[str, Any]]:
        """Return some of the runs that fulfil a condition, as `id`, `damage` and these keys. Raises ConfigError for a key that is none."""
        column = column_of(sort, self.columns)
        shown = ", ".join(column_of(key, self.columns) for key in keys)
        if self.count() >= MANY:
            self._index_on(column, "started")
        way = "DESC" if descending else "ASC"
        order = f"{column} {way} NULLS LAST, started {way}"
        cursor = self._db.execute(
            f"SELECT id, damage, {shown} FROM runs WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?", [*where.values, num, first]
        )
        return [dict(zip(["id", "damage", *keys], row, strict=True)) for row in cursor]

    def reports(self, num: int) -> list[tuple[Found, float]]:
        """Return the runs that have a report and when it was written, the youngest first."""
        cursor = self._db.execute("SELECT id, path, name, report FROM runs WHERE report IS NOT NULL ORDER BY report DESC LIMIT ?", (num,))
        return [(Found(run_id, self.runs_dir / os.fsdecode(path), name), report) for run_id, path, name, report in cursor]

    def groups(self, where: Condition, by: str, figure: str, *, num: int) -> list[dict[str, Any]]:
        """Return the runs that fulfil a condition by the values of a key, best first: `value`, `runs`, and of a figure `n`, `best`, `mean`,
        `spread` (the sample standard deviation; None for less than two).
        """
        column, measured = column_of(by, self.columns), column_of(figure, self.columns)
        if self.count() >= MANY:
            self._index_on(column, measured)
        best = "min" if figure.endswith("loss") else "max"
        last = self._ask(f"SELECT max({measured}) FROM runs")[0][0]  # a text comes after all numbers
        numbers = f"CASE WHEN typeof({measured}) != 'text' THEN {measured} END" if isinstance(last, str) else measured
        first = self._db.execute(f"SELECT {numbers} FROM runs WHERE {numbers} IS NOT NULL LIMIT 1").fetchone()
        center = first[0] if first else 0.0
        rows = self._ask(
            f"SELECT {column}, count(*), count({numbers}), {best}({numbers}), avg({numbers}), sum(({numbers} - ?) * ({numbers} - ?)) "
            f"FROM runs WHERE {where} GROUP BY {column} ORDER BY 4 {'ASC' if best == 'min' else 'DESC'} NULLS LAST, 2 DESC LIMIT ?",
            [center, center, *where.values, num],
        )
        found = []
        for value, runs, n, top, mean, squares in rows:  # about a value among them, which loses no digits
            spread = (max(squares - n * (mean - center) ** 2, 0.0) / (n - 1)) ** 0.5 if n > 1 else None
            found.append({"value": value, "runs": runs, "n": n, "best": top, "mean": mean, "spread": spread})
        return found


def _constant(value: Any) -> str:
    """Return a value that all whole runs share as SQL."""
    if isinstance(value, str):
        shown = f"CAST(x'{value.encode().hex()}' AS TEXT)"
    else:
        shown = f"CAST({value!r} AS {'REAL' if isinstance(value, float) else 'INTEGER'})"
    return f"CASE WHEN damage IS NULL THEN {shown} END"
