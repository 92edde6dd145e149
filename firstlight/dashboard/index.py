"""All runs below a folder in one SQLite table: a cache that is made again from the folders where it is missing or damaged.

A row is a run; a column is a property, a setting or a figure. A scan looks at the time of change of each folder, which moves whenever
run.json is replaced, and reads what is new; a run that trains is read each time.
Reading order: Index.scan, Index.runs, Index.groups.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from firstlight.dashboard.folders import read_facts, written
from firstlight.dashboard.query import PROPERTIES as QUERIED
from firstlight.dashboard.query import SEARCHED, Condition, column_of, parse_query
from firstlight.errors import FirstlightError
from firstlight.files import cache_dir, make_dir, remove, sha256

MAX_COLUMNS = 800
"""Keys that can be sorted by; SQLite allows 2,000 columns."""
SLICE_SECONDS = 0.005
"""Work of a scan between two pauses, in which pages are served."""
YOUNG_SECONDS = 0.1
"""Age of a change below which a second one might bear the same time; such a folder is read once more."""
MANY = 5000
"""Runs from which on sorting and choosing need an index of SQLite's."""
MAX_INDEXES = 60
USUAL_ORDER = ("started", "name", "state", "study", "val_accuracy", "val_loss", "optim.lr", "model.name", "data.name", "seed")
"""Keys that get an index as soon as there are many runs; others when they are first asked for."""
BATCH = 500
"""Runs that are written at a time."""
PROPERTIES = ("id", "path", "stamp", "name", "study", "state", "started", "notes", "tags", "warnings", "damage", "report")
FORMAT = crc32(repr(("1", PROPERTIES)).encode()) >> 1
"""Of the cache; one of another format is made anew."""


@dataclass(frozen=True)
class Found:
    """A run or a study that the index knows: its id in addresses, and its folder."""

    id: str
    path: Path
    name: str


