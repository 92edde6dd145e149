"""Overrides `a.b=value` from the command line, and the merging of one mapping over another."""

from collections.abc import Iterable, Mapping
from typing import Any

from firstlight.config.yaml import parse_yaml
from firstlight.errors import ConfigError

KINDS = ("data", "model", "optim", "schedule")
"""Sections that hold a name and the settings of that name."""


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Return `["optim.lr=0.1", "data=mnist"]` as `{"optim": {"lr": 0.1}, "data": {"name": "mnist"}}`.

    Values are YAML. Raises ConfigError where an argument has no `=` or a key is given twice.
    """
    tree: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ConfigError(f"{argument!r} is no override; write key=value, such as optim.lr=0.1")
        value = parse_yaml(text, f"override {argument!r}").value
        _insert(tree, key.strip().split("."), value, argument)
    return tree


def _insert(tree: dict[str, Any], path: list[str], value: Any, argument: str) -> None:
    if path[0] in KINDS and len(path) == 1 and not isinstance(value, Mapping):
        path = [*path, "name"]
    *parents, last = path
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{argument!r}: {part} was given a value before; it cannot have parts as well")
    if last in tree:
        raise ConfigError(f"{'.'.join(path)} is given twice, as {tree[last]!r} and as {value!r}; keep one")
    tree[last] = value


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` laid over it, section by section.

    Where a kind gets another name, the settings of the old name are dropped; settings that stood without a name stay.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if key in KINDS:
            value = as_kind(value)
            if _is_renamed(old, value):
                old = None
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _is_renamed(old: Any, new: Any) -> bool:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return False
    return "name" in old and "name" in new and old["name"] != new["name"]


def as_kind(value: Any) -> Any:
    """Return the short form `lenet` as `{"name": "lenet"}`, anything else as it is."""
    return {"name": value} if isinstance(value, str) else value
