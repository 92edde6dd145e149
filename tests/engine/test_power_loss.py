"""What a power loss may leave: a training's file operations, replayed with un-synced data lost, short or reordered (fault 2)."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import firstlight as fl
from firstlight import files
from firstlight.engine.checkpoint import find_checkpoint, newest_whole, read_checkpoint
from firstlight.engine.lanes import train_lanes
from firstlight.engine.record import Recorder
from firstlight.tracking.console import Console

Train = Callable[..., fl.Run]


@dataclass(eq=False)
class File:
    """A file on the simulated disk: what was written, and how much of it is safe."""

    content: bytes = b""
    safe: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder on the simulated disk: the entries that are safe, and the changes since, each of which may be lost."""

    safe: dict[str, "File | Folder"] = field(default_factory=dict)
    changes: list[dict[str, "File | Folder | None"]] = field(default_factory=list)

    def now(self) -> dict[str, "File | Folder"]:
        """Return the entries as a running system sees them."""
        return self.after(self.changes)

    def after(self, changes: list[dict[str, "File | Folder | None"]]) -> dict[str, "File | Folder"]:
        """Return the entries after some changes."""
        entries: dict[str, Any] = dict(self.safe)
        for change in changes:
            entries |= change
        return {name: entry for name, entry in entries.items() if entry is not None}


class Disk:
    """Carries out recorded operations on folders and files in memory, below one real folder."""

    def __init__(self, root: Path) -> None:
        self.path = root
        self.root = Folder()

    def find(self, path: Path) -> Any:
        """Return the file or folder at a path."""
        found: Any = self.root
        for part in path.relative_to(self.path).parts:
            found = found.now()[part]
        return found

    def apply(self, name: str, path: Path, detail: Any) -> None:
        """Carry out one operation as files.py names it."""
        if name in ("open", "mkdir"):
            parent = self.find(path.parent)
            if path.name not in parent.now() or (name == "open" and files.TEMPORARY in path.name):
                parent.changes.append({path.name: File() if name == "open" else Folder()})
        elif name in ("write", "append"):
            self.find(path).content += detail
        elif name == "fsync":
            found = self.find(path)
            if isinstance(found, File):
                found.safe = found.content
            else:
                found.safe, found.changes = found.now(), []
        elif name == "replace":
            moved = self.find(path)
            assert path.parent == detail.parent, "a rename stays in its folder"
            self.find(path.parent).changes.append({path.name: None, detail.name: moved})
        else:
            assert name in ("unlink", "rmtree"), name
            if path.name in self.find(path.parent).now():
                self.find(path.parent).changes.append({path.name: None})

    def write_what_is_left(self, target: Path, draw: random.Random, *, lose: str) -> None:
        """Make real what a power loss leaves: `all` that is not safe is lost, `none`, or `some`, short or out of order."""

        def write(folder: Folder, path: Path) -> None:
            path.mkdir()
            kept = {"all": [], "none": folder.changes, "some": [change for change in folder.changes if draw.random() < 0.5]}[lose]
            for name, entry in folder.after(kept).items():
                if isinstance(entry, Folder):
                    write(entry, path / name)
                else:
                    (path / name).write_bytes(entry.safe if lose == "all" else entry.content if lose == "none" else shorten(entry, draw))

        write(self.root, target)


