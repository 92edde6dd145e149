"""The index of runs: it finds, sorts and chooses as plain Python does, follows what changes, and survives what it finds."""

import json
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from firstlight.dashboard.index import Index, id_of
from firstlight.errors import ConfigError
from tests.dashboard.folders import write_run


def scanned(runs_dir: Path, cache: Path) -> Index:
    index = Index(runs_dir, cache)
    scan(index)
    return index


def scan(index: Index) -> None:
    for _ in index.scan():
        pass


def names(index: Index, query: str = "", sort: str = "name", *, descending: bool = False, first: int = 0, num: int = 1000) -> list[Any]:
    rows = index.runs(index.where(query), ["name"], sort=sort, descending=descending, first=first, num=num)
    return [row["name"] for row in rows]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty runs of random settings, and a study of three."""
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for number in range(30):
        facts = {"lr": round(10 ** draw.uniform(-4, 0), 6), "accuracy": round(draw.uniform(0.5, 1), 4)}
        notes = ("a note of mine",) if number % 7 == 0 else ()
        write_run(
            folder / f"run-{number:02d}", **facts, notes=notes, model=draw.choice(["lenet", "mlp"]), tags=["final"] * (number % 5 == 0)
        )
    (folder / "grid").mkdir()
    (folder / "grid" / "study.json").write_text("{}")
    for number in range(3):
        write_run(folder / "grid" / f"000{number}-s0", lr=0.5, accuracy=0.6 + number / 10)
    return folder


def known(runs_dir: Path) -> list[dict[str, Any]]:
    """The runs as they were written, read plainly."""
    found = []
    for path in sorted(runs_dir.rglob("run.json")):
        info, config = json.loads(path.read_text()), (path.parent / "config.yaml").read_text()
        lr = float(config.partition("lr: ")[2].partition("\n")[0])
        model = config.partition("model: {name: ")[2].partition("}")[0]
        accuracy = info["summary"]["val_accuracy"]
        name = str(path.parent.relative_to(runs_dir))
        found.append({"name": name, "lr": lr, "accuracy": accuracy, "model": model, "notes": info["notes"], "tags": info.get("tags", [])})
    return found


QUERIES = {
    "": lambda run: True,
    "run-1": lambda run: "run-1" in run["name"],
    "MINE": lambda run: run["notes"] != [],
    "grid": lambda run: run["name"].startswith("grid"),
    "study=grid": lambda run: run["name"].startswith("grid"),
    "model=mlp": lambda run: run["model"] == "mlp",
    "model.name!=mlp": lambda run: run["model"] != "mlp",
    "optim.lr>0.01": lambda run: run["lr"] > 0.01,
    "optim.lr<=0.01 model=lenet": lambda run: run["lr"] <= 0.01 and run["model"] == "lenet",
    "val_accuracy>=0.7 tag=final": lambda run: run["accuracy"] >= 0.7 and run["tags"] == ["final"],
    "tag!=final note=note": lambda run: run["tags"] == [] and run["notes"] != [],
    "name=run-2*": lambda run: run["name"].startswith("run-2"),
    "optim.lr=0.5": lambda run: run["lr"] == 0.5,
    "optim.lr=5e-1": lambda run: run["lr"] == 0.5,
    "'note of mine'": lambda run: run["notes"] != [],
    "state=finished": lambda run: True,
    "state=failed": lambda run: False,
    "train.epochs=2 seed=0": lambda run: True,
    "100%": lambda run: False,
    "run_0": lambda run: False,
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_chooses_as_plain_python_does(runs_dir: Path, tmp_path: Path, query: str) -> None:
    """F5: filter by any setting, figure, tag and note."""
    index = scanned(runs_dir, tmp_path / "index")
    wanted = [run["name"] for run in known(runs_dir) if QUERIES[query](run)]
    assert sorted(names(index, query)) == sorted(wanted)
    assert index.count(index.where(query)) == len(wanted)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(("key", "sort"), [("lr", "optim.lr"), ("accuracy", "val_accuracy"), ("name", "name")])
def test_any_key_sorts_and_pages_join(runs_dir: Path, tmp_path: Path, key: str, sort: str, descending: bool) -> None:
    index = scanned(runs_dir, tmp_path / "index")
    values = {run["name"]: run[key] for run in known(runs_dir)}
    pages = [names(index, "", sort, descending=descending, first=first, num=10) for first in (0, 10, 20, 30)]
    joined = [name for page in pages for name in page]
    assert [values[name] for name in joined] == sorted(values.values(), reverse=descending)
    assert sorted(joined) == sorted(values)


def test_groups_have_the_mean_and_deviation_of_their_runs(runs_dir: Path, tmp_path: Path) -> None:
    from statistics import mean, stdev

    index = scanned(runs_dir, tmp_path / "index")
    groups = index.groups(index.where(""), "model.name", "val_accuracy", num=10)
    for group in groups:
        figures = [run["accuracy"] for run in known(runs_dir) if run["model"] == group["value"]]
        assert (group["runs"], group["n"], group["best"]) == (len(figures), len(figures), max(figures))
        assert group["mean"] == pytest.approx(mean(figures), rel=1e-12)
        assert group["spread"] == pytest.approx(stdev(figures), rel=1e-9)
    assert [group["best"] for group in groups] == sorted((group["best"] for group in groups), reverse=True)


@pytest.mark.parametrize(
    "query", ["nothing=3", "optim.lr>fast", "tag>3", "started>yesterday", "x" * 1001, "optim.lr>1e999", "val_acuracy>1"]
)
def test_a_wrong_query_is_one_line(runs_dir: Path, tmp_path: Path, query: str) -> None:
    index = scanned(runs_dir, tmp_path / "index")
    with pytest.raises(ConfigError) as error:
        index.where(query)
    assert "\n" not in str(error.value) and "; " in str(error.value)


def test_what_changes_is_seen(tmp_path: Path) -> None:
    """A new run, a note, a removed run and a study's new trial are seen by the next scan; the unchanged is not read again."""
    from firstlight.tracking.run import load_run
    from firstlight.tracking.writer import add_note

    runs = tmp_path / "runs"
    first, second = write_run(runs / "first"), write_run(runs / "second")
    index = scanned(runs, tmp_path / "index")
    time.sleep(0.11)  # older than YOUNG_SECONDS, so that their times of change are trusted
    scan(index)
    version = index.version
    scan(index)
    assert (names(index), index.version) == (["first", "second"], version)
    add_note(load_run(first), "later")
    shutil.rmtree(second)
    write_run(runs / "third")
    scan(index)
    assert names(index) == ["first", "third"]
    assert names(index, "note=later") == ["first"]
    (runs / "grid").mkdir()
    (runs / "grid" / "study.json").write_text("{}")
    write_run(runs / "grid" / "0000-s0")
    scan(index)
    write_run(runs / "grid" / "0001-s0")
    scan(index)
    assert names(index, "study=grid") == ["grid/0000-s0", "grid/0001-s0"]
    assert [study.name for study in index.studies.values()] == ["grid"]
    assert index.find(id_of("second")) is None


