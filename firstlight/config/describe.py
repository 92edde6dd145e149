"""A config as plain data and as YAML: what is written into a run folder and printed for people."""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

from firstlight.config.schema import Config, Kind
from firstlight.config.yaml import parse_scalar


def to_dict(config: Any) -> Any:
    """Return a config, or a part of one, as dicts, lists and scalars; a kind becomes `{"name": ..., **settings}`."""
    if isinstance(config, Kind):
        return {"name": config.name, **{key: to_dict(value) for key, value in config.options.items()}}
    if is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in fields(config)}
    return list(config) if isinstance(config, tuple) else config


def to_yaml(config: Config) -> str:
    """Return the resolved config as YAML that load_config reads back to an equal config."""
    return tree_to_yaml(to_dict(config))


def tree_to_yaml(tree: Mapping[str, Any]) -> str:
    """Return plain data as YAML, a section a key, in the form in which configs are written."""
    return "".join(_section(key, json.dumps(value)) for key, value in tree.items())


def describe(config: Config, origins: Mapping[tuple[str, ...], str]) -> str:
    """Return the resolved config as YAML with a comment behind each key that something set."""
    lines: list[str] = []
    for key, value in to_dict(config).items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [_line(f"  {name}", item, origins.get((key, name))) for name, item in value.items()]
        else:
            lines.append(_line(key, value, origins.get((key,))))
    return "\n".join(lines)


def _line(key: str, value: Any, origin: str | None) -> str:
    text = f"{key}: {_dump(value, flow=True)}"
    return f"{text:<40} # {origin}" if origin else text


@lru_cache(maxsize=1000)
def _section(key: str, value: str) -> str:
    """Return one top-level key with its value, given as JSON; the trials of a study share most of them, and to dump all takes 10 ms."""
    tree = json.loads(value)
    return _dump({key: tree}) if isinstance(tree, dict) else f"{key}: {_dump(tree, flow=True)}\n"


def _dump(value: Any, *, flow: bool = False) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes floats so that YAML 1.1 readers see floats too, and quotes words that they or YAML 1.2 would misread."""

    def represent_text(dumper: Dumper, text: str) -> Any:
        style = '"' if not text.isprintable() else "'" if parse_scalar(text) != text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    text = yaml.dump(
        value, Dumper=Dumper, sort_keys=False, default_flow_style=True if flow else None, allow_unicode=True, width=sys.maxsize
    )
    return text.removesuffix("\n...\n").rstrip("\n") if flow else text
