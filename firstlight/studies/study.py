"""What a study is: a base experiment, what is varied on it, the seeds, the objective, the budget. From a YAML file or from a command line.

```yaml
name: lr_and_init
base: mnist_mlp
set: {train: {epochs: 3}}
space: {optim.lr: "log:1e-4:1:10", model.init: [zeros, kaiming_uniform]}
sampler: grid
seeds: 5
objective: val_accuracy
budget: {trials: 100, seconds: 3600}
```
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from firstlight.config.describe import to_dict
from firstlight.config.kinds import check_settings
from firstlight.config.load import SHIPPED, find_config
from firstlight.config.override import as_kind, parse_overrides
from firstlight.config.schema import Config
from firstlight.config.yaml import brief, parse_yaml
from firstlight.engine.sources import load_config
from firstlight.errors import ConfigError, did_you_mean
from firstlight.limits import Positive, PositiveInt, Range, Seed
from firstlight.studies.samplers import points
from firstlight.studies.space import Point, Space, parse_space

OBJECTIVES = {"val_accuracy": max, "val_loss": min}
"""What a study may optimise, and which end of it is better."""
Sampler = Literal["grid", "random", "sobol"]
KEYS = ("name", "base", "set", "space", "sampler", "seeds", "objective", "budget")


@dataclass(frozen=True)
class Trial:
    """One training of a study: a point of the space with a seed. `number` counts points; trials of one point share it."""

    number: int
    point: Point
    seed: int

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.number:04d}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study that was checked. fixed: settings of every trial, as a tree; base: a shipped experiment or a file."""

    name: str
    base: str
    fixed: Mapping[str, Any]
    space: Space
    entries: Mapping[str, Any]
    """The space as it was written."""
    sampler: Sampler = "grid"
    sampler_seed: int = 0
    seeds: int = 1
    objective: str = "val_accuracy"
    max_trials: int | None = None
    max_seconds: float | None = None

    def points(self) -> Iterator[Point]:
        """Yield the points in the order in which they are tried."""
        return points(self.sampler, self.space, self.max_trials, seed=self.sampler_seed)

    def trials(self) -> Iterator[Trial]:
        """Yield all trials: every point with seed 0 first, then all with seed 1, so that a study cut short has seen every point."""
        listed = list(enumerate(self.points()))
        for seed in range(self.seeds):
            for number, point in listed:
                yield Trial(number, point, seed)

    def config(self, trial: Trial) -> Config:
        """Return the experiment of one trial."""
        return load_config(self.base, **laid_over(self.fixed, {**trial.point, "seed": trial.seed, "name": self.name}))

    def better(self, values: Sequence[float]) -> float:
        """Return the best of some objectives."""
        return float(OBJECTIVES[self.objective](values))

    def to_json(self) -> dict[str, Any]:
        """Return what study.json says: all that makes the study, the base resolved."""
        return {
            "name": self.name,
            "base": self.base,
            "config": to_dict(load_config(self.base, **self.fixed)),
            "set": self.fixed,
            "space": self.entries,
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "seeds": self.seeds,
            "objective": self.objective,
            "budget": {"trials": self.max_trials, "seconds": self.max_seconds},
        }


def load_study(source: str | Path, overrides: Sequence[str] = (), *, grid: Sequence[str] = (), name: str | None = None) -> Study:
    """Return a study from its file, or from an experiment and `grid`, inline entries such as "optim.lr=log:1e-4:1:9".

    overrides: `seeds=3`, `sampler=random`, `budget.trials=20` change the study, all others the experiment. Raises ConfigError.
    """
    tree = _read(source)
    changes = [word for word in overrides if word.partition("=")[0].partition(".")[0] in ("seeds", "sampler", "objective", "budget")]
    settings = parse_overrides([word for word in overrides if word not in changes])
    for key, value in parse_overrides(changes).items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    for word in grid:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--grid {brief(repr(word))} names no values; write --grid KEY=VALUES, such as optim.lr=log:1e-4:1:9")
        tree["space"] = {**tree.get("space", {}), key: text}
    return build_study(tree, settings, name=name, shown=str(source))


