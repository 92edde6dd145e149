"""How much each parameter of a study mattered, within the ranges that were tried.

A whole grid has an exact answer: the share of the variance that the mean over all other parameters explains. Of other points a small random
forest (Breiman 2001) is asked how much worse it predicts when a parameter is shuffled: half the rise of its squared error, in shares of the
variance, estimates the total effect (Jansen 1999). With few points that is a hint and no more.
Reading order: importance, variance_shares, forest_importance, grow, predict.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LEAST_POINTS = 10
"""Points below which a forest learns nothing."""
FORESTS, TREES = 5, 20
LEAF = 2
"""Points that a leaf of a tree holds at least; of more than 100 points one in fifty."""


@dataclass(frozen=True)
class Importance:
    """How much each parameter mattered, the most important first.

    shares: of the variance, by the main effect alone (grid) or with interactions (forest); low, high: the least and largest of
    several seeds or forests; chance: the share that a parameter without effect is expected to have, None for a forest.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    chance: tuple[float, ...] | None
    method: str
    remark: str


def importance(points: Sequence[Mapping[str, Any]], values: Sequence[Mapping[int, float]], log: Mapping[str, bool]) -> Importance | None:
    """Return how much each parameter mattered; None where fewer than two vary, or the points are too few to say.

    points: the value of each parameter that applies; values: the objective by seed; log: by parameter, whether factors count.
    """
    points, values = [point for point, value in zip(points, values, strict=True) if value], [value for value in values if value]
    varied = [key for key in log if len({repr(point.get(key)) for point in points}) > 1]
    if len(varied) < 2:
        return None
    levels = {key: list(dict.fromkeys(repr(point.get(key)) for point in points)) for key in varied}
    seeds = sorted(set(values[0]).intersection(*values))
    order = [tuple(levels[key].index(repr(point.get(key))) for key in varied) for point in points]
    is_grid = len(set(order)) == len(points) == math.prod(map(len, levels.values()))
    if is_grid and seeds and all(key in point for key in varied for point in points):
        tables = np.empty((*(len(levels[key]) for key in varied), len(seeds)))
        for index, value in enumerate(values):
            tables[order[index]] = [value[seed] for seed in seeds]
        return variance_shares(varied, np.moveaxis(tables, -1, 0))
    if len(points) < LEAST_POINTS:
        return None
    columns, groups = encode(points, varied, log)
    return forest_importance(varied, columns, groups, np.array([np.mean(list(value.values())) for value in values]))


def variance_shares(names: Sequence[str], tables: Numbers) -> Importance | None:
    """Return the share of the variance that each parameter's main effect has, exact for a whole grid [seed, values of 1, values of 2, ...].

    What is missing to 1 are interactions and, as far as they were not averaged out, seeds. None where all figures are the same.
    """
    num_points = tables[0].size
    shares = []
    for table in tables:
        total = ((table - table.mean()) ** 2).mean()
        if total == 0:
            return None
        others = [tuple(axis for axis in range(table.ndim) if axis != own) for own in range(table.ndim)]
        shares.append([float(((table.mean(other) - table.mean()) ** 2).mean() / total) for other in others])
    chance = [(size - 1) / (num_points - 1) for size in tables.shape[1:]]
    rest = 1 - float(np.sum(shares, 1).mean())
    spread = f"; mean, least and most of {len(tables)} seeds" if len(tables) > 1 else ""
    method = f"share of the variance by its main effect, exact for this grid{spread}"
    return _sorted(names, np.array(shares), chance, method, f"{max(rest, 0):.0%} of the variance are interactions and seed noise")


