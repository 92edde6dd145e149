"""A config written into a run folder is the config that is read back, by our reader and by any other."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight.config.describe import describe, to_dict, to_yaml
from firstlight.config.kinds import settings_of
from firstlight.config.load import load_config
from firstlight.config.schema import Config, Kind, SplitConfig, TrainConfig
from firstlight.config.yaml import parse_yaml
from firstlight.engine.sources import REGISTRIES
from firstlight.limits import LARGEST

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster than safe_load
ODD = ["1e3", "0x10", "0o7", "010", "1_000", "no", "null", "~", ".nan", "+.inf", "1:30", "2026-11-21", " a", "a ", "a: b", "#a", "- a", "'"]
CONTROL = [
    "\x00",
    "\x07",
    "\x1b[0m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ufffe",
    "\U0010ffff",
    "a\nb",
    "\n",
    "a\tb",
    "\r\n",
    "é",
    "\\",
    '"',
]
TEXTS = st.one_of(st.sampled_from(ODD + CONTROL), st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
FLOATS = st.one_of(st.sampled_from([1e-7, 5e-324, 1.0, 1e22 / 1e15]), st.floats(min_value=0, max_value=LARGEST, exclude_min=True))
SEEDS = st.integers(0, 2**63 - 1)


def kind(section: str, name: str, **given_settings: Any) -> Kind:
    """Return a kind with all its settings, as the loader would."""
    defaults = {key: setting.default for key, setting in settings_of(REGISTRIES[section][name]).items()}
    return Kind(name, defaults | given_settings)


def configs() -> st.SearchStrategy[Config]:
    return st.builds(
        lambda name, path, seed, init_seed, lr, hidden, clip_norm, num_train: Config(
            name=name,
            seed=seed,
            init_seed=init_seed,
            data=kind("data", "folder", path=path),
            model=kind("model", "mlp", hidden=tuple(hidden)),
            optim=kind("optim", "adam", lr=lr),
            schedule=kind("schedule", "constant"),
            split=SplitConfig(num_train=num_train),
            train=TrainConfig(clip_norm=clip_norm),
        ),
        TEXTS,
        TEXTS,
        SEEDS,
        st.none() | SEEDS,
        FLOATS,
        st.lists(st.integers(1, 2**20), max_size=40),
        st.none() | FLOATS,
        st.none() | st.integers(1, LARGEST),
    )


@given(config=configs())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_config_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    """D1, fault 45: text that looks like a number stays text, whatever is in it, and the shown config is a config too."""
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    for text in (to_yaml(config), describe(config, {("seed",): "my.yaml:3"})):
        path.write_text(text, encoding="utf-8", newline="")
        assert load_config(path, REGISTRIES).config == config
        assert LOADER(text).get_single_data() == to_dict(config)  # YAML 1.1 readers see the same


@pytest.mark.parametrize("text", [*ODD, *CONTROL], ids=ascii)
def test_text_that_a_reader_would_take_for_something_else_is_quoted(text: str) -> None:
    """Fault 45: a run called `1e3` is written so that it can be read."""
    written = to_yaml(Config(name=text))
    assert parse_yaml(written, "config.yaml").value["name"] == yaml.safe_load(written)["name"] == text


def test_the_place_of_a_key_is_that_of_the_kind_it_has_now(tmp_path: Path) -> None:
    """`--dry-run` says nothing of settings that went with the kind they belonged to."""
    path = tmp_path / "my.yaml"
    path.write_text("optim: {name: adam, lr: 0.5, beta1: 0.8}\nmodel: lenet\n")
    loaded = load_config(path, REGISTRIES, overrides=["optim=sgd"])
    shown = describe(loaded.config, loaded.origins).splitlines()
    assert not any(line.lstrip().startswith("lr:") and "#" in line for line in shown)
    assert {key: origin for key, origin in loaded.origins.items() if key[0] == "optim"} == {
        ("optim", "name"): "override",
        ("optim",): "override",
    }
    assert [line.split("# ")[1] for line in shown if line.strip().startswith("name: lenet")] == [f"{path}:2"]
    assert [line.split("# ")[1] for line in shown if line.strip().startswith("name: sgd")] == ["override"]
