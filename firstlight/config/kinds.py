"""The settings of a constructor are its keyword-only parameters: read here, checked here by pydantic.

One mechanism serves the fixed sections of the schema (dataclasses) and the kinds (a model, an optimizer, ...).
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from firstlight.config.yaml import brief, show_key
from firstlight.errors import did_you_mean

Registry = Mapping[str, Callable[..., Any]]
Registries = Mapping[str, Registry]
"""The registry of each kind: `{"model": MODELS, "optim": OPTIMIZERS, ...}`."""

NOUNS = {"data": "data set", "optim": "optimizer"}
"""What an entry of a registry is called, where the section is not called so."""

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One keyword-only parameter: its annotation, and its default or REQUIRED."""

    annotation: Any
    default: Any


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config, at the key it concerns."""

    path: tuple[str, ...]
    message: str


@cache
def settings_of(constructor: Callable[..., Any]) -> Mapping[str, Setting]:
    """Return the keyword-only parameters of a class or function by name (0.2 ms each to read, and a study asks for each trial)."""
    owner = constructor.__init__ if inspect.isclass(constructor) else constructor
    hints = get_type_hints(owner, include_extras=True)
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: Setting(hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_settings(
    constructor: Callable[..., Any], values: Mapping[str, Any], path: tuple[str, ...]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return `values` with all defaults filled in, each of its declared type, and the list of what is wrong.

    Strict: no text for a number, no 2.5 or true for an int; an int is a float, a list is a tuple.
    """
    from pydantic import ValidationError

    settings = settings_of(constructor)
    problems = [
        Problem((*path, key), f"unknown key {brief(repr(key))} in {'.'.join(path)}{_hint(key, settings)}")
        for key in values
        if key not in settings
    ]
    known = {key: value for key, value in values.items() if key in settings}
    try:
        checked = _checker(constructor).model_validate_json(json.dumps(known))
    except ValidationError as error:
        return {}, problems + [_problem(dict(e), path) for e in error.errors()]
    return {name: getattr(checked, name) for name in settings}, problems


@cache
def _checker(constructor: Callable[..., Any]) -> Any:
    """Return the pydantic model of a constructor's settings (0.5 ms each to make)."""
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {
        name: (s.annotation, ... if s.default is REQUIRED else s.default) for name, s in settings_of(constructor).items()
    }
    return create_model("Settings", __config__=ConfigDict(strict=True, protected_namespaces=()), **fields)


def check_kind(registry: Registry, value: Any, section: str) -> tuple[str, dict[str, Any], list[Problem]]:
    """Check `{name: ..., **settings}` against a registry; return the name, the settings and the problems."""
    path = (section,)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        found = value.get("name") if isinstance(value, Mapping) else value
        example = f"`{section}: {{name: {next(iter(registry))}}}`"
        message = f"{section} needs one name, found {brief(repr(found))}; write {example}{did_you_mean('', registry)}"
        return "", {}, [Problem(path, message)]
    name, options = value["name"], {key: item for key, item in value.items() if key != "name"}
    if name not in registry:
        return (
            name,
            {},
            [Problem((*path, "name"), f"{brief(repr(name))} is no {NOUNS.get(section, section)}{did_you_mean(name, registry)}")],
        )
    others = [key for key in options if key in registry and key not in settings_of(registry[name])]
    if others:
        message = f"{section} names {name!r} and holds {', '.join(map(repr, others))} as well; keep one kind, as `name:`"
        return name, {}, [Problem((*path, others[0]), message)]
    checked, problems = check_settings(registry[name], options, path)
    return name, checked, [_name_owner(problem, registry, name) for problem in problems]


def _name_owner(problem: Problem, registry: Registry, name: str) -> Problem:
    """Say where an unknown key does belong, when another entry of the registry has it."""
    key = problem.path[-1]
    if not problem.message.startswith("unknown key") or key in settings_of(registry[name]):
        return problem
    owners = [other for other, constructor in registry.items() if key in settings_of(constructor)]
    belongs = f"; it belongs to {', '.join(owners)}" if owners else ""
    return Problem(problem.path, problem.message.replace(f" in {problem.path[0]}", f" in {problem.path[0]} {name!r}", 1) + belongs)


def _hint(key: str, settings: Mapping[str, Setting]) -> str:
    return did_you_mean(key, settings) if settings else "; leave it out, there are no settings"


def _problem(error: dict[str, Any], path: tuple[str, ...]) -> Problem:
    where = (*path, *(str(part) for part in error["loc"] if isinstance(part, int) or part.isidentifier()))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ").strip()
    if error["type"] == "missing":
        return Problem(where, f"{show_key(where)} is required; give it a value")
    return Problem(where, f"{show_key(where)} is {brief(json.dumps(error['input']))}; it {message.replace('should be', 'must be')}")
