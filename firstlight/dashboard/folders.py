"""What a run folder says, read with care: a folder may be half written, damaged, foreign, or made to do harm.

No link is followed, nothing but a plain file is opened, and no file is read beyond a bound.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from firstlight.config.yaml import parse_scalar, parse_yaml
from firstlight.errors import ConfigError
from firstlight.files import is_locked
from firstlight.tracking.run import KINDS, Run

MAX_BYTES = 4 * 2**20
"""Size of a run.json or config.yaml that is read; those of ours have a few thousand bytes."""
USUAL_BYTES = 2**14
"""Size below which a file is read at once."""
MAX_KEYS = 200
"""Settings and figures of one run that can be sorted by."""
MAX_TEXT = 300
"""Characters of a value that can be searched."""
TAIL_BYTES = 2**16
"""End of metrics.jsonl in which the last epoch's row is looked for."""


def open_plain(path: str | Path) -> int:
    """Return a descriptor of a plain file. Raises OSError for anything else: a link, a pipe, a folder."""
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no plain file")
    return descriptor


_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A link is not followed, and a pipe does not make us wait."""


def read_plain(path: str | Path, *, most: int = MAX_BYTES, tail: bool = False) -> bytes:
    """Return what a plain file holds, or its last `most` bytes. Raises OSError, for a larger file too."""
    descriptor = os.open(path, _FLAGS)
    try:
        content = b"" if tail else os.read(descriptor, USUAL_BYTES)
        if content and len(content) < USUAL_BYTES:
            return content  # what all but a few files are: read without a question
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(f"{path} is no plain file")
        if facts.st_size > most and not tail:
            raise OSError(f"{facts.st_size:,} bytes; at most {most:,} are read")
        start, end = (max(facts.st_size - most, 0) if tail else len(content)), facts.st_size
        while start < end and (piece := os.pread(descriptor, end - start, start)):
            content += piece
            start += len(piece)
        return content
    finally:
        os.close(descriptor)


class PlainRun(Run):
    """A run folder that is read with care."""

    @cached_property
    def _contents(self) -> tuple[dict[str, Any], dict[str, Any], str | None]:
        try:
            info, problem = _read_info(str(self.path))
        except FileNotFoundError:
            return {}, {}, "run.json: it is gone"
        try:
            config = _as_mapping(parse_yaml(read_plain(self.path / "config.yaml").decode(), "config.yaml").value)
        except (OSError, ValueError, ConfigError) as error:
            return info, {}, "; ".join(filter(None, (problem, f"config.yaml: {_reason(error)}")))
        return info, config, problem or _misfit(info, config)

    @property
    def state(self) -> str:
        """What the run is at, as `Run.state`; its lock is not looked for in a pipe."""
        if self.damage:
            return "damaged"
        state = str(self.info["state"])
        return "interrupted" if state == "running" and not is_training(self.path) else state


def is_training(folder: str | Path) -> bool:
    """Tell whether a live process writes the run."""
    lock = Path(folder) / "run.lock"
    try:
        return stat.S_ISREG(os.lstat(lock).st_mode) and is_locked(lock)
    except OSError:
        return False


def read_facts(folder: str) -> dict[str, Any] | None:
    """Return what the index keeps of a run folder: `state`, `started`, `notes`, `tags`, `warnings`, `report`, `damage`, and `facts` by key.

    A fact is a number or a text: every setting (`optim.lr`), the figures of the summary (`val_accuracy`), and some of the run itself.
    A folder that cannot be read is `damaged`, and `damage` says why; report: the instant at which report.html was written. One without
    run.json is no run: None.
    """
    config: dict[str, Any] = {}
    try:
        info, damage = _read_info(folder)
    except FileNotFoundError:
        return None
    try:
        config = read_config(read_plain(f"{folder}/config.yaml").decode())
        damage = damage or _misfit(info, config)
    except (OSError, ValueError, ConfigError) as error:
        damage = "; ".join(filter(None, (damage, f"config.yaml: {_reason(error)}")))
    state = "damaged" if damage else str(info["state"])
    if state == "running" and not is_training(folder):
        state = "interrupted"
    return {
        "state": plain_text(state),
        "started": instant(info.get("started")),
        "notes": [plain_text(word) for word in as_list(info.get("notes"))],
        "tags": [plain_text(word) for word in as_list(info.get("tags"))],
        "warnings": len(as_list(info.get("warnings"))),
        "report": written(f"{folder}/report.html"),
        "damage": plain_text(damage) if damage else None,
        "facts": {} if damage else _facts(info, config, folder),
    }


def written(path: str | Path) -> float | None:
    """Return the instant at which a plain file was written, None where there is none."""
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_mtime if stat.S_ISREG(facts.st_mode) else None


def _read_info(folder: str) -> tuple[dict[str, Any], str | None]:
    """Return what run.json holds, and what is wrong with it. Raises FileNotFoundError."""
    try:
        return _as_mapping(parse_json(read_plain(f"{folder}/run.json"))), None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"run.json: {_reason(error)}"


def parse_json(content: bytes) -> Any:
    """Return what a text in JSON says. Raises ValueError, RecursionError.

    The parser of pydantic takes 0.4 of the time; it refuses half characters, which Python's reads.
    """
    from pydantic_core import from_json

    try:
        return from_json(content, cache_strings="keys")
    except ValueError:
        return json.loads(content)


def _misfit(info: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    fits = [isinstance(info.get(key, default), kind) for key, (kind, default) in KINDS.items()]
    return None if config and all(fits) else "an entry of run.json is missing or of another kind"


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and nothing for anything else."""
    return value if isinstance(value, list) else []


