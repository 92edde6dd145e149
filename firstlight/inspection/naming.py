"""What was done to one set of images to make another: the likely corruption, with its strength, and how sure that is.

Analysis by synthesis. A sample of the first set is corrupted in every way and to every degree that is tried, and what comes nearest to
the second set by its features is named. The two sets need not hold the same images. Reading order: name_corruption, _Search, ways.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firstlight.inspection.corruptions import GEOMETRY, TERMS, Originals, corrupt
from firstlight.inspection.features import Profile, distance, features, weights
from firstlight.inspection.sample import Sample

BILINEAR = 0.5
"""Where the fit of a warp's interpolation begins, between a cubic spline and bilinear."""
SCREENED = 300
"""Images on which every way of warping is tried before the best are fitted on all."""
FITTED = 3
"""Ways of warping that are fitted, those that came nearest on few images, beside the nearest of each kind."""
COARSE, FINE = 3, 3
"""Times that the step of a fit is halved for every way, and further for the two that came nearest."""
MAX_KINDS = 4
"""Kinds that are named at most."""
RESAMPLES = 50
"""Bootstrap resamples of the images by which it is said how sure a name is."""
RIVALS = 3
"""Other kinds that a name is held against in them, those that came next."""
SPLITS = 20
"""Pairs of draws of the first set, for their distance."""
PAIRED_FLOOR = (0.02, 0.005)
"""What stands for the distance of two draws where both sets hold the same images: it only tells a change from rounding."""

Recipe = Mapping[str, float]


@dataclass(frozen=True)
class Way:
    """One way to corrupt: terms that are fitted together, and their strengths where the search begins."""

    terms: tuple[str, ...]
    starts: tuple[tuple[float, ...], ...]

    @property
    def kind(self) -> str:
        """Which of the eight kinds it is."""
        return TERMS[self.terms[0]].kind

    @property
    def warps(self) -> bool:
        """Whether pixels move."""
        return self.terms[0] in GEOMETRY

    def at(self, strengths: Sequence[float]) -> dict[str, float]:
        """Return the terms with these strengths."""
        return dict(zip(self.terms, strengths, strict=True))

    def without(self, recipe: Recipe) -> dict[str, float]:
        """Return a recipe without the terms of this way; the interpolation stays for others that warp, and alone it does nothing."""
        return {name: strength for name, strength in recipe.items() if name not in self.terms or name == "bilinear"}


def ways(size: int) -> list[Way]:
    """Return every way that is tried on images of about `size` pixels."""
    turns = [180, *(sign * degrees for degrees in (6, 14, 25, 40, 60, 80, 100, 120, 140, 160) for sign in (-1, 1))]
    leans = [-0.7, -0.45, -0.25, -0.1, 0.1, 0.25, 0.45, 0.7]
    sizes = [0.5, 0.65, 0.8, 0.92, 1.08, 1.2, 1.4, 1.8]
    moves = [share * size for share in (-0.25, -0.125, 0.0, 0.125, 0.25)]
    factors = [0.15, 0.3, 0.5, 0.7, 0.85, 1.2, 1.5, 2.2]
    starts_of: dict[str, Sequence[float]] = {
        "rotation": turns,
        "rotation_drawn": [7, 15, 30, 60, 120, 180],
        "shear_x": leans,
        "shear_y": leans,
        "shear_x_drawn": [0.12, 0.3, 0.6],
        "scale": sizes,
        "scale_drawn": [1.06, 1.15, 1.3],
        "move_drawn": [share * size for share in (0.05, 0.12, 0.25)],
    }
    return [
        *(Way((term, "bilinear"), tuple((float(start), BILINEAR) for start in starts)) for term, starts in starts_of.items()),
        Way(("move_x", "move_y", "bilinear"), tuple((right, down, BILINEAR) for right, down in itertools.product(moves, moves))),
        Way(("blur",), tuple((share * size,) for share in (0.015, 0.03, 0.06, 0.1))),
        *(Way((name,), tuple((factor,) for factor in factors)) for name in ("contrast", "contrast_middle", "contrast_black")),
        Way(("inversion",), ((1.0,),)),
        Way(("noise",), ((0.03,), (0.07,), (0.15,), (0.3,), (0.5,))),
    ]


