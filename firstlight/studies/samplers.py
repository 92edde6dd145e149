"""Which points of a space are tried, and in which order: the whole grid, random draws (successive halving takes them too), or a Sobol
sequence.

A sampler is a function of (space, number, seed): point number i does not depend on how many are asked for, so that a finished study can be
given more of them. Nothing here has a state that a kill could lose.
"""

from collections.abc import Iterable, Iterator
from itertools import count, islice

import numpy as np

from firstlight.errors import ConfigError
from firstlight.studies.space import MAX_POINTS, Point, Space

MAX_MISSES = 1_000
"""Draws in a row of points that were drawn before, behind which there are no others."""
_MAX_SOBOL = 1111
"""Dimensions that scipy's and torch's direction numbers reach well beyond; nobody varies so many settings."""


def points(sampler: str, space: Space, num: int | None, *, seed: int = 0) -> Iterator[Point]:
    """Yield the points of a study in order, each once: `num` of them, or all that a grid or a small space has.

    Raises ConfigError for a sampler without an end and no number.
    """
    if sampler == "grid":
        return islice(space.grid(), num)
    if num is None:
        raise ConfigError(f"sampler {sampler} has no end of its own; say how many points: budget.trials=N")
    if num > MAX_POINTS:
        raise ConfigError(f"budget.trials is {num:,}; at most {MAX_POINTS:,} points are tried in one study")
    draws = _sobol if sampler == "sobol" else _random
    return islice(_distinct(map(space.at, draws(len(space.parameters), seed))), num)


def _distinct(found: Iterable[Point]) -> Iterator[Point]:
    """Yield each point once; end where so many draws in a row were known that a small space is used up."""
    seen: set[str] = set()
    misses = 0
    for point in found:
        key = repr(point)
        misses = misses + 1 if key in seen else 0
        if not misses:
            seen.add(key)
            yield point
        elif misses == MAX_MISSES:
            return


def _random(dimensions: int, seed: int) -> Iterator[list[float]]:
    """Yield independent uniform draws (Bergstra and Bengio 2012)."""
    for index in count():
        yield np.random.default_rng((seed, index)).random(dimensions).tolist()


def _sobol(dimensions: int, seed: int) -> Iterator[list[float]]:
    """Yield a scrambled Sobol sequence (Sobol 1967, Owen 1998), which leaves smaller gaps than random draws do."""
    from torch.quasirandom import SobolEngine

    if dimensions > _MAX_SOBOL:
        raise ConfigError(f"sampler sobol takes at most {_MAX_SOBOL} parameters, found {dimensions}; take sampler=random")
    engine = SobolEngine(dimensions, scramble=True, seed=seed)
    while True:
        yield engine.draw(1)[0].double().clamp(max=1 - 2**-24).tolist()