def shorten(file: File, draw: random.Random) -> bytes:
    """Return the safe content of a file, with some of what was written since."""
    fresh = len(file.content) - len(file.safe)
    assert fresh >= 0 and file.content.startswith(file.safe)
    return file.content[: len(file.safe) + draw.choice([0, fresh // 2, fresh])]


Journal = list[tuple[str, Path, Any]]
FLUSHES = ("checkpoints", files.TEMPORARY + "step-", "safetensors", "metrics.jsonl")
"""Parts of names, of which each has files or folders that have to be flushed."""


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Return what grows by each file operation as files.py names it, and by (saved, run folder, step) behind each checkpoint."""
    found: Journal = []

    def record(name: str, path: Path, action: Callable[[], Any], detail: Any = None) -> Any:
        result = action()
        found.append((name, path, detail))
        return result

    def saving(recorder: Recorder, state: Any, *words: Any, **options: Any) -> files.Writing[bool]:
        done = yield from real(recorder, state, *words, **options)
        found.append(("saved", recorder.writer.path, state.step))
        return done

    real = Recorder.saving
    monkeypatch.setattr(Recorder, "saving", saving)
    monkeypatch.setattr(files, "_failpoint", record)
    return found


def test_a_power_loss_at_any_moment_keeps_the_last_acknowledged_checkpoint(train: Train, tmp_path: Path, journal: Journal) -> None:
    """Fault 2, with negative controls: without any one kind of flush the same check finds a loss."""
    (tmp_path / "runs").mkdir()
    train("split.num_train=96", "checkpoint.every_steps=2", "train.ema_decay=0.5")
    check_losses(journal[:], tmp_path, num_saved=5)


def test_a_power_loss_at_any_moment_keeps_the_acknowledged_checkpoints_of_lanes(tmp_path: Path, journal: Journal) -> None:
    """Fault 2 for lanes, which wait for the disk together, with the same controls."""
    (tmp_path / "runs").mkdir()
    settings = ("model.name=mlp", "model.hidden=[3]", "split.num_train=64", "train.batch_size=32", "train.epochs=2", "device.threads=1")
    configs = [fl.load_config("quickstart", *settings, f"optim.lr={lr}", "order_seed=0") for lr in (0.01, 0.02, 0.03)]
    runs = train_lanes(configs, [tmp_path / "runs" / f"lane{number}" for number in range(3)], Console(quiet=True), Path())
    assert {run.state for run in runs if isinstance(run, fl.Run)} == {"finished"}
    check_losses(journal[:], tmp_path, num_saved=6)


def check_losses(journal: Journal, place: Path, *, num_saved: int) -> None:
    """Find nothing lost by what was done below `place` / runs, and something by it without each of the flushes."""
    assert sum(name == "saved" for name, *_ in journal) == num_saved
    assert list(losses(journal, place / "runs", place / "left")) == []
    for what in FLUSHES:
        careless = [entry for entry in journal if not (entry[0] == "fsync" and what in entry[1].name)]
        assert len(careless) < len(journal)
        assert next(losses(careless, place / "runs", place / f"without-{what}"), None) is not None, what


def losses(journal: Journal, root: Path, target: Path) -> Iterator[str]:
    """Yield what went wrong at which operation, over all power losses."""
    target.mkdir()
    disk, draw, saved = Disk(root), random.Random(0), dict[str, int]()
    for number, (name, path, detail) in enumerate(journal):
        if name == "saved":
            saved[path.name] = detail
            continue
        if root not in path.parents and path != root:
            continue
        disk.apply(name, path, detail)
        if not saved:
            continue
        for lose in ("all", "none", "some", "some"):
            left = target / f"{number}-{lose}-{draw.random()}"
            disk.write_what_is_left(left, draw, lose=lose)
            for run, step in saved.items():
                try:
                    check_run(left / run, step)
                except (fl.FirstlightError, AssertionError) as error:
                    yield f"operation {number}, {name} {path.name}, lost {lose}: {error}"
            shutil.rmtree(left)


def check_run(run: Path, saved: int) -> None:
    """Find the checkpoint of step `saved` or a later one, both pointers on whole ones, and all rows up to it."""
    folder = run / "checkpoints"
    found = newest_whole(folder, lambda warning: None)
    assert found is not None and found.record["position"]["step"] >= saved
    last = read_checkpoint(find_checkpoint(folder, "last"))
    assert last.record["position"]["step"] >= saved
    rows = {row["step"] for row in fl.Run(run).steps}
    assert rows >= set(range(1, saved + 1)), "a resume counts on the rows"
    if last.record["best"]:
        read_checkpoint(find_checkpoint(folder, "best"))