def bounds(size: int) -> dict[str, tuple[float, float, float]]:
    """Return for each term the first step of a fit, and the least and the greatest strength."""
    return {
        "rotation": (5, -180, 180),
        "rotation_drawn": (8, 0, 180),
        "shear_x": (0.1, -1.5, 1.5),
        "shear_y": (0.1, -1.5, 1.5),
        "shear_x_drawn": (0.1, 0, 1.5),
        "scale": (0.06, 0.2, 3),
        "scale_drawn": (0.08, 1, 2),
        "move_x": (0.06 * size, -size, size),
        "move_y": (0.06 * size, -size, size),
        "move_drawn": (0.04 * size, 0, size),
        "bilinear": (0.4, -0.5, 1.5),
        "blur": (0.01 * size, 0, size / 4),
        "contrast": (0.1, 0.02, 10),
        "contrast_middle": (0.1, 0.02, 10),
        "contrast_black": (0.1, 0.02, 10),
        "inversion": (0, 1, 1),
        "noise": (0.03, 0, 2),
    }


@dataclass(frozen=True)
class Named:
    """One corruption that was found.

    recipe: its terms with their strengths. explained: share of the distance between the sets that goes away as it is added to the stronger
    ones. sure: share of resamples of the images in which no other kind came nearer. rival: the kind that came next.
    """

    kind: str
    recipe: Recipe
    explained: float
    sure: float
    rival: str


@dataclass(frozen=True)
class Naming:
    """What was found between two sets.

    named: the strongest first. recipe: all that was named. before, after: distances between the sets as they are, and with the recipe done
    to the first. floor, floor_std: distance of two draws of the first set, and how much that varies. tried: the distance that each kind
    leaves when it is taken for the strongest, the nearest first.
    """

    named: list[Named]
    recipe: Recipe
    before: float
    after: float
    floor: float
    floor_std: float
    tried: dict[str, float]

    @property
    def left(self) -> float:
        """Share of the distance that nothing named explains, 0 to 1."""
        return min(max(0.0, self.after - self.floor) / max(self.before - self.floor, 1e-9), 1.0)


def name_corruption(sample: Sample, *, seed: int = 0, watch: Callable[[str], None] = lambda _: None) -> Naming:
    """Return which of the eight kinds of corruption lead from the first images of a sample to the second, the strongest first.

    watch: called with a line for each kind that is looked for, which takes some ten seconds for 2,000 images of 28 x 28.
    """
    search = _Search(sample, seed)
    floor, floor_std = search.floor
    before = after = search.distance({})
    worth = max(4 * floor_std, 0.02 * (before - floor))
    recipe: dict[str, float] = {}
    found: dict[Way, tuple[float, str]] = {}
    first_tried: dict[str, float] = {}
    while after > floor + 3 * floor_std and len(found) < MAX_KINDS:
        watch(f"looking for corruption {len(found) + 1}: distance {after:.3f}, two draws of the same images {floor:.3f}")
        tried = search.best_of_each_kind(recipe, {way.kind for way in found})
        first_tried = first_tried or {way.kind: reached for reached, way, _ in tried}
        reached, way, strengths = tried[0]
        if after - reached < worth:
            break
        found[way] = search.resample(recipe, tried, seed)
        recipe |= strengths
        for old in found if len(found) > 1 else ():
            recipe |= search.fit(old, recipe, [recipe[term] for term in old.terms], 0.25, FINE)[1]
        after = search.distance(recipe)
    for way in [*found]:
        if len(found) > 1 and search.distance(way.without(recipe)) - after < worth:
            found.pop(way)
            recipe = way.without(recipe)
            after = search.distance(recipe)
    return Naming(_ranked(search, found, recipe, before, floor), recipe, before, after, floor, floor_std, first_tried)


def _ranked(search: "_Search", found: Mapping[Way, tuple[float, str]], recipe: Recipe, before: float, floor: float) -> list[Named]:
    """Return what was found, first what would be missed most, with the share of the distance that goes away with each."""
    named: list[Named] = []
    done: dict[str, float] = {}
    reached = before
    for way in sorted(found, key=lambda way: -search.distance(way.without(recipe))):
        own = {term: recipe[term] for term in way.terms}
        done |= own
        nearer = search.distance(done)
        shown = {term: strength for term, strength in own.items() if term != "bilinear"}
        named.append(Named(way.kind, shown, min((reached - nearer) / max(before - floor, 1e-9), 1.0), *found[way]))
        reached = nearer
    return named


