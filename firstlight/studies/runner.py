"""Carry out a study: every trial that has no row yet is trained, resumed where it stands half done, and written down.

Reading order: open_study, run_study, _carry_out. A kill at any moment loses at most the steps behind a trial's last checkpoint.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.config.yaml import brief
from firstlight.engine.lanes import train_lanes
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.train import GoingOn, run_training
from firstlight.errors import DivergedError, FirstlightError, InterruptedRunError, StorageError
from firstlight.files import Appender, Lock, make_dir, remove
from firstlight.studies.plan import Group, Way, make_plan
from firstlight.studies.store import Row, Store, head, key_of, row_of
from firstlight.studies.study import Study, Trial, load_study
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run
from firstlight.tracking.writer import check_name


def open_study(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    grid: Sequence[str] = (),
    name: str | None = None,
    runs_dir: str | Path | None = None,
) -> tuple[Study, Store]:
    """Return a study and its folder, of which nothing is written yet.

    source: a study file, or an experiment with `grid`, such as ["optim.lr=log:1e-4:1:9"]; overrides: settings of the experiment,
    and `seeds=5`, `sampler=random`, `budget.trials=20` of the study. Raises ConfigError.
    """
    study = load_study(source, overrides, grid=grid, name=name)
    check_name(study.name)
    return study, Store(runs_dir_of(runs_dir) / study.name)


def run_study(study: Study, store: Store, console: Console, *, data_dir: str | Path | None = None, lanes: Way = "auto") -> list[Row]:
    """Train all trials of a study that have no row yet in this process; return the rows of all that ended.

    lanes: train trials side by side where that is faster, wherever it is possible, or nowhere.

    Raises InterruptedRunError after Ctrl-C or SIGTERM, and StorageError where a row could not be written.
    """
    make_dir(store.path)
    with Lock(store.path / "study.lock", f"study {store.path}"):
        store.open(study)
        trials = list(study.trials())
        rows = {key_of(row): row for row in store.rows()}
        pending = [trial for trial in trials if key_of(head(trial)) not in rows]
        console.line(f"study {store.path}: {len(trials):,} trials, {len(trials) - len(pending):,} done before")
        began, log = time.monotonic(), store.appender()
        try:
            plan = make_plan([(trial, study.config(trial)) for trial in pending], data_dir_of(data_dir), way=lanes)
            for remark in plan.remarks:
                console.line(remark)
            for group in plan.groups:
                for row in _carry_out_group(group, study, store, data_dir_of(data_dir)):
                    _write_down(log, row)
                    rows[key_of(row)] = row
            pending = list(plan.alone)
            with console.progress("trials", len(trials), done=len(trials) - len(pending)) as bar:
                for done, trial in enumerate(pending, start=len(trials) - len(pending) + 1):
                    if study.max_seconds is not None and time.monotonic() - began > study.max_seconds:
                        console.warn(
                            f"the budget of {study.max_seconds:,.0f} s is used up; {len(trials) - done + 1:,} trials were not begun"
                        )
                        break
                    row = _carry_out(trial, study, store, data_dir_of(data_dir))
                    _write_down(log, row)
                    rows[key_of(row)] = row
                    bar.update(done, _sentence(row, rows.values(), study))
        finally:
            log.close()
    return list(rows.values())


def _carry_out_group(group: Group, study: Study, store: Store, data_dir: Path) -> list[Row]:
    """Train trials side by side into their run folders, or go on with them, and return their rows."""
    rows: list[Row] = []
    todo: list[tuple[Trial, Run | None]] = []
    for trial in group.trials:
        found = _found(trial, store)
        if found is not None and found.state == "finished":
            rows.append(row_of(trial, found, study.objective))
        else:
            todo.append((trial, found))
    began = time.monotonic()
    ended = train_lanes(
        [study.config(trial) for trial, _ in todo],
        [store.run_path(trial) for trial, _ in todo],
        Console(quiet=True),
        data_dir,
        resumed=[run for _, run in todo],
        threads=group.threads,
    )
    seconds = (time.monotonic() - began) / max(1, len(todo))
    for (trial, _), run in zip(todo, ended, strict=True):
        row = row_of(trial, run, study.objective) if isinstance(run, Run) else _row_of_error(trial, run, seconds)
        rows.append({**row, "seconds": round(seconds, 3)})  # its share; the run itself says how long all took
    return rows


def _found(trial: Trial, store: Store) -> Run | None:
    """Return the run of a trial that was begun before; one that cannot be read is removed."""
    path = store.run_path(trial)
    found = Run(path) if (path / "run.json").exists() else None
    if found is not None and found.state == "damaged":
        remove(path)
        return None
    return found


def _row_of_error(trial: Trial, error: FirstlightError, seconds: float) -> Row:
    state = "diverged" if isinstance(error, DivergedError) else "failed"
    return {**head(trial), "state": state, "objective": None, "figures": {}, "seconds": round(seconds, 3), "why": str(error)}


def _carry_out(trial: Trial, study: Study, store: Store, data_dir: Path) -> Row:
    """Train one trial into its run folder, or go on with it, and return its row."""
    path, quiet, began = store.run_path(trial), Console(quiet=True), time.monotonic()
    try:
        found = _found(trial, store)
        if found is not None and found.state == "finished":
            return row_of(trial, found, study.objective)  # a kill came between the run and its row
        going_on = GoingOn(found) if found is not None else None
        run = run_training(study.config(trial), path, quiet, data_dir, resumed=going_on, pictures=False)
    except (InterruptedRunError, StorageError):
        raise
    except FirstlightError as error:
        return _row_of_error(trial, error, time.monotonic() - began)
    return row_of(trial, run, study.objective)


def _write_down(log: Appender, row: Row) -> None:
    log.write_lines([json.dumps(row, ensure_ascii=False)])
    log.sync()


def _sentence(row: Row, rows: Any, study: Study) -> str:
    values = [other["objective"] for other in rows if other["objective"] is not None]
    best = f"best {study.objective} {study.better(values):.4f}" if values else "no trial has a figure yet"
    return f"{brief(str(row['point']))}  {best}"