def read_config(text: str) -> dict[str, Any]:
    """Return a config's settings by their dotted keys. Raises ConfigError.

    Sections are read one by one and remembered: most of them are alike among many runs.
    """
    settings: dict[str, Any] = {}
    try:
        for section in _SECTION.split(text):
            settings |= _section(section)
    except ConfigError:  # not cut where we thought; the whole is read as it stands
        settings = flatten(_as_mapping(parse_yaml(text, "config.yaml").value))
    return settings


_SECTION = re.compile(r"\n(?=\w)")
"""Between two sections: a line that is not indented begins the next."""
_ONE_LINE = re.compile(r"(\w+): (?:([\w.+-]+)|\{(\w+: [\w.+-]+(?:, \w+: [\w.+-]+)*)\})\n*")
"""A section of plain scalars on one line, which takes the YAML parser 10 times as long."""


@lru_cache(maxsize=20_000)
def _section(text: str) -> dict[str, Any]:
    if (found := _ONE_LINE.fullmatch(text)) is None:
        value = parse_yaml(text, "config.yaml").value
        return {} if value is None else flatten(_as_mapping(value))
    name, alone, pairs = found.groups()
    if alone is not None:
        return flatten({name: parse_scalar(alone)})
    values = [pair.split(": ") for pair in pairs.split(", ")]
    if len({key for key, _ in values}) < len(values):
        raise ConfigError(f"config.yaml: a key of {name} stands twice; keep one")
    return {f"{name}.{key}": value for key, word in values if (value := _word(word)) is not None}


@lru_cache(maxsize=5000)
def _word(text: str) -> int | float | str | None:
    return _scalar(parse_scalar(text))


def flatten(values: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping of dotted keys to numbers and texts; null and the empty are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue
        name = above + _name(key)
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        elif (kept := _scalar(value)) is not None:
            flat[name] = kept
    return flat


@lru_cache(maxsize=5000, typed=True)
def _name(key: Any) -> str:
    return plain_text(key)


def _scalar(value: Any) -> int | float | str | None:
    """Return a value as it is sorted and searched: a number, or a text."""
    if isinstance(value, float):
        return value if value - value == 0 else None  # SQLite has no NaN, and an infinity is no figure to compare
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value if abs(value) < 2**63 else plain_text(value)
    if value is None or value == []:
        return None
    return plain_text(json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)


def plain_text(value: Any) -> str:
    """Return a value as text that can be written as UTF-8, and is not long."""
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:  # an integer of more than 4,300 digits
        return "a number too long to show"
    return text if text.isascii() and len(text) <= MAX_TEXT else text[:MAX_TEXT].encode(errors="replace").decode()


def _facts(info: Mapping[str, Any], config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return the settings and the figures of a run, at most MAX_KEYS; those of an unfinished one are its last epoch's."""
    facts = flatten(info["summary"])
    if "val_accuracy" not in facts and "train_accuracy" not in facts:
        facts |= flatten({key: value for key, value in last_epoch(folder).items() if key not in NO_FIGURES})
    network, arithmetic, made_by = info.get("network", {}), info.get("arithmetic", {}), info.get("environment")
    git = made_by.get("git") if isinstance(made_by, dict) else None
    more = {
        "num_parameters": network.get("num_parameters"),
        "flops_per_image": network.get("flops_per_image"),
        "ran.device": arithmetic.get("device"),
        "ran.precision": arithmetic.get("precision"),
        "ran.threads": arithmetic.get("threads"),
        "commit": git.get("commit") if isinstance(git, dict) else None,
        "seconds": facts.get("seconds", info.get("seconds")),
    }
    facts |= flatten(more)
    facts |= config
    if "name" in facts:
        facts["experiment"] = facts.pop("name")
    return facts if len(facts) <= MAX_KEYS else dict(list(facts.items())[:MAX_KEYS])


NO_FIGURES = {"kind", "best", "num_parameters", "flops_per_image", "seconds"}


def last_epoch(folder: str) -> dict[str, Any]:
    """Return the last whole row of an epoch in metrics.jsonl; nothing where there is none."""
    try:
        lines = read_plain(f"{folder}/metrics.jsonl", most=TAIL_BYTES, tail=True).splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        if b'"epoch"' in line[:20]:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                return {key: value for key, value in row.items() if isinstance(value, int | float)}
    return {}


def instant(text: Any) -> float | None:
    """Return a time of day with its offset as seconds since 1970."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _as_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__} where a mapping is due")
    return value


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return plain_text(" ".join(text.split()))
