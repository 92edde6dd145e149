"""Numbers that no machine can hold are refused by the schema, not by an overflow inside torch."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import firstlight as fl
from firstlight.config.kinds import settings_of
from firstlight.config.load import SECTIONS
from firstlight.config.schema import Config
from firstlight.engine.sources import REGISTRIES
from firstlight.errors import ConfigError
from firstlight.limits import Range


def holds_numbers(annotation: Any) -> bool:
    if get_origin(annotation) is Literal or annotation is bool:
        return False
    parts = [part for part in get_args(annotation) if not isinstance(part, Range)]
    return annotation in (int, float) or any(holds_numbers(part) for part in parts)


def numbers() -> list[tuple[str, ...]]:
    """Every number of the schema and of every kind, as the overrides that lead to it and its key."""
    top: list[tuple[str, ...]] = [(name,) for name, setting in settings_of(Config).items() if holds_numbers(setting.annotation)]
    sections = [
        (f"{section}.{key}",)
        for section, cls in SECTIONS.items()
        for key, setting in settings_of(cls).items()
        if holds_numbers(setting.annotation)
    ]
    kinds = [
        (f"{section}={name}", f"{section}.{key}")
        for section, registry in REGISTRIES.items()
        for name, constructor in registry.items()
        for key, setting in settings_of(constructor).items()
        if holds_numbers(setting.annotation)
    ]
    return top + sections + kinds


def is_list(words: tuple[str, ...]) -> bool:
    return words[-1] in ("model.hidden", "model.widths", "model.convolutions", "schedule.milestones")


def test_there_are_numbers_to_check() -> None:
    assert {("seed",), ("split.seed",), ("augment.cutout",), ("model=mlp", "model.hidden")} <= set(numbers())
    assert len(numbers()) > 70


@pytest.mark.parametrize("words", numbers(), ids=" ".join)
def test_a_number_beyond_all_bounds_is_refused(words: tuple[str, ...]) -> None:
    """Fault 45: `seed=10^30` or `augment.cutout=10^30` is one line with key and bound, not an overflow inside torch."""
    *kind, key = words
    beyond = "1e301" if key == "optim.lr" else f"{10**30}"
    value = f"[{beyond}]" if is_list(words) else beyond
    with pytest.raises(ConfigError) as caught:
        fl.load_config("quickstart", *kind, f"{key}={value}")
    lines = [line for line in str(caught.value).splitlines() if f"{key}" in line and "must be" in line]
    assert len(lines) == 1 and "<" in lines[0], str(caught.value)


@pytest.mark.parametrize("key", ["seed", "init_seed", "order_seed", "split.seed"])
def test_the_largest_seed_trains(key: str, tmp_path: Path) -> None:
    words = ["split.num_train=100", "train.epochs=1", "device.threads=1", "augment.crop=1", "augment.cutout=2", f"{key}={2**63 - 1}"]
    assert fl.train("quickstart", *words, runs_dir=tmp_path).state == "finished"
    with pytest.raises(ConfigError, match=f"{key} is {2**63}; it must be >= 0 and <= {2**63 - 1}"):
        fl.load_config("quickstart", f"{key}={2**63}")