class Index:
    """The runs and studies below `runs_dir`. cache: the file that keeps them, by default one in the user's cache folder."""

    def __init__(self, runs_dir: Path, cache: Path | None = None) -> None:
        self.runs_dir = runs_dir.resolve()
        self._root = str(self.runs_dir)
        self.version = 0
        """Grows whenever something changed."""
        self.scanned = False
        """Whether all folders were looked at once."""
        self.columns: dict[str, str] = {}
        self.studies: dict[str, Found] = {}
        self._study_names: set[str] = set()
        self._open(cache)
        self.columns = {key: f"f{number}" for number, key in self._db.execute("SELECT number, key FROM keys")}
        self._stamps: dict[str, int] = {}
        self._running: set[str] = set()
        for path, stamp, state in self._db.execute("SELECT path, stamp, state FROM runs"):
            name = os.fsdecode(path)
            self._stamps[name] = stamp
            if state == "running":
                self._running.add(name)
        self._others: dict[str, int] = {}
        self._indexes = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'by_%'")}

    def _open(self, cache: Path | None) -> None:
        """Open the cache, or make it anew where it is damaged; keep it in memory where it cannot be written or another server has it."""
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
            self._db.execute(
                "CREATE TABLE runs(id TEXT PRIMARY KEY, path BLOB, stamp INTEGER, name TEXT, study TEXT, state TEXT, started REAL, "
                "notes TEXT, tags TEXT, warnings INTEGER, damage TEXT, report REAL)"
            )
            self._db.execute("CREATE TABLE keys(number INTEGER PRIMARY KEY, key TEXT UNIQUE)")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the cache."""
        self._db.close()

    def scan(self) -> Iterator[None]:
        """Look at all folders, read those that changed, forget those that are gone; yield after each few milliseconds of work."""
        seen: set[str] = set()
        studies: dict[str, Found] = {}
        changed: list[tuple[str, int, str]] = []
        version, num_studies = self.version, len(self._study_names)
        pause = time.monotonic() + SLICE_SECONDS
        for name, stamp, study in self._folders(studies):
            if self._others.get(name) != stamp:
                seen.add(name)
                if self._stamps.get(name) != stamp or name in self._running:
                    changed.append((name, stamp, study or ""))
                if len(changed) >= BATCH:
                    yield from self._read(changed)
                    changed = []
            if time.monotonic() > pause:
                yield
                pause = time.monotonic() + SLICE_SECONDS
        yield from self._read(changed)
        self._forget([name for name in self._stamps if name not in seen])
        if len(self._study_names) > num_studies:  # now that they are known, what is in them
            yield from self.scan()
            return
        if studies.keys() != self.studies.keys():
            self.version += 1
        self.studies = studies
        self._study_names = {study.path.name for study in studies.values()}  # a run may have the name of a removed study
        if self._is_large():
            self._index_on(*SEARCHED)
            for key in USUAL_ORDER:
                if key in QUERIED or key in self.columns:
                    self._index_on(QUERIED.get(key) or self.columns.get(key) or key, "started")
                    yield
        if not self.scanned or version != self.version:
            self.scanned, self.version = True, self.version + 1

    def _folders(self, studies: dict[str, Found]) -> Iterator[tuple[str, int, str | None]]:
        """Yield the folders that may be runs: the path below runs_dir, the time of change, and the study around it."""
        for name, stamp in self._entries(self.runs_dir):
            if name not in self._study_names:
                yield name, stamp, None
                continue
            found = Found(id_of(name), self.runs_dir / name, show_name(name))
            studies[found.id] = found
            for inside, changed in self._entries(self.runs_dir / name):
                yield f"{name}/{inside}", changed, name

    def _entries(self, folder: Path) -> Iterator[tuple[str, int]]:
        """Yield the folders in a folder and their times of change; no links."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            with os.scandir(descriptor) as entries:  # a look at an entry is then relative to the open folder, which is quicker
                for entry in entries:
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if stat.S_ISDIR(facts.st_mode) and not entry.name.startswith("."):
                        yield entry.name, facts.st_mtime_ns
        finally:
            os.close(descriptor)

    def _read(self, folders: Sequence[tuple[str, int, str]]) -> Iterator[None]:
        """Read these folders and write the rows of those that are runs; yield now and then."""
        rows: list[tuple[str, int, str, dict[str, Any]]] = []
        gone: list[str] = []
        pause = time.monotonic() + SLICE_SECONDS
        for name, stamp, study in folders:
            kept = stamp if _is_old(stamp) else 0
            found = read_facts(f"{self._root}/{name}")
            if found is not None:
                rows.append((name, kept, study, found))
            else:
                self._others[name] = kept
                gone.append(name)
                if not study and written(f"{self._root}/{name}/study.json") is not None:
                    self._study_names.add(name)
            if time.monotonic() > pause:
                yield
                pause = time.monotonic() + SLICE_SECONDS
        if rows:
            self._write(rows)
        self._forget([name for name in gone if name in self._stamps])

    def _write(self, rows: Sequence[tuple[str, int, str, dict[str, Any]]]) -> None:
        self._db.execute("BEGIN")
        for *_, found in rows:
            for key in found["facts"].keys() - self.columns.keys():
                self._add_column(key)
        keys = list(self.columns)
        marks = ", ".join("?" * (len(PROPERTIES) + len(keys)))
        into = ", ".join([*PROPERTIES, *self.columns.values()])
        values = []
        for name, stamp, study, found in rows:
            facts = found["facts"]
            about = [
                found["started"],
                *(_lines(found[key]) for key in ("notes", "tags")),
                found["warnings"],
                found["damage"],
                found["report"],
            ]
            shown = show_name(name)
            values.append(
                [id_of(name), os.fsencode(name), stamp, shown, show_name(study) or None, found["state"], *about, *map(facts.get, keys)]
            )
            self._stamps[name] = stamp
            (self._running.add if found["state"] == "running" else self._running.discard)(name)
        self._db.executemany(f"INSERT OR REPLACE INTO runs({into}) VALUES({marks})", values)
        self._db.execute("COMMIT")
        self.version += 1

    def _add_column(self, key: str) -> None:
        if key not in self.columns and len(self.columns) < MAX_COLUMNS:
            number = len(self.columns)
            self._db.execute("INSERT INTO keys VALUES(?, ?)", (number, key))
            self._db.execute(f"ALTER TABLE runs ADD COLUMN f{number}")
            self.columns[key] = f"f{number}"

    def _forget(self, names: Sequence[str]) -> None:
        if not names:
            return
        self._db.executemany("DELETE FROM runs WHERE id = ?", [(id_of(name),) for name in names])
        for name in names:
            self._stamps.pop(name, None)
            self._running.discard(name)
        self.version += 1

    def _is_large(self) -> bool:
        return len(self._stamps) >= MANY

    def _index_on(self, *columns: str) -> None:
        """Let SQLite keep the runs in the order of these columns, too; it takes 0.2 s for 100,000 runs, once."""
        name = "by_" + "_".join(dict.fromkeys(columns))
        if name not in self._indexes and len(self._indexes) < MAX_INDEXES:
            self._db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON runs({', '.join(dict.fromkeys(columns))})")
            self._indexes.add(name)

    def find(self, run_id: str) -> Found | None:
        """Return the run of an id; None where there is none."""
        row = self._db.execute("SELECT path, name FROM runs WHERE id = ?", (run_id,)).fetchone()
        return row and Found(run_id, self.runs_dir / os.fsdecode(row[0]), row[1])

    def count(self, where: Condition | None = None) -> int:
        """Return how many runs there are, or fulfil a condition."""
        condition = where or Condition()
        return int(self._db.execute(f"SELECT count(*) FROM runs WHERE {condition}", condition.values).fetchone()[0])

    def where(self, text: str) -> Condition:
        """Return what a query asks for. Raises ConfigError."""
        return parse_query(text, self.columns)

    def runs(self, where: Condition, keys: Sequence[str], *, sort: str, descending: bool, first: int, num: int) -> list[dict[str, Any]]:
        """Return some of the runs that fulfil a condition, as `id`, `damage` and these keys. Raises ConfigError for a key that is none."""
        column = column_of(sort, self.columns)
        shown = ", ".join(column_of(key, self.columns) for key in keys)
        if self._is_large():
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
        if self._is_large():
            self._index_on(column, measured)
        best = "min" if figure.endswith("loss") else "max"
        numbers = f"CASE WHEN typeof({measured}) IN ('integer', 'real') THEN {measured} END"
        center = self._db.execute(f"SELECT coalesce(avg({numbers}), 0) FROM runs WHERE {where}", where.values).fetchone()[0]
        cursor = self._db.execute(
            f"SELECT {column}, count(*), count({numbers}), {best}({numbers}), avg({numbers}), sum(({numbers} - ?) * ({numbers} - ?)) "
            f"FROM runs WHERE {where} GROUP BY {column} ORDER BY 4 {'ASC' if best == 'min' else 'DESC'} NULLS LAST, 2 DESC LIMIT ?",
            [center, center, *where.values, num],
        )
        found = []
        for value, runs, n, top, mean, squares in cursor:  # about the middle of all, which loses no digits
            spread = (max(squares - n * (mean - center) ** 2, 0.0) / (n - 1)) ** 0.5 if n > 1 else None
            found.append({"value": value, "runs": runs, "n": n, "best": top, "mean": mean, "spread": spread})
        return found


def id_of(path: str) -> str:
    """Return the id of a run or study in addresses: a digest of its path, the same on every day."""
    return sha256(os.fsencode(path))[:16]


def show_name(path: str) -> str:
    """Return a path as text that can be shown, whatever bytes it has."""
    return path.encode(errors="replace").decode()


def _lines(words: Sequence[str]) -> str:
    return "\n" + "\n".join(words) + "\n" if words else ""


def _is_old(stamp: int) -> bool:
    return time.time() - stamp / 1e9 > YOUNG_SECONDS
