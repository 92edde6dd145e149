"""Carry out a study: every trial that has no row yet is trained, resumed where it stands half done, and written down.

Reading order: open_study, run_study, _lead. A kill at any moment loses at most the steps behind a trial's last checkpoint; whoever was
killed, each trial ends up with one row.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from firstlight.config.schema import Config
from firstlight.config.yaml import brief
from firstlight.data.build import LastData
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.signals import raising_signals
from firstlight.engine.train import trackers_of
from firstlight.errors import ConfigError, InterruptedRunError
from firstlight.files import Lock, make_dir
from firstlight.studies.plan import Way, make_plan
from firstlight.studies.search import Search, search_of
from firstlight.studies.store import Log, Store, row_of, state_in
from firstlight.studies.study import Study, load_study
from firstlight.studies.training import train_together, train_trial
from firstlight.studies.trial import Place, Row, Trial, failed
from firstlight.studies.workers import Here, Processes, Workers
from firstlight.tracking.console import Bar, Console
from firstlight.tracking.environment import network_filesystem
from firstlight.tracking.trackers import Trackers
from firstlight.tracking.writer import check_name

MAX_DEATHS = 3
"""Workers that a trial may take with it before it is given up."""

StartWorkers = Callable[[Place, Log], Workers]


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


def run_study(
    study: Study,
    store: Store,
    console: Console,
    *,
    data_dir: str | Path | None = None,
    workers: int | Literal["ray"] = 1,
    lanes: Way = "auto",
    start: StartWorkers | None = None,
) -> list[Row]:
    """Train all trials of a study that have no row yet; return the rows of all that ended.

    workers: 1 is this process, more are so many child processes of one thread each, "ray" is a Ray cluster; start: other workers;
    lanes: train trials side by side in this process where that is faster, wherever it is possible, or nowhere.
    Raises ConfigError, InterruptedRunError after Ctrl-C or SIGTERM, and StorageError where a row could not be written.
    """
    way: Way = "off" if start is not None or study.pruning == "median" or study.sampler in ("tpe", "gp") or workers == "ray" else lanes
    start = start or _starter(workers)
    experiment = study.experiment
    chosen = trackers_of(experiment)
    make_dir(store.path)
    with Lock(store.path / "study.lock", f"study {store.path}"):
        store.open(study)
        place = Place(
            study=str(store.path.resolve()),
            data_dir=str(data_dir_of(data_dir).resolve()),
            objective=study.objective,
            better=study.direction,
            keeps_curve=study.compares_epochs,
            prunes=study.pruning == "median",
            one_thread=workers != 1,
            one_writer=network_filesystem(store.path) is not None,
        )
        log = Log(store.path)
        try:
            _rebuild(log, store, place)
            lane_runner = LaneRunner(way, place, log, workers if isinstance(workers, int) else 1)
            with Trackers(store.path, chosen, console, wait_seconds=experiment.tracking.wait_seconds) as trackers:
                trackers.start()
                return _lead(study, store, console, log, lane_runner, lambda: start(place, log))
        finally:
            log.close()


def _starter(workers: int | str) -> StartWorkers:
    if workers == "ray":
        from firstlight.studies.cluster import Tasks

        return Tasks
    if isinstance(workers, str) or workers < 1:
        raise ConfigError(f"--workers is {workers}; give a whole number of 1 or more, or ray")
    if workers == 1:
        return lambda place, log: Here(place, log, train_trial)
    return lambda place, log: Processes(workers, place)


def _rebuild(log: Log, store: Store, place: Place) -> None:
    """Write the rows again that trials.jsonl lost: a finished run folder that says which trial it is has one."""
    log.look()
    for head in store.heads_without(log.rows):
        trial = Trial(head["number"], head["point"], head["seed"])
        path = store.run_path(trial)
        if state_in(path) == "finished" and log.claim(trial) and log.find(trial) is None:
            log.write([row_of(trial, path, place.objective, keeps_curve=place.keeps_curve)], sync=False)
    log.sync()


@dataclass(frozen=True)
class LaneRunner:
    """How trials are trained side by side in this process, before the workers get what is left."""

    way: Way
    place: Place
    log: Log
    processes: int

    def train(
        self, queue: deque[Trial], study: Study, console: Console, *, tell: Callable[[str], None], is_over: Callable[[], bool]
    ) -> Iterator[Row | None]:
        """Take the trials out of the queue that are better trained together, and yield the row of each, None where it paused.

        is_over: tells ahead of each group whether the budget of time is used up, and then nothing more is begun.
        """
        load = LastData()
        trials_here = list(_configured(queue, study))
        plan = make_plan(trials_here, self.place.data_dir_path, way=self.way, processes=self.processes, load=load)
        for remark in plan.remarks:
            console.line(remark)
        for group in plan.groups:
            if is_over():
                return
            trials = [(trial, study.config(trial)) for trial in group.trials]
            for trial, row in train_together(trials, self.place, self.log, threads=group.threads, load=load, tell=tell):
                queue.remove(trial)
                yield row


def _configured(trials: Iterable[Trial], study: Study) -> Iterator[tuple[Trial, Config]]:
    """Yield trials with their experiment, but for those whose values do not go together: they fail when they are started."""
    for trial in trials:
        with suppress(ConfigError):
            yield trial, study.config(trial)


def _lead(study: Study, store: Store, console: Console, log: Log, lane_runner: LaneRunner, start: Callable[[], Workers]) -> list[Row]:
    """Ask the search for trials and the workers for rows until there are no more."""
    search = search_of(study, store, [*log.rows.values(), *store.heads_without(log.rows)])
    done = search.num_done(log.rows)
    console.line(f"study {store.path}: {search.total:,} trials, {done:,} done before")
    workers = start()  # before the handlers, for Ray sets its own
    try:
        with raising_signals():
            try:
                with console.progress("trials", search.total, done=done) as bar:
                    _work_off(study, search, console, log, lane_runner, workers, bar)
            finally:
                workers.close()
                log.sync()
    except (KeyboardInterrupt, InterruptedRunError) as error:
        code = error.exit_code if isinstance(error, InterruptedRunError) else 130
        raise InterruptedRunError(
            f"study {store.path} was interrupted, {search.num_done(log.rows):,} of {search.total:,} trials are done; "
            "give the same command to go on",
            exit_code=code,
        ) from None
    return list(log.rows.values())


def _work_off(study: Study, search: Search, console: Console, log: Log, lane_runner: LaneRunner, workers: Workers, bar: Bar) -> None:
    queue: deque[Trial] = deque()
    running: dict[str, Trial] = {}
    deaths: Counter[str] = Counter()
    began, asks, over = time.monotonic(), True, False
    done, best = search.num_done(log.rows), study.best_of(log.rows.values())

    def is_over() -> bool:
        return study.max_seconds is not None and time.monotonic() - began > study.max_seconds

    while True:
        if not over and is_over():
            over = True
            queue.clear()
            console.warn(
                f"the budget of {study.max_seconds:,.0f} s is used up; "
                f"{search.total - search.num_done(log.rows) - len(running):,} trials were not begun"
            )
        if asks and not queue and not over:
            trials, ended = search.next(log.rows, running.keys(), max(1, workers.num_free))
            queue.extend(trials)
            _write(log, ended)
            asks = bool(ended)
            if lane_runner.way != "off" and len(queue) > 1 and not running:
                for row in lane_runner.train(queue, study, console, tell=lambda text: bar.update(done, text), is_over=is_over):  # noqa: B023
                    asks = True
                    if row is not None:
                        done, best = done + 1, study.best_of([row], best)
                        bar.update(done, _sentence(row, best, study))
                if (asks and not queue) or is_over():
                    continue
        if not queue and not running:
            return
        while queue and workers.num_free:
            trial = queue.popleft()
            try:
                workers.start(trial, lambda trial=trial: study.config(trial))  # type: ignore[misc]
                running[trial.name] = trial
            except ConfigError as error:  # values that are allowed each for itself
                _write(log, [failed(trial, str(error))])
                asks = True
        for outcome in workers.wait():
            asks = True
            trial, row = running.pop(outcome.trial.name), outcome.row
            if outcome.died is not None:
                deaths[trial.name] += 1
                if deaths[trial.name] < MAX_DEATHS:
                    queue.appendleft(trial)
                    continue
                row = failed(trial, f"its worker died {MAX_DEATHS} times ({outcome.died})")
            if row is not None:
                if log.find(trial) is None:  # its worker did not write it: it died, or leaves that to us
                    _write(log, [row])
                done, best = done + 1, study.best_of([row], best)
                bar.update(done, _sentence(row, best, study))


def _write(log: Log, rows: Sequence[Row]) -> None:
    """Write rows of trials that nobody trains."""
    for row in rows:
        trial = Trial(row["number"], row["point"], row["seed"])
        if log.claim(trial) and log.find(trial) is None:
            log.write([row], sync=False)
    if rows:
        log.sync()


def _sentence(row: Row, best: float | None, study: Study) -> str:
    figure = "no trial has a figure yet" if best is None else f"best {study.objective} {best:.4f}"
    return f"{brief(str(row['point']))}  {figure}"
