"""YAML as data alone: the scalars of YAML 1.2, no tags, no duplicate keys, bounded in size, depth and aliases.

PyYAML's own loader reads `1e-3` as text, `no` as False and `010` as 8, and expands alias bombs; here only its parser is used:
the one in C where the wheel holds it (100 times faster; 20,000 brackets cost the one in Python 0.3 s before depth is known).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from firstlight.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_SHOWN = 80
"""Characters of a key or a value that a message shows."""

_INT = re.compile(r"[-+]?[0-9]+")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}

Path = tuple[str, ...]


@dataclass
class Document:
    """What a text holds, and on which line each key stands: `lines[("optim", "lr")] == 7`."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)


def parse_scalar(text: str) -> Any:
    """Return the value of a plain scalar by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 100:  # Python refuses to convert huge digit strings
        return int(text)
    if _BASED_INT.fullmatch(text) and len(text) < 100:
        return int(text[2:], 8 if text[1] == "o" else 16)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse_yaml(text: str, where: str) -> Document:
    """Return the one document in `text`; `where` names it in messages. Raises ConfigError with the line."""
    import yaml

    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: {len(text):,} characters; a config has at most {MAX_BYTES:,}, so this is another file")
    if "\t" in text:
        _refuse_tab_indent(text, where)
    try:
        return _Reader(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), where).document()
    except yaml.MarkedYAMLError as error:
        line = min(error.problem_mark.line + 1, max(len(text.splitlines()), 1)) if error.problem_mark else 1
        raise ConfigError(f"{where}:{line}: not valid YAML: {brief(str(error.problem or error.context))}; correct the line") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # from chr() and encode(), for what is no character
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}; take that character out") from None


def show_key(path: Iterable[str]) -> str:
    """Return the key at a path as one reads it, `optim.lr`, at bounded length."""
    return brief(".".join(printable(part) for part in path))


def printable(text: str) -> str:
    """Return a text on one line, with escapes for what a terminal would not show."""
    return text if text.isprintable() else repr(text)[1:-1]


def brief(text: str) -> str:
    """Return a text for a message: its beginning where it is long."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _refuse_tab_indent(text: str, where: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise ConfigError(f"{where}:{number}: a tab indents this line; YAML allows spaces only, so put spaces in its place")


class _Reader:
    """Builds values from parser events, so that depth and size are known before anything is built."""

    def __init__(self, events: Iterator[Any], where: str) -> None:
        self.events = events
        self.where = where
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.lines: dict[Path, int] = {}
        self.num_nodes = 0

    def document(self) -> Document:
        import yaml

        event = next(self.events)
        while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return Document(None)
        value = self.node(event, ())
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.refuse(event, "a second document begins; a config is one document, so part it into two files")
        return Document(value, self.lines)

    def refuse(self, event: Any, problem: str) -> None:
        raise ConfigError(f"{self.where}:{event.start_mark.line + 1}: {problem}")

    def node(self, event: Any, path: Path) -> Any:
        import yaml

        before = self.num_nodes
        self.count(event, 1)
        if len(path) > MAX_DEPTH:
            self.refuse(event, f"nested more than {MAX_DEPTH} levels deep; a config needs three")
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in self.anchors:
                self.refuse(event, f"the alias *{brief(name)} has no anchor before it; write the value itself")
            value, size = self.anchors[name]
            self.count(event, size)
            return value
        self.check_text(event)
        value = self.content(event, path)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.num_nodes - before)
        return value

    def check_text(self, event: Any) -> None:
        """Refuse a tag, which names a type, and half a character."""
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            self.refuse(event, f"the tag {show_key([event.tag])} is not allowed; write plain values")
        if _SURROGATE.search(getattr(event, "value", "")):
            self.refuse(event, "half a surrogate pair is no character; write the character itself")

    def content(self, event: Any, path: Path) -> Any:
        import yaml

        if isinstance(event, yaml.ScalarEvent):
            plain = not event.style and event.tag is None  # the parser in C says "" for plain
            return parse_scalar(event.value) if plain else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def sequence(self, path: Path) -> list[Any]:
        import yaml

        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*path, str(len(items)))))
        return items

    def mapping(self, path: Path) -> dict[str, Any]:
        import yaml

        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self.refuse(event, "a key must be a plain word; write `key: value`")
            self.check_text(event)
            key, line = event.value, event.start_mark.line + 1
            here = (*path, key)
            if key in items:
                self.refuse(event, f"the key {show_key(here)} stands twice (first on line {self.lines[here]}); keep one")
            self.count(event, 1)
            self.lines[here] = line
            items[key] = self.node(next(self.events), here)
        return items

    def count(self, event: Any, size: int) -> None:
        self.num_nodes += size
        if self.num_nodes > MAX_NODES:
            self.refuse(event, f"more than {MAX_NODES:,} values (aliases count each time they are used); write fewer")
