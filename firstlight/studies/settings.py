"""Settings as people write and read them: `optim.lr=0.1 model.dropout=0`."""

from collections.abc import Mapping
from typing import Any

from firstlight.config.yaml import brief, parse_yaml
from firstlight.errors import ConfigError


def parse_setting(text: str, option: str) -> dict[str, Any]:
    """Return `optim.lr=0.1 model.dropout=0` as {"optim.lr": 0.1, "model.dropout": 0}. Raises ConfigError."""
    found = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"{option} {brief(repr(text))} names no setting; write KEY=VALUE, such as optim.lr=0.1")
        found[key] = parse_yaml(value, option).value
    if not found:
        raise ConfigError(f"{option} is empty; write KEY=VALUE, such as optim.lr=0.1")
    return found


def show_point(point: Mapping[str, Any]) -> str:
    """Return a point as the command line would say it."""
    return " ".join(f"{key}={show_value(value)}" for key, value in point.items())


def show_value(value: Any) -> str:
    """Return a value in four significant digits, or as it is written in a config."""
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value).replace("'", "").replace(", ", ",")


def is_same(a: Any, b: Any) -> bool:
    """Tell whether two values are equal, or are written the same: 0.02154 stands for 0.0215443."""
    return bool(a == b) or show_value(a) == show_value(b)
