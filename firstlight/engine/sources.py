"""The registries of all kinds in one place, and the loading of configs against them."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from firstlight.config.describe import to_dict
from firstlight.config.kinds import Registries
from firstlight.config.load import LoadedConfig, check_tree
from firstlight.config.load import config_variants as config_variants_with
from firstlight.config.load import load_config as load_config_with
from firstlight.config.schema import Config
from firstlight.data.build import SOURCES
from firstlight.errors import ConfigError
from firstlight.models.build import MODELS
from firstlight.optim.build import OPTIMIZERS, SCHEDULES

REGISTRIES: Registries = {"data": SOURCES, "model": MODELS, "optim": OPTIMIZERS, "schedule": SCHEDULES}


def load_config(source: str | Path = "quickstart", *overrides: str, **settings: Any) -> Config:
    """Return the checked config of a shipped experiment or a YAML file.

    overrides: texts such as "optim.lr=0.1"; settings: the same by section, such as `optim={"lr": 0.1}`.
    Raises ConfigError that lists every problem with its place.
    """
    return load_with_origins(source, overrides, settings).config


def load_with_origins(source: str | Path, overrides: Iterable[str] = (), settings: Mapping[str, Any] | None = None) -> LoadedConfig:
    """Return the checked config with the place that set each key, and notes for the user."""
    return load_config_with(source, REGISTRIES, overrides=overrides, settings=settings)


def config_variants(source: str | Path) -> Callable[[Mapping[str, Any]], Config]:
    """Return a function from settings to the checked config, as load_config would make it, for many variants of one experiment."""
    return config_variants_with(source, REGISTRIES)


def config_from(tree: Mapping[str, Any]) -> Config:
    """Return the config that plain data make, which describe.to_dict wrote. Raises ConfigError with the first thing wrong."""
    config, problems = check_tree(tree, REGISTRIES)
    if problems:
        raise ConfigError(f"{problems[0].message}; the config was written by another version of firstlight")
    return config


def completed(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config that was saved as plain data with the defaults of the settings that came since; one that is wrong stays as it is."""
    config, problems = check_tree(tree, REGISTRIES)
    return tree if problems else to_dict(config)
