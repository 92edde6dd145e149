"""One trial, trained into its run folder or gone on with there; and the row, where it ended."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from firstlight.config.describe import to_dict
from firstlight.config.schema import Config
from firstlight.data.build import LastData
from firstlight.engine.lanes import train_lanes
from firstlight.engine.memory import trim
from firstlight.engine.sources import config_from
from firstlight.engine.train import GoingOn, run_training
from firstlight.errors import DivergedError, FirstlightError, InterruptedRunError, StorageError
from firstlight.files import remove
from firstlight.studies.pruning import is_behind
from firstlight.studies.store import Log, head_in, pruned_row, row_of
from firstlight.studies.trial import Place, Row, Trial, failed, head
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run


def train_trial(trial: Trial, config: Config, place: Place, log: Log) -> Row | None:
    """Train a trial, from its checkpoint where it has one, and return its row; None where it paused at `trial.pause_after`.

    log: that of the study, which tells how others did by epoch. Raises InterruptedRunError and StorageError; every other error of ours
    is the row of a trial that failed.
    """
    began = time.monotonic()
    try:
        return _train(trial, _on_one_thread(config) if place.one_thread else config, place, log)
    except (InterruptedRunError, StorageError):
        raise
    except FirstlightError as error:
        state = "diverged" if isinstance(error, DivergedError) else "failed"
        return failed(trial, str(error), state=state, seconds=time.monotonic() - began)
    finally:
        trim()  # its network is gone only now


def train_together(
    trials: Sequence[tuple[Trial, Config]], place: Place, log: Log, *, threads: int, load: LastData, tell: Callable[[str], None]
) -> list[tuple[Trial, Row | None]]:
    """Train trials of one group side by side, as train_trial each alone, and write their rows; trials that others hold are left out.

    load: reads the data, and knows those of the group before; tell: is given a line about where training stands now and then.
    """
    ours = [(trial, config) for trial, config in trials if log.claim(trial)]
    outcomes: list[tuple[Trial, Row | None]] = []
    todo: list[tuple[Trial, Config, Run | None]] = []
    for trial, config in ours:
        run = _standing(trial, config, place) if (row := log.find(trial)) is None else None
        if row is None and run is not None and run.state == "finished":
            row = row_of(trial, run.path, place.objective, keeps_curve=place.keeps_curve)  # a kill came between the run and its row
        if row is not None:
            outcomes.append((trial, row))
        else:
            todo.append((trial, config, run))
    began = time.monotonic()
    ended = (
        []
        if not todo
        else train_lanes(
            [config for _, config, _ in todo],
            [place.path / trial.name for trial, _, _ in todo],
            Console(quiet=True),
            place.data_dir_path,
            resumed=[run for _, _, run in todo],
            pause_after=trials[0][0].pause_after,
            threads=threads,
            entries=[{"trial": head(trial)} for trial, _, _ in todo],
            load=load,
            tell=tell,
        )
    )
    trim()
    seconds = round((time.monotonic() - began) / max(1, len(todo)), 3)  # its share: the run itself says how long all took
    for (trial, _, _), came in zip(todo, ended, strict=True):
        if isinstance(came, FirstlightError):
            outcomes.append((trial, failed(trial, str(came), state="diverged", seconds=seconds)))
        elif came.state == "finished":
            outcomes.append((trial, {**row_of(trial, came.path, place.objective, keeps_curve=place.keeps_curve), "seconds": seconds}))
        else:
            outcomes.append((trial, None))
    if new := [row for trial, row in outcomes if row is not None and trial.name not in log.rows]:
        log.write(new, sync=False)
    log.sync()
    for trial, row in outcomes:
        if row is None:
            log.let_go(trial)
    return outcomes


def train_plain(trial: Trial, settings: Mapping[str, Any], place: Place, log: Log) -> Row | None:
    """Do what train_trial does with a config as plain data, which came from another process."""
    return train_trial(trial, config_from(settings), place, log)


def _train(trial: Trial, config: Config, place: Place, log: Log) -> Row | None:
    path = place.path / trial.name
    run = _standing(trial, config, place)
    if run is None or run.state != "finished":
        behind = ""

        def falls_behind(epoch: int, row: Mapping[str, float]) -> bool:
            nonlocal behind
            behind = is_behind(trial, epoch, row.get(place.objective), log, better=place.better)
            return bool(behind)

        run_training(
            config,
            path,
            Console(quiet=True),
            place.data_dir_path,
            resumed=None if run is None else GoingOn(run),
            pause_after=trial.pause_after,
            pause_when=falls_behind if place.prunes else None,
            entries={"trial": head(trial)},
            alone=False,
        )
        if Run(path).state != "finished":
            return pruned_row(trial, path, place.objective, behind) if behind else None
    return row_of(trial, path, place.objective, keeps_curve=place.keeps_curve)


def _standing(trial: Trial, config: Config, place: Place) -> Run | None:
    """Return the run that stands in the trial's folder, if it can be read and is of that trial. Raises StorageError for another one."""
    path = place.path / trial.name
    if not (path / "run.json").exists():
        return None
    run = Run(path)
    if run.state == "damaged":
        remove(path)
        return None
    told = head_in(path)
    if (told != head(trial)) if told is not None else (run.config != json.loads(json.dumps(to_dict(config)))):
        raise StorageError(f"{path} holds a run that is not trial {trial.name} of this study; move it away")
    return run


def _on_one_thread(config: Config) -> Config:
    """Return the config for a process beside others; one that names no threads finds one in its environment."""
    return config if config.device.threads is None else replace(config, device=replace(config.device, threads=1))
