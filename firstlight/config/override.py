"""Overrides `a.b=value` from the command line, and the merging of one mapping over another."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from firstlight.config.yaml import MAX_DEPTH, brief, parse_yaml, show_key
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
            raise ConfigError(f"{brief(repr(argument))} is no override; write key=value, such as optim.lr=0.1")
        value = parse_yaml(text, f"override {brief(repr(argument))}").value
        _insert(tree, key.strip().split("."), value, brief(repr(argument)))
    return tree


def plain_settings(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Return settings of a Python call as YAML would give them: a path is text, a numpy scalar a number, a tuple a list.

    Raises ConfigError with the key for anything that a config file could not say.
    """
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and len(path) <= MAX_DEPTH:
        return {key: plain_settings(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif hasattr(value, "tolist"):  # numpy and torch
        value = value.tolist()
    if isinstance(value, list | tuple) and len(path) <= MAX_DEPTH:
        return [plain_settings(item, (*path, str(index))) for index, item in enumerate(value)]
    if value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 320):
        return value
    if isinstance(value, str) and value.encode(errors="replace").decode() == value:
        return value
    allowed = "text, a number, True or False, None, a path, or a list or dict of those"
    raise ConfigError(f"{show_key(path)} cannot be such a {type(value).__name__}; give {allowed}")


def _insert(tree: dict[str, Any], path: list[str], value: Any, argument: str) -> None:
    if path[0] in KINDS and len(path) == 1 and not isinstance(value, Mapping):
        path = [*path, "name"]
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{argument}: a key has at most {MAX_DEPTH} parts; write section.key=value")
    *parents, last = path
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{argument}: {show_key([part])} was given a value before; it cannot have parts as well, keep one")
    if last in tree:
        raise ConfigError(f"{show_key(path)} is given twice, as {brief(repr(tree[last]))} and as {brief(repr(value))}; keep one")
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
            if is_renamed(old, value):
                old = None
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def is_renamed(old: Any, new: Any) -> bool:
    """Tell whether a kind gets another name, so that the settings of the old one no longer belong to it."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return False
    return "name" in old and "name" in new and old["name"] != new["name"]


def as_kind(value: Any) -> Any:
    """Return the short form `lenet` as `{"name": "lenet"}`, anything else as it is."""
    return {"name": value} if isinstance(value, str) else value
