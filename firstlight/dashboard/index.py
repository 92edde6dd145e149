"""All runs below a folder, kept in a table that is a cache: it is made again from the folders where it is missing or damaged.

A scan looks at the time of change of each folder, which moves whenever run.json is replaced, and reads what is new; a run that trains is
read each time. Where thousands are new, a second process reads along.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from firstlight.dashboard.facts_child import FactsChild, Folder
from firstlight.dashboard.folders import read_facts, written
from firstlight.dashboard.table import Found as Found
from firstlight.dashboard.table import RunTable
from firstlight.files import sha256

SLICE_SECONDS = 0.005
"""Work of a scan between two pauses, in which pages are served."""
YOUNG_SECONDS = 0.1
"""Age of a change below which a second one might bear the same time; such a folder is read once more."""
BATCH = 500
"""Runs that are written at a time."""
MANY_NEW = 2000
"""Folders from which on a second process is worth its start."""


class Index(RunTable):
    """The runs and studies below `runs_dir`. cache: the file that keeps them, by default one in the user's cache folder."""

    def __init__(self, runs_dir: Path, cache: Path | None = None) -> None:
        super().__init__(runs_dir, cache)
        self.version = 0
        """Grows whenever something changed."""
        self.scanned = False
        """Whether all folders were looked at once."""
        self.studies: dict[str, Found] = {}
        self._root = str(self.runs_dir)
        self._stamps: dict[str, int] | None = None
        self._running: set[str] = set()
        self._study_names: set[str] = set()
        self._others: dict[str, int] = {}
        self._child: FactsChild | None = None

    def close(self) -> None:
        """Close the cache, and end the process that reads along."""
        self._end_child()
        super().close()

    def scan(self) -> Iterator[None]:
        """Look at all folders, read those that changed, forget those that are gone; yield after each few milliseconds of work."""
        seen: set[str] = set()
        studies: dict[str, Found] = {}
        changed: list[Folder] = []
        version, num_studies, known = self.version, len(self._study_names), self._known
        pause = time.monotonic() + SLICE_SECONDS
        for name, stamp, study in self._folders(studies):
            if self._others.get(name) != stamp:
                seen.add(name)
                if known.get(name) != stamp or name in self._running:
                    changed.append((name, stamp if time.time() - stamp / 1e9 > YOUNG_SECONDS else 0, study or ""))
                if len(changed) >= MANY_NEW:
                    self._child = self._child or self._start_child()
                    yield from self._read(changed, last=False)
                    changed = []
            if time.monotonic() > pause:
                yield
                pause = time.monotonic() + SLICE_SECONDS
        yield from self._read(changed, last=True)
        self._end_child()
        self._forget([name for name in known if name not in seen])
        if len(self._study_names) > num_studies:  # now that they are known, what is in them
            yield from self.scan()
            return
        if studies.keys() != self.studies.keys():
            self.version += 1
        self.studies = studies
        self._study_names = {study.path.name for study in studies.values()}  # a run may have the name of a removed study
        yield from self.order_usual()
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

    def _read(self, folders: Sequence[Folder], *, last: bool) -> Iterator[None]:
        """Read these folders and write the rows of those that are runs; yield now and then. last: wait for the other process, too."""
        left = deque(folders)
        rows: list[tuple[str, int, str, dict[str, Any]]] = []
        gone: list[str] = []
        pause = time.monotonic() + SLICE_SECONDS
        while left or (last and self._child and self._child.reads):
            for (name, kept, study), found in self._read_some(left):
                if found is not None:
                    rows.append((name, kept, study, found))
                else:
                    self._others[name] = kept
                    gone.append(name)
                    if not study and written(f"{self._root}/{name}/study.json") is not None:
                        self._study_names.add(name)
            if len(rows) >= BATCH:
                self._write(rows)
                rows = []
            if time.monotonic() > pause:
                yield
                pause = time.monotonic() + SLICE_SECONDS
        self._write(rows)
        self._forget([name for name in gone if name in self._known])

    def _read_some(self, left: deque[Folder]) -> list[tuple[Folder, dict[str, Any] | None]]:
        """Return what the other process read, which takes from the end of what is left, or else what the first folder says."""
        if self._child is not None:
            try:
                while left and self._child.waits:
                    self._child.ask(left)
                if found := self._child.answers():
                    return found
            except (OSError, ValueError):
                left.extend(self._end_child())
        return [(left[0], read_facts(f"{self._root}/{left.popleft()[0]}"))] if left else []

    def _start_child(self) -> FactsChild | None:
        with suppress(OSError):  # no more processes; this one reads alone
            return FactsChild(self._root)
        return None

    def _end_child(self) -> list[Folder]:
        child, self._child = self._child, None
        return child.close() if child is not None else []

    def _write(self, rows: Sequence[tuple[str, int, str, dict[str, Any]]]) -> None:
        if not rows:
            return
        made = []
        for name, stamp, study, found in rows:
            places = {
                "id": id_of(name),
                "path": os.fsencode(name),
                "stamp": stamp,
                "name": show_name(name),
                "study": show_name(study) or None,
            }
            made.append({**found, **places, "notes": _lines(found["notes"]), "tags": _lines(found["tags"])})
            self._known[name] = stamp
            (self._running.add if found["state"] == "running" else self._running.discard)(name)
        self.write(made)
        self.version += 1

    def _forget(self, names: Sequence[str]) -> None:
        if not names:
            return
        self.delete([id_of(name) for name in names])
        for name in names:
            self._known.pop(name, None)
            self._running.discard(name)
        self.version += 1

    @property
    def _known(self) -> dict[str, int]:
        """The runs in the table, and the time of change that was read of each; looked up when it is first needed."""
        if self._stamps is None:
            found = self.stamps()
            self._stamps = {name: stamp for name, (stamp, _) in found.items()}
            self._running = {name for name, (_, state) in found.items() if state == "running"}
        return self._stamps


def id_of(path: str) -> str:
    """Return the id of a run or study in addresses: a digest of its path, the same on every day."""
    return sha256(os.fsencode(path))[:16]


def show_name(path: str) -> str:
    """Return a path as text that can be shown, whatever bytes it has."""
    return path.encode(errors="replace").decode()


def _lines(words: Sequence[str]) -> str:
    return "\n" + "\n".join(words) + "\n" if words else ""
