"""YAML as data alone (faults 45 and 46)."""

import pytest
import yaml

from firstlight.config.yaml import parse_yaml
from firstlight.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("no", "no"),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("~", None),
        ("true", True),
        ("yes", "yes"),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("2026-11-21", "2026-11-21"),
        ("'1'", "1"),
        ("1_000", "1_000"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Fault 45."""
    found = parse_yaml(f"key: {text}", "x.yaml").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_lines_of_keys_are_known() -> None:
    document = parse_yaml("a: 1\nb:\n  c: [1, 2]\n", "x.yaml")
    assert document.value == {"a": 1, "b": {"c": [1, 2]}}
    assert document.lines == {("a",): 1, ("b",): 2, ("b", "c"): 3}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join(['*' + p] * 10)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "x.yaml:2: the key a stands twice (first on line 1)"),
        ("a:\n\tb: 1", "x.yaml:2: a tab indents this line"),
        ("a: !!python/object:os.system x", "x.yaml:1: the tag tag:yaml.org,2002:python/object:os.system is not allowed"),
        (BOMB, "more than 10,000 values"),
        ("[" * 20_000, "nested more than 64 levels deep"),
        ("a: [1", "x.yaml:1: not valid YAML"),
        ("!!python/object:os.system a: x", "x.yaml:1: the tag tag:yaml.org,2002:python/object:os.system is not allowed"),
        ("a: !%0A x", "x.yaml:1: the tag !\\n is not allowed"),
        ('"a\\nb": 1\n"a\\nb": 2', "x.yaml:2: the key a\\nb stands twice (first on line 1)"),
        ('a: "\\ud800"', "x.yaml:1:"),
        ('a: "\\U00110000"', "not valid YAML"),
        ("a: \ud800", "not valid YAML"),
        ("a: *b", "the alias *b has no anchor"),
        ("a: *" + "b" * 3000, "the alias *" + "b" * 80 + "... has no anchor"),
        ("a: 1\n---\nb: 2", "x.yaml:2: a second document begins"),
        ("x" * ((1 << 20) + 1), "1,048,577 characters; a config has at most 1,048,576"),
        ("a: \x00", "not valid YAML"),
    ],
    ids=[
        "duplicate",
        "tab",
        "python-object",
        "alias-bomb",
        "deep",
        "torn",
        "python-key",
        "odd-tag",
        "odd-key",
        "half-pair",
        "no-character",
        "surrogate",
        "no-anchor",
        "long-alias",
        "two-documents",
        "large",
        "nul",
    ],
)
def test_what_is_no_config_is_refused_at_once(text: str, message: str) -> None:
    """Faults 45 and 46: one line with the place."""
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "[" * 20_000, BOMB, 'a: "\\U00110000"', 'a: "\\ud800"', "a: \x00"])
def test_the_parser_in_python_refuses_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyYAML that was built without its parser in C reads and refuses alike."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert parse_yaml("a: 1e-3\nb: [no, '1']", "x.yaml").value == {"a": 1e-3, "b": ["no", "1"]}
    with pytest.raises(ConfigError, match=r"^x\.yaml:"):
        parse_yaml(text, "x.yaml")