class _Search:
    """A sample, and the distance between its two sets after a recipe was done to the first."""

    def __init__(self, sample: Sample, seed: int) -> None:
        self.sample = sample
        self.paired = sample.other is None
        self.size = min(sample.first.shape[2:])
        self.bounds = bounds(self.size)
        self.originals = Originals.of(sample.first, seed)
        self.places = _places(sample.labels)
        self.wanted = features(sample.second)
        self.target = Profile.of(self.wanted, self.places)
        plain = features(sample.first)
        self.weight = weights(Profile.of(plain, self.places), self.target)
        self.floor = PAIRED_FLOOR if sample.other is None else self._floor(torch.stack((plain, features(sample.other))), seed)

    def _floor(self, draws: Tensor, seed: int) -> tuple[float, float]:
        """Return the mean distance of two draws of the first set, [2, N, features], and its deviation over swaps of their images."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(SPLITS):
            swapped = torch.rand(draws.shape[1], generator=generator) < 0.5
            halves = torch.where(swapped[:, None], draws, draws.flip(0))
            found.append(distance(Profile.of(halves[0], self.places), Profile.of(halves[1], self.places), self.weight))
        return float(np.mean(found)), float(np.std(found))

    def features(self, recipe: Recipe, num: int | None = None) -> Tensor:
        """Return the features of the first images after the recipe."""
        return features(corrupt(self.originals if num is None else self.originals.first(num), recipe))

    def distance(self, recipe: Recipe, num: int | None = None) -> float:
        """Return the distance to the second images, by all images or the first `num`."""
        if num is None:
            return distance(Profile.of(self.features(recipe), self.places), self.target, self.weight)
        places = _places(self.sample.labels[:num])
        target = Profile.of(self.wanted[:num], places) if self.paired else self.target
        return distance(Profile.of(self.features(recipe, num), places), target, self.weight)

    def best_of_each_kind(self, recipe: Recipe, without: set[str]) -> list[tuple[float, Way, dict[str, float]]]:
        """Return distance, way and strengths of the nearest way of each kind that may still be added to a recipe, the nearest first.

        A way has to come nearer than one with fewer terms by what chance would do.
        """
        num = min(SCREENED, len(self.sample.first))
        screened = [
            (*min((self.distance({**recipe, **way.at(start)}, num), start) for start in way.starts), way)
            for way in ways(self.size)
            if way.kind not in without
        ]
        warps = sorted((entry for entry in screened if entry[2].warps), key=lambda entry: entry[0])
        nearest = {entry[2].kind: entry for entry in reversed(warps)}
        chosen = [entry for entry in screened if not entry[2].warps or entry in warps[:FITTED] or entry is nearest[entry[2].kind]]
        fitted = [(*self.fit(way, recipe, start), way) for _, start, way in chosen]
        best: dict[str, tuple[float, Way, dict[str, float]]] = {}
        for reached, strengths, way in sorted(fitted, key=self._handicapped):
            best.setdefault(way.kind, (reached, way, strengths))
        leaders = [(*self.fit(way, recipe, [*at.values()], 0.5**COARSE, FINE), way) for _, way, at in [*best.values()][:2]]
        ordered = [(reached, way, strengths) for reached, strengths, way in sorted(leaders, key=self._handicapped)]
        return ordered + [*best.values()][2:]

    def _handicapped(self, entry: tuple[float, Recipe, Way]) -> float:
        return entry[0] + self.floor[1] * len(entry[2].terms)

    def fit(
        self, way: Way, recipe: Recipe, start: Sequence[float], share: float = 1.0, halvings: int = COARSE
    ) -> tuple[float, dict[str, float]]:
        """Return the least distance and the strengths of a way, beside a recipe that stays; share: of the first steps.

        Each strength goes on as long as that helps, the interpolation first, for a wrong one hides the others; then the steps are halved.
        """
        best, at = self.distance({**recipe, **way.at(start)}), way.at(start)
        for halving in range(halvings):
            for term, sign in itertools.product(reversed(way.terms), (1, -1)):
                step, low, high = self.bounds[term]
                while True:
                    moved = {**at, term: min(max(at[term] + sign * step * share / 2**halving, low), high)}
                    if moved == at or (reached := self.distance({**recipe, **moved})) >= best:
                        break
                    best, at = reached, moved
        return best, at

    def resample(self, recipe: Recipe, tried: Sequence[tuple[float, Way, Recipe]], seed: int) -> tuple[float, str]:
        """Return in which share of resamples the first way tried is nearer than its rivals and than none, and the first rival."""
        found = [self.features({**recipe, **strengths}) for _, _, strengths in tried[: 1 + RIVALS]] + [self.features(recipe)]
        generator = torch.Generator().manual_seed(seed)
        wins = 0
        for _ in range(RESAMPLES):
            mine = _drawn_again(self.places, generator)
            theirs = mine if self.paired else _drawn_again(self.places, generator)
            target = Profile.of(self.wanted, theirs)
            near = [distance(Profile.of(values, mine), target, self.weight) for values in found]
            wins += near[0] == min(near)
        return wins / RESAMPLES, tried[1][1].kind if len(tried) > 1 else "none"


def _places(labels: Tensor) -> list[Tensor]:
    return [(labels == label).nonzero().flatten() for label in labels.unique()]


def _drawn_again(places: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return as many images of each class, drawn with replacement (Efron 1979)."""
    return [chosen[torch.randint(len(chosen), (len(chosen),), generator=generator)] for chosen in places]
