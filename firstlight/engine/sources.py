"""The registries of all kinds in one place, and the loading of configs against them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from firstlight.config.describe import to_dict
from firstlight.config.kinds import Registries
from firstlight.config.load import LoadedConfig, check_tree
from firstlight.config.load import load_config as load_config_with
from firstlight.config.schema import Config
from firstlight.data.build import SOURCES
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


def completed(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config that was saved as plain data with the defaults of the settings that came since; one that is wrong stays as it is."""
    config, problems = check_tree(tree, REGISTRIES)
    return tree if problems else to_dict(config)