def forest_importance(names: Sequence[str], columns: Numbers, groups: Sequence[Sequence[int]], values: Numbers) -> Importance | None:
    """Return half the rise of the squared error on unseen points when a parameter is shuffled, in shares of the variance.

    columns: [point, column]; groups: the columns of each parameter, shuffled together; values: the objective. Always the same draws.
    """
    if values.std() == 0:
        return None
    rng, leaf = np.random.default_rng(0), max(LEAF, len(values) // 50)
    losses = np.zeros((FORESTS, len(groups)))
    seen, sums = np.zeros(len(values)), np.zeros(len(values))
    for forest in range(FORESTS):
        errors, shuffled_errors, count = 0.0, np.zeros(len(groups)), 0
        for _ in range(TREES):
            drawn = rng.integers(0, len(values), len(values))
            unseen = np.setdiff1d(np.arange(len(values)), drawn)
            tree = grow(columns[drawn], values[drawn], leaf=leaf)
            rows, truth = columns[unseen], values[unseen]
            guess = predict(tree, rows)
            seen[unseen] += 1
            sums[unseen] += guess
            errors, count = errors + float(((guess - truth) ** 2).sum()), count + len(unseen)
            for index, group in enumerate(groups):
                other = rows.copy()
                other[:, group] = rows[rng.permutation(len(rows))][:, group]
                shuffled_errors[index] += ((predict(tree, other) - truth) ** 2).sum()
        losses[forest] = (shuffled_errors - errors) / count / values.var() / 2
    there = seen > 0
    explained = 1 - float(((sums[there] / seen[there] - values[there]) ** 2).mean() / values.var())
    remark = f"the forest explains {max(explained, 0):.0%} of the variance on points it has not seen"
    if explained < 0.3:
        remark += ": too little for the bars to mean much"
    method = f"share of the variance, by shuffling (random forest of {len(values)} points; mean, least and most of {FORESTS})"
    return _sorted(names, losses, None, method, remark)


@dataclass(frozen=True)
class Tree:
    """A regression tree: nodes in arrays; a leaf has itself as both branches."""

    column: NDArray[np.int64]
    threshold: Numbers
    branches: NDArray[np.int64]
    value: Numbers
    depth: int


def grow(columns: Numbers, values: Numbers, *, leaf: int) -> Tree:
    """Return the tree that splits where the squared error falls most (Breiman et al. 1984), down to leaves of `leaf` points."""
    nodes: list[list[float]] = []

    def split(rows: NDArray[np.int64], depth: int) -> tuple[int, int]:
        place = len(nodes)
        nodes.append([0, 0.0, place, place, float(values[rows].mean())])
        best = _best_split(columns[rows], values[rows], leaf)
        if best is None:
            return place, depth
        column, threshold = best
        below = columns[rows, column] <= threshold
        (left, deep), (right, deeper) = split(rows[below], depth + 1), split(rows[~below], depth + 1)
        nodes[place][:4] = [column, threshold, left, right]
        return place, max(deep, deeper)

    _, depth = split(np.arange(len(values)), 0)
    table = np.array(nodes)
    return Tree(table[:, 0].astype(np.int64), table[:, 1], table[:, 2:4].astype(np.int64), table[:, 4], depth)


def predict(tree: Tree, columns: Numbers) -> Numbers:
    """Return what a tree says of rows [point, column]."""
    at = np.zeros(len(columns), dtype=np.int64)
    rows = np.arange(len(columns))
    for _ in range(tree.depth):
        at = tree.branches[at, (columns[rows, tree.column[at]] > tree.threshold[at]).astype(np.int64)]
    return tree.value[at]


def _best_split(columns: Numbers, values: Numbers, leaf: int) -> tuple[int, float] | None:
    """Return the column and the threshold of the best split, None where none leaves `leaf` points on both sides."""
    num = len(values)
    if num < 2 * leaf or values.min() == values.max():
        return None
    order = columns.argsort(0, kind="stable")
    sizes = np.arange(1, num)[:, None]
    sums, total = values[order].cumsum(0)[:-1], values.sum()
    gains = sums**2 / sizes + (total - sums) ** 2 / (num - sizes)
    sorted_columns = np.take_along_axis(columns, order, 0)
    allowed = (sorted_columns[1:] > sorted_columns[:-1]) & (sizes >= leaf) & (num - sizes >= leaf)
    if not allowed.any():
        return None
    place, column = np.unravel_index(np.where(allowed, gains, -np.inf).argmax(), gains.shape)
    return int(column), float(sorted_columns[place : place + 2, column].mean())


def encode(points: Sequence[Mapping[str, Any]], names: Sequence[str], log: Mapping[str, bool]) -> tuple[Numbers, list[list[int]]]:
    """Return the points as numbers [point, column], and the columns of each parameter: one, or one a name for values that are no numbers.

    A parameter that does not apply to a point lies below all its values.
    """
    columns: list[Sequence[float]] = []
    groups = []
    for name in names:
        values = [point.get(name) for point in points]
        if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
            numbers = [None if value is None else math.log(value) if log[name] and value > 0 else float(value) for value in values]
            least = min(number for number in numbers if number is not None)
            made: list[Sequence[float]] = [[least - 1 if number is None else number for number in numbers]]
        else:
            texts = list(map(repr, values))
            made = [[float(text == own) for text in texts] for own in dict.fromkeys(texts)]
        groups.append(list(range(len(columns), len(columns) + len(made))))
        columns += made
    return np.array(columns).T, groups


def _sorted(names: Sequence[str], shares: Numbers, chance: Sequence[float] | None, method: str, remark: str) -> Importance:
    means = shares.mean(0)
    order = [int(index) for index in np.argsort(-means, kind="stable")]

    def pick(row: Any) -> tuple[float, ...]:
        return tuple(float(row[index]) for index in order)

    picked = None if chance is None else pick(chance)
    return Importance(tuple(names[i] for i in order), pick(means), pick(shares.min(0)), pick(shares.max(0)), picked, method, remark)
