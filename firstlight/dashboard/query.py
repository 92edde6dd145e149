"""What one types to choose among runs: `model=lenet optim.lr>0.01 val_accuracy>=0.98 tag=final mnist`.

Words are parted by blanks; quotes hold one together. A word with an operator compares a setting, a figure or a property of the run,
any other is looked for in its name, its study, its notes and tags. All must hold.
"""

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from firstlight.config.yaml import parse_scalar
from firstlight.errors import ConfigError, did_you_mean

PROPERTIES = {
    "name": "name",
    "state": "state",
    "study": "study",
    "started": "started",
    "warnings": "warnings",
    "note": "notes",
    "tag": "tags",
}
"""What a run is asked for besides its settings and figures, and the column of each."""
SEARCHED = ("name", "study", "notes", "tags")
_WORD = re.compile(r"([^\s=<>!]+)(<=|>=|!=|=|<|>)(.*)", re.DOTALL)
MAX_QUERY = 1000


@dataclass
class Condition:
    """A condition in SQL, and the values that stand for its question marks."""

    sql: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, sql: str, *values: Any) -> None:
        """Let this hold, too."""
        self.sql.append(sql)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self.sql) or "1"


def parse_query(text: str, columns: Mapping[str, str]) -> Condition:
    """Return what a query asks for. columns: the SQL column of each key. Raises ConfigError for a key or a number that is none."""
    if len(text) > MAX_QUERY:
        raise ConfigError(f"a filter has at most {MAX_QUERY:,} characters; write a shorter one")
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()  # a quote that is still open while one types
    condition = Condition()
    for word in words:
        if found := _WORD.fullmatch(word):
            _compare(condition, found[1], found[2], found[3], columns)
        else:
            pattern = "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"
            found_in = " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in SEARCHED)  # which an index answers without the wide rows
            condition.add(f"rowid IN (SELECT rowid FROM runs WHERE {found_in})", *[pattern] * len(SEARCHED))
    return condition


def column_of(key: str, columns: Mapping[str, str]) -> str:
    """Return the SQL column of a key; `model` stands for `model.name`. Raises ConfigError for a key that no run has."""
    for name in (key, f"{key}.name"):
        if name in PROPERTIES or name in columns:
            return PROPERTIES.get(name) or columns[name]
    raise ConfigError(f"no run has {key!r}{did_you_mean(key, [*PROPERTIES, *columns])}; a filter is written key=value or key>number")


def _compare(condition: Condition, key: str, operator: str, text: str, columns: Mapping[str, str]) -> None:
    column = column_of(key, columns)
    if key in ("note", "tag"):
        negation = "NOT " if operator == "!=" else ""
        if operator not in ("=", "!="):
            raise ConfigError(f"{key} is a text; write {key}=WORD or {key}!=WORD")
        held = f"rowid IN (SELECT rowid FROM runs WHERE instr({column}, ?))"
        condition.add(f"{negation}{held}", f"\n{text}\n" if key == "tag" else text)
    elif operator not in ("=", "!="):
        condition.add(f"{column} {operator} ?", _number(key, operator, text))
    elif text in ("", "none", "null"):
        condition.add(f"{column} IS {'' if operator == '=' else 'NOT '}NULL")
    elif "*" in text:
        pattern = re.sub(r"([\[?])", r"[\1]", text)
        condition.add(f"coalesce({column}, '') {'' if operator == '=' else 'NOT '}GLOB ?", pattern)
    else:
        value = parse_scalar(text)
        exact = value if isinstance(value, int | float) and not isinstance(value, bool) and _fits(value) else text
        condition.add(f"{column} IS {'' if operator == '=' else 'NOT '}?", exact)


def _number(key: str, operator: str, text: str) -> float:
    if key == "started":
        try:
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            raise ConfigError(f"{text!r} is no date; write started>2026-11-20") from None
    value = parse_scalar(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _fits(value):
        raise ConfigError(f"{key}{operator}{text} needs a number; write such as {key}{operator}0.5")
    return value


def _fits(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 2**63
