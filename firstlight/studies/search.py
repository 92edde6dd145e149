"""Which trial comes next, given the rows so far: all at once (grid, random, Sobol), or by successive halving; suggest.py holds TPE and GP.

What a search answers follows from the study, the rows and the run folders alone, so that one that was killed goes on as if it had not been.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from firstlight.studies.store import Store, curve_of, pruned_row
from firstlight.studies.study import Study
from firstlight.studies.trial import Row, Trial, point_key


class Search(Protocol):
    """Says which trials to train."""

    total: int
    """Trials that will have a row in the end."""

    def num_done(self, rows: Mapping[str, Row]) -> int:
        """Return how many of them have one."""

    def next(self, rows: Mapping[str, Row], running: Collection[str], num: int) -> tuple[list[Trial], list[Row]]:
        """Return trials to train and rows of trials that end here; neither of them while nothing runs: all is done.

        rows: by trial; running: names of trials that are being trained; num: how many more could be trained now.
        """


def search_of(study: Study, store: Store, heads: Sequence[Row]) -> Search:
    """Return the search of a study. heads: of all trials that were begun, which keep their numbers."""
    if study.sampler in ("tpe", "gp"):
        from firstlight.studies.suggest import Suggest

        return Suggest(study, heads)
    trials = numbered(study.trials(), heads)
    return Halving(study, store, trials) if study.sampler == "halving" else Listed(trials)


def numbered(trials: Iterable[Trial], heads: Sequence[Row]) -> list[Trial]:
    """Return the trials with the numbers that their points have in `heads`; a new point gets one that no other has.

    A grid that is given a value in the middle counts differently from then on, and run folders are called by these numbers.
    """
    numbers = {point_key(head["point"]): head["number"] for head in heads}
    taken = set(numbers.values())
    result = []
    for trial in trials:
        key = point_key(trial.point)
        if key not in numbers:
            numbers[key] = trial.number if trial.number not in taken else max(taken) + 1
            taken.add(numbers[key])
        result.append(trial if numbers[key] == trial.number else replace(trial, number=numbers[key]))
    return result


class Listed:
    """All trials at once, in their order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials
        self.total = len(trials)

    def num_done(self, rows: Mapping[str, Row]) -> int:
        """Return how many of the trials have a row."""
        return sum(trial.name in rows for trial in self._trials)

    def next(self, rows: Mapping[str, Row], running: Collection[str], num: int) -> tuple[list[Trial], list[Row]]:
        """Return all that have no row and are not running."""
        return [trial for trial in self._trials if trial.name not in rows and trial.name not in running], []


class Halving(Listed):
    """Successive halving (Jamieson and Talwalkar 2016): all points for a few epochs, the best 1/eta of them for eta times as many, and on.

    Points are judged by the mean of the objective over their seeds at the end of a rung.
    """

    def __init__(self, study: Study, store: Store, trials: Sequence[Trial]) -> None:
        super().__init__(trials)
        self._study, self._store = study, store
        self._rungs = rungs(study.min_epochs, study.eta, study.max_epochs)
        self._curves: dict[str, list[float]] = {}

    def next(self, rows: Mapping[str, Row], running: Collection[str], num: int) -> tuple[list[Trial], list[Row]]:
        """Return what is to be trained up to the end of the first rung that is not complete, and the rows of those who fell out before."""
        alive = list(dict.fromkeys(trial.number for trial in self._trials))
        ended: list[Row] = []
        for epoch in self._rungs:
            trials = [trial for trial in self._trials if trial.number in alive]
            is_last = epoch == self._rungs[-1]
            waiting = [trial for trial in trials if trial.name not in rows and (is_last or len(self._curve(trial, rows, epoch)) < epoch)]
            if waiting or is_last:
                pause = None if is_last else epoch
                return [replace(trial, pause_after=pause) for trial in waiting if trial.name not in running], ended
            kept = self._best(alive, trials, rows, epoch)[: max(1, len(alive) // self._study.eta)]
            for trial in trials:
                if trial.number not in kept and trial.name not in rows:
                    why = f"after epoch {epoch} not among the best {len(kept)} of {len(alive)}"
                    ended.append(pruned_row(trial, self._store.run_path(trial), self._study.objective, why))
            alive = kept
        raise AssertionError("the last rung returns")

    def _curve(self, trial: Trial, rows: Mapping[str, Row], epoch: int) -> list[float]:
        """Return the objective of a trial by epoch, as far as it was trained."""
        if trial.name in rows:
            return list(rows[trial.name].get("curve", ()))
        if len(self._curves.get(trial.name, ())) < epoch:
            self._curves[trial.name] = curve_of(self._store.run_path(trial), self._study.objective)
        return self._curves[trial.name]

    def _best(self, alive: list[int], trials: Sequence[Trial], rows: Mapping[str, Row], epoch: int) -> list[int]:
        """Return the numbers of points, best first; those of which no seed came so far are left out."""
        values: dict[int, list[float]] = {number: [] for number in alive}
        for trial in trials:
            values[trial.number] += self._curve(trial, rows, epoch)[:epoch][-1:]
        means = {number: sum(found) / len(found) for number, found in values.items() if found}
        return sorted(means, key=lambda number: means[number], reverse=self._study.direction == "max")


def rungs(least: int, eta: int, most: int) -> list[int]:
    """Return the epochs at whose end points are judged: least, least * eta, ..., and the last one, most."""
    found = [least]
    while found[-1] * eta < most:
        found.append(found[-1] * eta)
    return [*(epoch for epoch in found if epoch < most), most]
