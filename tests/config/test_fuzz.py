"""Whatever the text, the result is a Config or a ConfigError that says on one line a problem what is wrong: nothing else, ever."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight.config.load import load_config, shipped_experiments
from firstlight.config.schema import Config
from firstlight.engine.sources import REGISTRIES
from firstlight.errors import ConfigError

COURSE = """\
BASE: ["lenet"]
MODEL: {NAME: "mlp", NUM_CLASSES: 10, DROP_RATE: 0.1}
DATA: &data {DATASET: "cifar10", BATCH_SIZE: 64, IMG_SIZE: 32, NUM_WORKERS: 4}
TRAIN:
  EPOCHS: 30
  BASE_LR: 3e-4
  LR_SCHEDULER: {NAME: step, DECAY_EPOCHS: 30}
  OPTIMIZER: {NAME: sgd, MOMENTUM: 0.9}
OUTPUT: "output/lenet_cifar10"
"""
OURS = [path.read_text(encoding="utf-8") for path in shipped_experiments().values()]
WORDS = [
    *("data", "split", "input", "augment", "model", "optim", "schedule", "train", "checkpoint", "device", "name", "seed", "base"),
    *("lr", "epochs", "hidden", "mlp", "adam", "folder", "path", "image_size", "DATA", "MODEL", "TRAIN", "NAME", "OPTIMIZER", "OUTPUT"),
    *(": ", ":", "\n", "\n  ", "\n- ", " ", "- ", "? ", ", ", "[", "]", "{", "}", "'", '"', "#", "|", ">", "---\n", "...\n", "%YAML 1.2\n"),
    *("&a ", "*a", "<<: ", "!!str ", "!x ", "!!python/object:os.system ", "\t", "\r", "\x00", "\x85", "\u2028", "\ufeff", "\U0001f600"),
    *("1", "-1", "1e-3", "1e999", ".nan", "-.inf", "0x" + "f" * 5000, "9" * 5000, "null", "~", "true", "no", "\\ud800", "\\U00110000"),
    *("../", "/", "\\0", "quickstart", "my.yaml", "\n" * 50, "[" * 70, "{a: " * 70, "x" * 300),
]
CHANGE = st.tuples(st.integers(0, 1000), st.integers(0, 3), st.one_of(st.sampled_from(WORDS).map(str.encode), st.binary(max_size=4)))


def changed(text: str, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Return the text with pieces put in place of others: so many bytes from a place are overwritten."""
    content = text.encode()
    for place, length, piece in changes:
        at = place % (len(content) + 1)
        content = content[:at] + piece + content[at + length :]
    return content


YAMLISH = st.lists(st.sampled_from(WORDS), max_size=40).map(lambda words: "".join(words).encode())
FILES = st.one_of(
    st.builds(changed, st.sampled_from(OURS), st.lists(CHANGE, min_size=1, max_size=6)),
    st.builds(changed, st.just(COURSE), st.lists(CHANGE, min_size=1, max_size=6)),
    YAMLISH,
)
KEYS = st.lists(st.sampled_from(WORDS), max_size=4).map(".".join)
OVERRIDES = st.lists(st.tuples(KEYS, st.sampled_from(["=", "==", ""]), YAMLISH.map(bytes.decode)).map("".join), max_size=4)
IN_CI = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
IN_SOAK = settings(IN_CI, max_examples=10_000, derandomize=False)


def outcome(load: Callable[[], Config]) -> Config | list[str]:
    """Return the config, or the lines of the refusal; any other error goes through and fails the test."""
    try:
        return load()
    except ConfigError as error:
        return str(error).splitlines()


def check_outcome(found: Config | list[str]) -> None:
    if isinstance(found, Config):
        return
    assert len(found) == 1 or (" problems in the config" in found[0] and all(line.startswith("  ") for line in found[1:]))
    assert all(0 < len(line) < 2000 and line.isprintable() for line in found)


def check_file(folder: Path, content: bytes) -> None:
    path = folder / "my.yaml"
    path.write_bytes(content)
    check_outcome(outcome(lambda: load_config(path, REGISTRIES).config))


def check_overrides(words: list[str]) -> None:
    check_outcome(outcome(lambda: load_config("quickstart", REGISTRIES, overrides=words).config))


@given(content=FILES)
@IN_CI
def test_a_damaged_file_is_a_config_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Faults 44, 45, 46."""
    check_file(tmp_path_factory.getbasetemp(), content)


@given(words=OVERRIDES)
@IN_CI
def test_a_damaged_override_is_a_config_or_a_refusal(words: list[str]) -> None:
    """Faults 44, 45, 46."""
    check_overrides(words)


@pytest.mark.soak
@given(content=FILES)
@IN_SOAK
def test_ten_thousand_damaged_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Faults 44, 45, 46."""
    check_file(tmp_path_factory.getbasetemp(), content)


@pytest.mark.soak
@given(words=OVERRIDES)
@IN_SOAK
def test_ten_thousand_damaged_overrides(words: list[str]) -> None:
    """Faults 44, 45, 46."""
    check_overrides(words)


ANYTHING: Any = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.builds(lambda: 10**5000), st.just(Path("x"))
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3)),
    max_leaves=5,
)


@given(section=st.sampled_from(WORDS[:12]), key=st.sampled_from(["name", "lr", "epochs", "path", ""]), value=ANYTHING)
@IN_CI
def test_anything_from_python_is_a_config_or_a_refusal(section: str, key: str, value: Any) -> None:
    """Fault 45."""
    for given_value in (value, {key: value}):
        check_outcome(outcome(lambda: load_config("quickstart", REGISTRIES, settings={section: given_value}).config))  # noqa: B023