def test_the_cache_is_used_again_and_made_anew(tmp_path: Path) -> None:
    """The cache can be deleted, damaged, or of another version: the folders are the truth."""
    cache = tmp_path / "index"
    run = write_run(tmp_path / "runs" / "first")
    time.sleep(0.11)
    index = scanned(tmp_path / "runs", cache)
    index.close()
    again = Index(tmp_path / "runs", cache)
    assert names(again) == ["first"]  # before anything was looked at
    again.close()
    with sqlite3.connect(cache) as other:
        other.execute("PRAGMA user_version = 7")
    other.close()
    for damage in (cache.read_bytes(), b"", b"no database", cache.read_bytes()[:5000], os.urandom(20_000)):
        cache.write_bytes(damage)
        index = scanned(tmp_path / "runs", cache)
        assert names(index) == [run.name]
        index.close()


def test_two_dashboards_over_one_folder(tmp_path: Path) -> None:
    """The second one keeps its index in memory."""
    write_run(tmp_path / "runs" / "first")
    first = scanned(tmp_path / "runs", tmp_path / "index")
    second = scanned(tmp_path / "runs", tmp_path / "index")
    assert names(first) == names(second) == ["first"]
    first.close()
    second.close()


DAMAGE: dict[str, Any] = {
    "empty run.json": lambda run: (run / "run.json").write_text(""),
    "half run.json": lambda run: (run / "run.json").write_text((run / "run.json").read_text()[:50]),
    "a list": lambda run: (run / "run.json").write_text("[1]"),
    "deep": lambda run: (run / "run.json").write_text("[" * 100_000),
    "another kind": lambda run: (run / "run.json").write_text('{"state": 3, "summary": []}'),
    "no config": lambda run: (run / "config.yaml").unlink(),
    "half config": lambda run: (run / "config.yaml").write_text("optim: {lr: "),
    "bytes": lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00"),
    "alias bomb": lambda run: (run / "config.yaml").write_text(
        "a: &a [x, x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(20_000))
    ),
    "a pipe": lambda run: ((run / "run.json").unlink(), os.mkfifo(run / "run.json")),
    "a link": lambda run: ((run / "run.json").unlink(), (run / "run.json").symlink_to("/etc/passwd")),
    "a huge file": lambda run: os.truncate(run / "run.json", 2**40),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_run_is_shown_as_bad_and_others_are_fine(tmp_path: Path, kind: str) -> None:
    """Fault 50."""
    bad = write_run(tmp_path / "runs" / "bad")
    write_run(tmp_path / "runs" / "good")
    DAMAGE[kind](bad)
    index = scanned(tmp_path / "runs", tmp_path / "index")
    assert names(index, "state=damaged") == ["bad"]
    assert names(index, "state=finished") == ["good"]
    damage = index.runs(index.where("bad"), ["name"], sort="name", descending=False, first=0, num=1)[0]["damage"]
    assert damage and "\n" not in damage


def test_folders_that_are_no_runs_are_left_alone(tmp_path: Path) -> None:
    """Foreign folders, files, links to folders elsewhere, and a config without a run.json: no rows, no errors."""
    write_run(tmp_path / "elsewhere" / "run")
    runs = tmp_path / "runs"
    (runs / "foreign" / "deep").mkdir(parents=True)
    (runs / "half").mkdir()
    (runs / "half" / "config.yaml").write_text("name: x\n")
    (runs / "file").write_text("x")
    (runs / "link").symlink_to(tmp_path / "elsewhere" / "run")
    (runs / ".hidden").mkdir()
    index = scanned(runs, tmp_path / "index")
    assert index.count() == 0
    write_run(runs / "good")
    scan(index)
    assert names(index) == ["good"]


def test_values_that_a_table_cannot_hold(tmp_path: Path) -> None:
    """Fault 50: NaN, infinities, numbers beyond 64 bits and half characters in run.json."""
    run = write_run(tmp_path / "runs" / "odd")
    info = json.loads((run / "run.json").read_text())
    text = json.dumps(info).replace(
        '"best_epoch": 2', '"best_epoch": NaN, "a": Infinity, "b": 1' + "0" * 400 + ', "c": "\\ud800", "d": true'
    )
    (run / "run.json").write_text(text)
    index = scanned(tmp_path / "runs", tmp_path / "index")
    row = index.runs(index.where(""), ["name", "b", "c", "d"], sort="name", descending=False, first=0, num=1)[0]
    assert (row["c"], row["d"]) == ("?", "true") and str(row["b"]).startswith("1000")
    assert "a" not in index.columns and "best_epoch" not in index.columns


def test_a_run_that_trains_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    from firstlight.tracking.writer import RunWriter

    runs = tmp_path / "runs"
    with RunWriter(runs / "now") as writer:
        writer.start("name: x\ntrain: {epochs: 9}\n")
        writer.append([{"kind": "epoch", "epoch": 3, "step": 30, "val_accuracy": 0.25}])
        index = scanned(runs, tmp_path / "index")
        assert names(index, "state=running val_accuracy=0.25 epoch=3") == ["now"]
        writer.append([{"kind": "epoch", "epoch": 4, "step": 40, "val_accuracy": 0.5}])
        scan(index)
        assert names(index, "state=running epoch=4") == ["now"]
    (runs / "now" / "run.json").write_text((runs / "now" / "run.json").read_text().replace('"finished"', '"running"'))
    os.utime(runs / "now")
    scan(index)
    assert names(index, "state=interrupted") == ["now"]


def test_what_all_runs_share_is_found_like_anything_else(tmp_path: Path) -> None:
    """A setting has no column until runs differ in it; a damaged run has none, and does not make them differ."""
    runs, cache = tmp_path / "runs", tmp_path / "index"
    for name in ("a", "b"):
        write_run(runs / name, lr=0.1)
    (write_run(runs / "bad") / "config.yaml").write_text("optim: {lr")
    for query, wanted in (
        ("optim.lr=0.1 model=lenet", ["a", "b"]),
        ("optim.lr>0.1", []),
        ("optim.lr=", ["bad"]),
        ("model=len*", ["a", "b"]),
    ):
        index = scanned(runs, cache)
        assert names(index, query) == wanted
        assert names(index, sort="optim.lr") == names(index, sort="optim.lr", descending=True) != []
        assert index.groups(index.where(""), "optim.lr", "val_accuracy", num=9)[0]["runs"] == 2
        index.close()
    index = scanned(runs, cache)
    write_run(runs / "c", lr=0.2, model="it's \x00 a 'name'".replace("\x00", "日"))
    other = write_run(runs / "d", lr=0.1)
    (other / "config.yaml").write_text("name: made\noptim: {name: sgd, lr: 0.1}\nmomentum: {extra: 3}\n")
    for _ in range(2):
        scan(index)
        assert (names(index, "optim.lr=0.1"), names(index, "optim.lr=0.2")) == (["a", "b", "d"], ["c"])
        assert (names(index, "model=lenet"), names(index, "momentum.extra=3")) == (["a", "b"], ["d"])
        assert names(index, "train.epochs=2") == ["a", "b", "c"] and names(index, "train.epochs=") == ["bad", "d"]
        assert sorted(names(index, "optim.name=sgd")) == ["a", "b", "c", "d"]
        index.close()
        index = Index(runs, cache)
