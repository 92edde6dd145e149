"""What a study is: a base experiment, what is varied on it, the seeds, the objective, the budget. From a YAML file or from a command line.

```yaml
name: lr_and_init
base: mnist_mlp
set: {train: {epochs: 3}}
space: {optim.lr: "log:1e-4:1:10", model.init: [zeros, kaiming_uniform]}
sampler: grid
seeds: 5
objective: val_accuracy
interval: t
pruning: median
budget: {trials: 100, seconds: 3600}
```
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from firstlight.config.describe import to_dict
from firstlight.config.kinds import check_settings
from firstlight.config.load import SHIPPED, find_config
from firstlight.config.override import as_kind, parse_overrides
from firstlight.config.schema import Config
from firstlight.config.yaml import brief, parse_yaml
from firstlight.errors import ConfigError, did_you_mean
from firstlight.limits import Positive, PositiveInt, Range, Seed
from firstlight.studies.samplers import points
from firstlight.studies.space import Point, Space, parse_space
from firstlight.studies.trial import MAX_SEEDS, Row
from firstlight.studies.trial import Trial as Trial

OBJECTIVES = {"val_accuracy": max, "val_loss": min}
"""What a study may optimise, and which end of it is better."""
Sampler = Literal["grid", "random", "sobol", "halving", "tpe", "gp"]
KEYS = ("name", "base", "set", "space", "sampler", "pruning", "seeds", "objective", "interval", "budget")
OWN = ("sampler", "pruning", "seeds", "objective", "interval", "budget")
"""Keys that a command line changes in the study; all others are settings of the experiment."""


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
    interval: str = "t"
    pruning: str | None = None
    max_trials: int | None = None
    max_seconds: float | None = None
    eta: int = 3
    min_epochs: int = 1

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
        return self._variants(laid_over(self.fixed, {**trial.point, "seed": trial.seed, "name": self.name}))

    @cached_property
    def _variants(self) -> Callable[[Mapping[str, Any]], Config]:
        from firstlight.engine.sources import config_variants

        return config_variants(self.base)

    @property
    def direction(self) -> str:
        """Which end of the objective is the good one, `max` or `min`."""
        return OBJECTIVES[self.objective].__name__

    @property
    def compares_epochs(self) -> bool:
        """Whether trials are judged before they end, so that their rows hold the objective of every epoch."""
        return self.pruning is not None or self.sampler == "halving"

    @property
    def experiment(self) -> Config:
        """The experiment that all trials vary."""
        return _experiment(self.base, self.fixed)

    @cached_property
    def max_epochs(self) -> int:
        """Epochs of a trial that is trained to its end."""
        return self.experiment.train.epochs

    def best_of(self, rows: Iterable[Row], so_far: float | None = None) -> float | None:
        """Return the best objective of some rows, and of one known before; None where there is none."""
        values = [value for value in (so_far, *(row["objective"] for row in rows)) if value is not None]
        return OBJECTIVES[self.objective](values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return what study.json says: all that makes the study, the base resolved."""
        return {
            "name": self.name,
            "base": self.base,
            "config": to_dict(self.experiment),
            "set": self.fixed,
            "space": self.entries,
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "seeds": self.seeds,
            "objective": self.objective,
            "interval": self.interval,
            "pruning": self.pruning,
            "budget": {"trials": self.max_trials, "seconds": self.max_seconds, "eta": self.eta, "min_epochs": self.min_epochs},
        }


def load_study(source: str | Path, overrides: Sequence[str] = (), *, grid: Sequence[str] = (), name: str | None = None) -> Study:
    """Return a study from its file, or from an experiment and `grid`, inline entries such as "optim.lr=log:1e-4:1:9".

    overrides: `seeds=3`, `sampler=random`, `budget.trials=20` change the study, all others the experiment. Raises ConfigError.
    """
    tree = _read(source)
    changes = [word for word in overrides if word.partition("=")[0].partition(".")[0] in OWN]
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
    rest = {key: tree[key] for key in OWN if key in tree}
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
    _refuse_test_set(fixed, space, shown)
    if _experiment(str(tree["base"])).train.test_at_end:
        fixed = laid_over(fixed, {"train.test_at_end": False})
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
        interval=values["interval"],
        max_trials=budget["trials"],
        max_seconds=budget["seconds"],
        pruning=values["pruning"],
        eta=budget["eta"],
        min_epochs=budget["min_epochs"],
    )
    _check_values(study, shown)
    return study


def _experiment(base: str, fixed: Mapping[str, Any] | None = None) -> Config:
    """Return the checked config of a study's experiment; what loads it imports torch, which reading a finished study does without."""
    from firstlight.engine.sources import load_config

    return load_config(base, **(fixed or {}))


def _refuse_test_set(fixed: Mapping[str, Any], space: Space, shown: str) -> None:
    """Raise ConfigError where a study asks for the test set; an experiment that opens it at its end leaves it shut in a study."""
    train = fixed.get("train")
    if (isinstance(train, Mapping) and train.get("test_at_end")) or "train.test_at_end" in space.parameters:
        raise ConfigError(
            f"{shown}: train.test_at_end opens the sealed test set in every trial; leave it out, and evaluate the best run at the end"
        )


def _check_values(study: Study, shown: str) -> None:
    """Load the experiment with each value of each parameter alone, and the first point whole, before anything is trained."""
    config = _experiment(study.base, study.fixed)
    if config.split.val_fraction == 0:
        raise ConfigError(
            f"{shown}: the experiment validates nothing (split.val_fraction=0), so no trial has a {study.objective}; set it above 0"
        )
    reserved = [key for key in study.space.parameters if key in ("name", "seed")]
    if reserved:
        raise ConfigError(f"{shown}: space varies {reserved[0]}, which a study sets by itself; say how many seeds: `seeds: 5`")
    if study.sampler == "halving":
        _check_halving(study, shown)
    first = next(iter(study.points()))
    study.config(Trial(0, first, 0))
    if not study.space.conditions:
        for key, parameter in study.space.parameters.items():
            for value in (parameter.at(0.0), parameter.at(1 - 2**-24), *(parameter.grid() if study.sampler == "grid" else ())):
                study.config(Trial(0, {**first, key: value}, 0))


def _check_halving(study: Study, shown: str) -> None:
    if "train.epochs" in study.space.parameters:
        raise ConfigError(f"{shown}: space varies train.epochs, which sampler halving sets by itself; leave it out, or take sampler=random")
    if study.pruning is not None:
        raise ConfigError(f"{shown}: sampler halving ends trials by itself; leave pruning out, or take sampler=random")
    if study.min_epochs >= study.max_epochs:
        raise ConfigError(
            f"{shown}: budget.min_epochs is {study.min_epochs}, and a trial has {study.max_epochs} epochs; "
            "sampler halving needs fewer for its first rung than train.epochs"
        )


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
    pruning: Literal["median"] | None = None,
    seeds: Annotated[int, Range(least=1, most=MAX_SEEDS)] = 1,
    objective: str = "val_accuracy",
    interval: Literal["t", "bootstrap"] = "t",
    budget: dict[str, Any] | None = None,
) -> None:
    """Stand in for the keys of a study that are no tree."""


def _budget(
    *,
    trials: PositiveInt | None = None,
    seconds: Positive | None = None,
    seed: Seed = 0,
    eta: Annotated[int, Range(least=2, most=100)] = 3,
    min_epochs: PositiveInt = 1,
) -> None:
    """Stand in for the keys below budget. trials: points, seeds not counted; seed: of the sampler.

    eta, min_epochs: of sampler=halving, which keeps the best 1/eta of the points at each rung, the first of min_epochs epochs.
    """