def build_study(tree: Mapping[str, Any], settings: Mapping[str, Any], *, name: str | None, shown: str) -> Study:
    """Check a study that was read, value by value against the experiment, and return it."""
    if unknown := [key for key in tree if key not in KEYS]:
        raise ConfigError(f"{shown}: unknown key {brief(repr(unknown[0]))} of a study{did_you_mean(unknown[0], KEYS)}")
    rest = {key: tree[key] for key in ("sampler", "seeds", "objective", "budget") if key in tree}
    values, problems = check_settings(_settings, rest, ("study",))
    if problems:
        raise ConfigError(f"{shown}: {problems[0].message.removeprefix('study.')}")
    budget, problems = check_settings(_budget, values["budget"] or {}, ("budget",))
    if problems:
        raise ConfigError(f"{shown}: {problems[0].message}")
    objective = values["objective"]
    if objective not in OBJECTIVES:
        sealed = "; the test set is sealed, and a study never reads it" if "test" in objective else did_you_mean(objective, OBJECTIVES)
        raise ConfigError(f"{shown}: objective {brief(repr(objective))} is none{sealed}; take one of {', '.join(OBJECTIVES)}")
    if not isinstance(tree.get("space", {}), Mapping):
        raise ConfigError(f"{shown}: space is {brief(repr(tree['space']))}; write its parameters below it, each with its values")
    space = parse_space(tree.get("space", {}), needs_grid=values["sampler"] == "grid")
    fixed = laid_over(tree.get("set") or {}, dict(_flat(settings)))
    study = Study(
        name=name or tree.get("name") or Path(shown).stem,
        base=str(tree["base"]),
        fixed=fixed,
        space=space,
        entries=dict(tree["space"]),
        sampler=values["sampler"],
        sampler_seed=budget["seed"],
        seeds=values["seeds"],
        objective=objective,
        max_trials=budget["trials"],
        max_seconds=budget["seconds"],
    )
    _check_values(study, shown)
    return study


def _check_values(study: Study, shown: str) -> None:
    """Load the experiment with each value of each parameter alone, and the first point whole, before anything is trained."""
    config = load_config(study.base, **study.fixed)
    if config.split.val_fraction == 0:
        raise ConfigError(
            f"{shown}: the experiment validates nothing (split.val_fraction=0), so no trial has a {study.objective}; set it above 0"
        )
    if config.train.test_at_end:
        raise ConfigError(
            f"{shown}: train.test_at_end opens the sealed test set in every trial; add train.test_at_end=false, and evaluate the best run"
        )
    reserved = [key for key in study.space.parameters if key in ("name", "seed")]
    if reserved:
        raise ConfigError(f"{shown}: space varies {reserved[0]}, which a study sets by itself; say how many seeds: `seeds: 5`")
    first = next(iter(study.points()))
    study.config(Trial(0, first, 0))
    if not study.space.conditions:
        for key, parameter in study.space.parameters.items():
            for value in (parameter.at(0.0), parameter.at(1 - 2**-24), *(parameter.grid() if study.sampler == "grid" else ())):
                study.config(Trial(0, {**first, key: value}, 0))


def laid_over(tree: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of settings with dotted keys laid over it: {"optim.lr": 0.1} becomes {"optim": {"lr": 0.1}}."""
    result = _copied(tree)
    for dotted, value in point.items():
        *path, last = dotted.split(".")
        place = result
        for part in path:
            below = place.get(part, {})
            place[part] = dict(as_kind(below)) if not isinstance(below, dict) else below
            place = place[part]
        if isinstance(place.get(last), dict) and isinstance(value, str):  # a kind: its name, beside the settings that stand there
            place[last]["name"] = value
        else:
            place[last] = value
    return result


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def _flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def shipped_studies() -> dict[str, Path]:
    """Return the path of each study that comes with the package, by name."""
    return {path.stem: path for path in sorted((SHIPPED / "studies").glob("*.yaml"))}


def _read(source: str | Path) -> dict[str, Any]:
    """Return the tree of a study file; an experiment becomes the base of one."""
    path = find_config(source, shipped_studies())
    tree = parse_yaml(path.read_text(encoding="utf-8"), str(source)).value
    if isinstance(tree, dict) and "space" in tree:
        if "base" not in tree:
            raise ConfigError(f"{source}: a study needs an experiment; write `base: mnist_mlp`, or a path")
        base = path.parent / str(tree["base"])
        return {"name": path.stem, **tree, "base": str(base if base.is_file() else tree["base"])}
    return {"base": str(source), "name": path.stem}


def _settings(
    *,
    sampler: Sampler = "grid",
    seeds: Annotated[int, Range(least=1, most=10_000)] = 1,
    objective: str = "val_accuracy",
    budget: dict[str, Any] | None = None,
) -> None:
    """Stand in for the keys of a study that are no tree."""


def _budget(*, trials: PositiveInt | None = None, seconds: Positive | None = None, seed: Seed = 0) -> None:
    """Stand in for the keys below budget; trials: points, seeds not counted; seed: of the sampler."""
