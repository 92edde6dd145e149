"""Trials as tasks of a Ray cluster (Ray Core; extra `ray`): each does what a worker process does, in the study's folder that all share."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from firstlight.config.describe import to_dict
from firstlight.config.schema import Config
from firstlight.engine.ray_cluster import Cluster
from firstlight.engine.signals import stop_requests
from firstlight.errors import FirstlightError, InterruptedRunError
from firstlight.studies.store import Log
from firstlight.studies.trial import Place, Trial
from firstlight.studies.worker import carry_out
from firstlight.studies.workers import LOOK_SECONDS, STOP_SECONDS, Outcome, error_of


class Tasks:
    """Tasks of one CPU each, as many at a time as the cluster has."""

    def __init__(self, place: Place, log: Log) -> None:
        self._cluster = Cluster(instead="take --workers N")
        self._ray = self._cluster.ray
        self._place = json.dumps(asdict(place))
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(carry_out_message)
        self._running: dict[Any, Trial] = {}

    @property
    def num_free(self) -> int:
        """CPUs of the cluster that have no task of ours; it may grow while we work."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1))) - len(self._running)

    def start(self, trial: Trial, config: Callable[[], Config]) -> None:
        """Hand the trial to the cluster."""
        message = json.dumps({"trial": asdict(trial), "config": to_dict(config())})
        self._running[self._task.remote(self._place, message)] = trial

    def wait(self) -> list[Outcome]:
        """Return what the tasks answered; one whose process or machine died says so."""
        if not self._running:
            return []
        with stop_requests() as stop:  # an exception of ours would leave Ray's code as a SystemError
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=LOOK_SECONDS)
        if stop.asked:
            raise InterruptedRunError("the leader was asked to stop; give the same command to go on", exit_code=stop.exit_code)
        return [self._fetched(task) for task in done]

    def close(self) -> None:
        """Ask the tasks to save and leave; let the cluster go."""
        for task in self._running:
            self._ray.cancel(task, recursive=False)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=STOP_SECONDS)
        self._cluster.close()

    def _fetched(self, task: Any) -> Outcome:
        trial = self._running.pop(task)
        try:
            answer = json.loads(self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            return Outcome(trial, died=str(error).strip().splitlines()[-1])
        if "error" in answer:
            raise error_of(answer)
        return Outcome(trial, answer["row"])


def carry_out_message(place_text: str, message_text: str) -> str:
    """Do in a task what a worker process does: take the trial, train it, write its row, and answer."""
    from firstlight.studies.training import train_plain

    place, message = Place(**json.loads(place_text)), json.loads(message_text)
    trial, log = Trial(**message["trial"]), _log_of(place.path)
    try:
        row = carry_out(trial, log, lambda: train_plain(trial, message["config"], place, log), writes=not place.one_writer)
        return json.dumps({"row": row})
    except InterruptedRunError:
        raise
    except FirstlightError as error:
        return json.dumps({"error": str(error), "code": error.exit_code})
    finally:
        log.let_go(trial)


@cache
def _log_of(path: Path) -> Log:
    """Return the log of a study, opened once a process: a second handle would drop the claims of the first when it is closed."""
    return Log(path)
