"""Searches that learn from the rows: TPE (Bergstra et al. 2011) and Gaussian processes, by Optuna's ask and tell (extra `search`).

Optuna keeps nothing: its study is made anew in memory from the rows, and each point is asked with a seed of its own number.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from firstlight.errors import ConfigError
from firstlight.studies.samplers import points
from firstlight.studies.space import Choice, Parameter, Point, Space
from firstlight.studies.study import Study
from firstlight.studies.trial import Row, Trial, point_key

MAX_DRAWS = 1_000
"""Random draws after a point that is not known yet, where a search suggests a known one."""


class Suggest:
    """A search that suggests points one at a time, `budget.trials` in all; each is trained with all seeds."""

    def __init__(self, study: Study, heads: Sequence[Row]) -> None:
        optuna = _optuna()
        assert study.max_trials is not None
        self._study, self._points = study, {head["number"]: head["point"] for head in heads}
        self._optuna, self._distributions = optuna, {key: _distribution(optuna, one) for key, one in study.space.parameters.items()}
        self._told: dict[int, Any] = {}
        self._sampler = {"tpe": partial(optuna.samplers.TPESampler, constant_liar=True), "gp": optuna.samplers.GPSampler}[study.sampler]
        self.total = study.max_trials * study.seeds

    def num_done(self, rows: Mapping[str, Row]) -> int:
        """Return how many trials have a row."""
        return len(rows)

    def next(self, rows: Mapping[str, Row], running: Collection[str], num: int) -> tuple[list[Trial], list[Row]]:
        """Return `num` trials: the seeds that points lack first, then new points."""
        self._tell(rows)
        found: list[Trial] = []
        for number in range(self._study.max_trials or 0):
            if number not in self._points:
                if len(found) >= num or (point := self._new_point(number)) is None:
                    break
                self._points[number] = point
            trials = [Trial(number, self._points[number], seed) for seed in range(self._study.seeds)]
            found += [trial for trial in trials if trial.name not in rows and trial.name not in running]
        return found, []

    def _tell(self, rows: Mapping[str, Row]) -> None:
        """Note what Optuna is to know of the points all of whose seeds have a row."""
        for number in self._points.keys() - self._told.keys():
            seeds = [rows.get(Trial(number, self._points[number], seed).name) for seed in range(self._study.seeds)]
            found = [row for row in seeds if row is not None]
            if len(found) == len(seeds):
                self._told[number] = self._frozen(self._points[number], found)

    def _running(self, point: Point) -> Any:
        """Return what Optuna is to know of a point that others train just now, so that it looks elsewhere (Ginsbourger et al. 2010)."""
        params, distributions = self._params(point)
        return self._optuna.trial.create_trial(params=params, distributions=distributions, state=self._optuna.trial.TrialState.RUNNING)

    def _params(self, point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parameters of a point as Optuna calls them, and where each may lie."""
        params = {key: _told(self._study.space.parameters[key], value) for key, value in point.items() if key in self._distributions}
        return params, {key: self._distributions[key] for key in params}

    def _frozen(self, point: Point, rows: Sequence[Row]) -> Any:
        """Return what Optuna is to know of a point: the mean over its seeds, by epoch where it was pruned."""
        optuna, (params, distributions) = self._optuna, self._params(point)
        values = [row["objective"] for row in rows if row["objective"] is not None]
        if values:
            return optuna.trial.create_trial(params=params, distributions=distributions, value=sum(values) / len(values))
        curves = [row["curve"] for row in rows if row.get("curve")]
        if not curves:
            return optuna.trial.create_trial(params=params, distributions=distributions, state=optuna.trial.TrialState.FAIL)
        steps = {epoch: sum(curve[epoch] for curve in curves) / len(curves) for epoch in range(min(map(len, curves)))}
        state = optuna.trial.TrialState.PRUNED
        return optuna.trial.create_trial(params=params, distributions=distributions, intermediate_values=steps, state=state)

    def _new_point(self, number: int) -> Point | None:
        """Return the point that is to be tried under a number; None where the space has no other left."""
        sampler = self._sampler(seed=(self._study.sampler_seed * 1_000_003 + number) % 2**32)
        asked = self._optuna.create_study(direction="maximize" if self._study.direction == "max" else "minimize", sampler=sampler)
        asked.add_trials([self._told.get(other) or self._running(point) for other, point in sorted(self._points.items())])
        point = _suggested(asked.ask(), self._study.space)
        known = {point_key(point) for point in self._points.values()}
        if point_key(point) not in known:
            return point
        draws = points("random", self._study.space, MAX_DRAWS, seed=self._study.sampler_seed + number)
        return next((point for point in draws if point_key(point) not in known), None)


def _suggested(trial: Any, space: Space) -> Point:
    """Ask for the value of each parameter that applies, those that others depend on first."""
    point: Point = {}
    left = list(space.parameters)
    while left:
        for key in list(left):
            other, allowed = space.conditions.get(key, ("", ()))
            if other in left:
                continue
            left.remove(key)
            if not other or point.get(other) in allowed:
                point[key] = _ask(trial, key, space.parameters[key])
    return {key: point[key] for key in space.parameters if key in point}


def _ask(trial: Any, key: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return parameter.values[trial.suggest_categorical(key, list(range(len(parameter.values))))]
    if parameter.integer:
        return trial.suggest_int(key, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def _distribution(optuna: Any, parameter: Parameter) -> Any:
    """Return what Optuna calls a parameter; a choice is one of its places, for values may be lists."""
    if isinstance(parameter, Choice):
        return optuna.distributions.CategoricalDistribution(list(range(len(parameter.values))))
    if parameter.integer:
        return optuna.distributions.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _told(parameter: Parameter, value: Any) -> Any:
    return parameter.values.index(value) if isinstance(parameter, Choice) else value


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError('the samplers tpe and gp need Optuna, which is not installed; pip install "firstlight[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
