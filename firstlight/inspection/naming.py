"""What was done to one set of images to make another: the likely corruption, with its strength, and how sure that is.

Analysis by synthesis. A sample of the first set is corrupted in every way and to every degree that is tried, and what comes nearest to
the second set by its features is named. The two sets need not hold the same images. Reading order: name_corruption, _Search, WAYS.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firstlight.inspection.corruptions import TERMS, Chance, corrupt
from firstlight.inspection.features import Profile, distance, features, weights
from firstlight.inspection.sample import Sample

SCREENED = 400
"""Images on which every way is tried before the best are fitted on all."""
FITTED = 6
"""Ways that are fitted, those that came nearest on few images."""
HALVINGS = 5
"""Times that the step of a fit is halved."""
MAX_KINDS = 4
RESAMPLES = 50
SPLITS = 20
PAIRED_FLOOR = (0.02, 0.005)

Recipe = Mapping[str, float]


@dataclass(frozen=True)
class Way:
    """One way to corrupt: terms that are fitted together, the strengths where the search begins, and its first step."""

    terms: tuple[str, ...]
    starts: tuple[tuple[float, ...], ...]
    step: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        """Which of the eight kinds it is."""
        return TERMS[self.terms[0]].kind

    def at(self, strengths: Sequence[float]) -> dict[str, float]:
        """Return the terms with these strengths."""
        return dict(zip(self.terms, strengths, strict=True))

    def moved(self, strengths: tuple[float, ...], place: int, by: float) -> tuple[float, ...]:
        """Return the strengths with one of them moved, within what is allowed."""
        return (*strengths[:place], min(max(strengths[place] + by, self.low), self.high), *strengths[place + 1 :])


def _way(term: str, starts: Sequence[float], step: float, low: float, high: float) -> Way:
    return Way((term,), tuple((float(start),) for start in starts), step, low, high)


def ways(size: int) -> list[Way]:
    """Return every way that is tried on images of about `size` pixels."""
    moves = [share * size for share in (-0.25, -0.125, 0.0, 0.125, 0.25)]
    return [
        _way("rotation", [*range(-180, -15, 15), -10, 10, *range(15, 180, 15)], 5, -180, 180),
        _way("rotation_drawn", [10, 20, 35, 50, 90, 180], 8, 0, 180),
        _way("shear_x", [-0.7, -0.45, -0.2, 0.2, 0.45, 0.7], 0.1, -1.5, 1.5),
        _way("shear_y", [-0.7, -0.45, -0.2, 0.2, 0.45, 0.7], 0.1, -1.5, 1.5),
        _way("shear_x_drawn", [0.2, 0.4, 0.7], 0.1, 0, 1.5),
        _way("scale", [0.5, 0.65, 0.8, 0.9, 1.1, 1.25, 1.5, 1.8], 0.06, 0.2, 3),
        _way("scale_drawn", [1.1, 1.25, 1.45], 0.08, 1, 2),
        Way(("move_x", "move_y"), tuple(itertools.product(moves, moves)), 0.06 * size, -size, size),
        _way("move_drawn", [share * size for share in (0.05, 0.12, 0.25)], 0.04 * size, 0, size),
        _way("blur", [share * size for share in (0.015, 0.03, 0.06, 0.1)], 0.01 * size, 0, size / 4),
        *(
            _way(name, [0.15, 0.3, 0.5, 0.7, 0.85, 1.2, 1.5, 2.2], 0.1, 0.02, 10)
            for name in ("contrast", "contrast_middle", "contrast_black")
        ),
        _way("inversion", [1.0], 0, 1, 1),
        _way("noise", [0.03, 0.07, 0.15, 0.3, 0.5], 0.03, 0, 2),
    ]


@dataclass(frozen=True)
class Named:
    """One corruption that was found.

    recipe: its terms with their strengths. explained: share of the distance between the sets that goes away as it is added to those found
    before it. sure: share of resamples of the images in which no other kind came nearer. rival: the kind that came next.
    """

    kind: str
    recipe: Recipe
    explained: float
    sure: float
    rival: str


@dataclass(frozen=True)
class Naming:
    """What was found between two sets.

    named: the strongest first. before, after: distances between the sets as they are, and with everything named done to the first.
    floor, floor_std: distance of two draws of the first set, and how much that varies.
    """

    named: list[Named]
    before: float
    after: float
    floor: float
    floor_std: float
    num_images: int
    paired: bool

    @property
    def recipe(self) -> Recipe:
        """Everything that was named, as one recipe."""
        return {name: strength for found in self.named for name, strength in found.recipe.items()}

    @property
    def left(self) -> float:
        """Share of the distance that nothing named explains, 0 to 1."""
        return max(0.0, (self.after - self.floor) / max(self.before - self.floor, 1e-9)) if self.named else 1.0


def name_corruption(sample: Sample, *, seed: int = 0, watch: Callable[[str], None] = lambda _: None) -> Naming:
    """Return which of the eight kinds of corruption lead from the first images of a sample to the second, the strongest first.

    watch: called with a line for each step of the search, which takes some ten seconds for a thousand images of 28 x 28.
    """
    search = _Search(sample, seed)
    floor, floor_std = search.floor(seed) if sample.other is not None else PAIRED_FLOOR
    before = after = search.distance({})
    worth = max(4 * floor_std, 0.02 * (before - floor))
    found: dict[Way, dict[str, float]] = {}
    sure: dict[str, tuple[float, str]] = {}
    while after > floor + 3 * floor_std and len(found) < MAX_KINDS:
        watch(f"looking for corruption {len(found) + 1}: distance {after:.2f}, two draws of the same images {floor:.2f}")
        tried = search.best_of_each_kind(_joined(found), {way.kind for way in found})
        gained, way, strengths = tried[0]
        if after - gained < worth:
            break
        sure[way.kind] = search.resample(_joined(found), [strengths for _, _, strengths in tried], [way.kind for _, way, _ in tried], seed)
        found[way] = strengths
        for old in [*found] if len(found) > 1 else ():
            found[old] = search.fit(old, _joined(found, without=old), tuple(found[old].values()), share=0.25)[1]
        after = search.distance(_joined(found))
    for way in [*found]:
        if len(found) > 1 and search.distance(_joined(found, without=way)) - after < worth:
            del found[way]
            after = search.distance(_joined(found))
    return Naming(_ranked(search, found, sure, before, floor), before, after, floor, floor_std, len(sample.first), sample.other is None)


def _joined(found: Mapping[Way, Recipe], without: Way | None = None) -> dict[str, float]:
    return {name: strength for way, recipe in found.items() if way is not without for name, strength in recipe.items()}


def _ranked(
    search: "_Search", found: Mapping[Way, Recipe], sure: Mapping[str, tuple[float, str]], before: float, floor: float
) -> list[Named]:
    """Return what was found, first what would be missed most, with the share of the distance that goes away with each."""
    order = sorted(found, key=lambda way: -search.distance(_joined(found, without=way)))
    named, recipe, reached = [], {}, before
    for way in order:
        recipe |= found[way]
        nearer = search.distance(recipe)
        share = (reached - nearer) / max(before - floor, 1e-9)
        named.append(Named(way.kind, found[way], min(share, 1.0), *sure[way.kind]))
        reached = nearer
    return named


class _Search:
    """A sample, and the distance between its two sets after a recipe was done to the first."""

    def __init__(self, sample: Sample, seed: int) -> None:
        self.sample = sample
        self.paired = sample.other is None
        self.size = min(sample.first.shape[2:])
        self.chance = Chance.of(sample.first, seed)
        self.places = _places(sample.labels)
        self.wanted = features(sample.second)
        self.target = Profile.of(self.wanted, self.places)
        self.plain = features(sample.first)
        self.weight = weights(Profile.of(self.plain, self.places), self.target)

    def floor(self, seed: int) -> tuple[float, float]:
        """Return the mean distance of two draws of the first set, and its deviation."""
        assert self.sample.other is not None
        both = torch.stack((self.plain, features(self.sample.other)))
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(SPLITS):
            swapped = torch.rand(both.shape[1], generator=generator) < 0.5
            halves = torch.where(swapped[:, None], both[0], both[1]), torch.where(swapped[:, None], both[1], both[0])
            found.append(distance(*(Profile.of(half, self.places) for half in halves), self.weight))
        return float(np.mean(found)), float(np.std(found))

    def features(self, recipe: Recipe, num: int | None = None) -> Tensor:
        """Return the features of the first images after the recipe."""
        return features(corrupt(self.sample.first[:num], recipe, self.chance if num is None else self.chance.first(num)))

    def distance(self, recipe: Recipe, num: int | None = None) -> float:
        """Return the distance to the second images, by all images or the first `num`."""
        if num is None:
            return distance(Profile.of(self.features(recipe), self.places), self.target, self.weight)
        places = _places(self.sample.labels[:num])
        target = Profile.of(self.wanted[:num], places) if self.paired else self.target
        return distance(Profile.of(self.features(recipe, num), places), target, self.weight)

    def best_of_each_kind(self, recipe: Recipe, without: set[str]) -> list[tuple[float, Way, dict[str, float]]]:
        """Return distance, way and strengths of the nearest way of each kind that may still be added to a recipe, the nearest first."""
        open_ways = [way for way in ways(self.size) if way.kind not in without]
        num = min(SCREENED, len(self.sample.first))
        screened = sorted(
            ((*min((self.distance({**recipe, **way.at(start)}, num), start) for start in way.starts), way) for way in open_ways),
            key=lambda entry: entry[0],
        )
        fitted = sorted(((*self.fit(way, recipe, start), way) for _, start, way in screened[:FITTED]), key=lambda entry: entry[0])
        best: dict[str, tuple[float, Way, dict[str, float]]] = {}
        for reached, strengths, way in fitted:
            best.setdefault(way.kind, (reached, way, strengths))
        return list(best.values())

    def fit(self, way: Way, recipe: Recipe, start: Sequence[float], share: float = 1.0) -> tuple[float, dict[str, float]]:
        """Return the least distance and the strengths of a way, beside a recipe that stays; share: of the way's own first step.

        Each strength goes on as long as that helps; then the step is halved.
        """
        best, at = self.distance({**recipe, **way.at(start)}), tuple(start)
        for halving in range(HALVINGS if way.step else 0):
            step = way.step * share / 2**halving
            for place, sign in itertools.product(range(len(at)), (1, -1)):
                while (moved := way.moved(at, place, sign * step)) != at and (reached := self.distance({**recipe, **way.at(moved)})) < best:
                    best, at = reached, moved
        return best, way.at(at)

    def resample(self, recipe: Recipe, additions: Sequence[Recipe], kinds: Sequence[str], seed: int) -> tuple[float, str]:
        """Return in which share of resamples of the images the first addition is nearer than all others and than none, and its rival."""
        found = [self.features({**recipe, **addition}) for addition in additions] + [self.features(recipe)]
        generator = torch.Generator().manual_seed(seed)
        wins = 0
        for _ in range(RESAMPLES):
            mine = _drawn_again(self.places, generator)
            theirs = mine if self.paired else _drawn_again(self.places, generator)
            target = Profile.of(self.wanted, theirs)
            near = [distance(Profile.of(values, mine), target, self.weight) for values in found]
            wins += near[0] == min(near)
        return wins / RESAMPLES, kinds[1] if len(kinds) > 1 else "none"


def _places(labels: Tensor) -> list[Tensor]:
    return [(labels == label).nonzero().flatten() for label in labels.unique()]


def _drawn_again(places: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return as many images of each class, drawn with replacement (Efron 1979)."""
    return [chosen[torch.randint(len(chosen), (len(chosen),), generator=generator)] for chosen in places]
