"""`inspect activations`: of a run, of several, of variants of an experiment, and what is refused."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from firstlight.__main__ import main
from firstlight.data.digits import load_digits
from firstlight.engine.sources import load_config
from firstlight.errors import ConfigError
from firstlight.inspection.activations import (
    compare_runs,
    draw_moments,
    follow,
    initial_model,
    is_run,
    look_at_run,
    look_at_runs,
    look_at_variants,
    say_moments,
    variants_of,
)  # fmt: skip
from firstlight.inspection.opened import opened
from firstlight.models.build import build_model

Find = Callable[[str], Path]
SMALL = ["model=cnn5", "model.width=4", "device.threads=1", "train.batch_size=32"]


def test_a_run_has_filters_maps_and_figures_by_depth(trained_run: Find) -> None:
    """A16, C7: PNG and SVG of each, a row a layer and moment."""
    result = look_at_run(trained_run("cnn"), image="3")
    ends = ("", "-gradients", "-filters", "-maps")
    assert [Path(path).name for path in result["files"]] == [
        *(f"activations-val{end}.{kind}" for end in ends for kind in ("png", "svg")),
        "activations-val.csv",
        "activations-val.json",
    ]
    assert [(row["when"], row["layer"]) for row in result["layers"]] == [
        (when, layer) for when in ("at its start", "trained") for layer in ("features.0", "features.4", "head")
    ]
    with Path(result["files"][-2]).open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["weight_gradient"]) for row in rows] == pytest.approx([row["weight_gradient"] for row in result["layers"]], abs=1e-6)
    assert json.loads(Path(result["files"][-1]).read_text()) == json.loads(json.dumps(result))


def test_an_mlp_has_no_feature_maps(trained_run: Find) -> None:
    names = [Path(path).name for path in look_at_run(trained_run("plain"))["files"]]
    assert "activations-val-filters.png" in names and not [name for name in names if "maps" in name]


def test_the_start_of_a_run_is_the_network_that_it_began_with(trained_run: Find) -> None:
    """A16: at initialisation, made again from the run's seed."""
    with opened(trained_run("cnn"), "x") as o:
        made = initial_model(o)
        wanted = build_model(o.config.model, load_digits("train", Path()).image_shape, 10, seed=o.config.seed)
        assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in made.state_dict().items())
        assert not torch.equal(made.head.weight, o.model.head.weight)


def test_runs_are_compared_on_the_same_axes(trained_run: Find) -> None:
    result = compare_runs([trained_run("plain"), trained_run("dropout")])
    assert {(row["name"], row["when"]) for row in result["layers"]} == {
        (name, when) for name in ("plain", "dropout") for when in ("at its start", "trained")
    }
    assert (result["run"], result["what"]) == (str(trained_run("plain")), "activations-compare")


def test_variants_show_what_batch_norm_and_init_do(tmp_path: Path) -> None:
    """A16, A3: activations of cnn5 without normalisation shrink with depth from small weights; with it they keep their spread."""
    result = look_at_variants("quickstart", SMALL, ["model.norm=true,false", "model.init=normal_small"], num_steps=3, out=tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(Path(path).name for path in result["files"])
    spread = {
        (row["name"], row["depth"]): row["std"] for row in result["layers"] if row["when"] == "at its start" and row["std"] is not None
    }
    with_norm, without = "norm=true init=normal_small", "norm=false init=normal_small"
    assert spread[without, 4] < spread[without, 1] / 10
    assert 0.5 < spread[with_norm, 4] / spread[with_norm, 1] < 2
    assert {row["when"] for row in result["layers"]} == {"at its start", "after 3 steps"}
    assert f"with {without}" in result["says"] and f"with {with_norm}" in result["says"]


def test_steps_come_again_and_leave_the_generator_alone() -> None:
    config, before = load_config("quickstart", *SMALL), torch.get_rng_state()
    first, again = (follow("cnn5", config, 2, Path()) for _ in range(2))
    assert first == again and torch.equal(torch.get_rng_state(), before)
    assert first[0] == follow("cnn5", config, 0, Path())[0]  # no steps: a look at the new network alone


def test_a_training_that_diverges_is_said(tmp_path: Path) -> None:
    words = ["model=mlp", "model.hidden=[16,16]", "model.init_scale=1e6", "device.threads=1", "optim=sgd", "optim.lr=1e30"]
    new, broken = follow("wild", load_config("quickstart", *words), 5, Path())
    assert new.layers and not broken.layers and broken.when.startswith("diverged at step")
    assert say_moments([new, broken]).endswith(f"it {broken.when}")
    assert say_moments([new, broken, replace(new, name="tame")]).endswith(f"wild {broken.when}")
    assert len(draw_moments(tmp_path / "two", [new, broken], "one is drawn")) == 4


def test_a_grid_is_every_combination_over_the_overrides() -> None:
    variants = variants_of(["model.width=4", "optim.lr=9"], ["optim.lr=0.1,1", "model=mlp,lenet"])
    assert [name for name, _ in variants] == ["lr=0.1 model=mlp", "lr=0.1 model=lenet", "lr=1 model=mlp", "lr=1 model=lenet"]
    assert variants[3][1] == ["model.width=4", "optim.lr=1", "model=lenet"]
    assert [words for _, words in variants_of([], ["model.hidden=[8,8],[16]"])] == [["model.hidden=[8,8]"], ["model.hidden=[16]"]]
    assert variants_of(["seed=1"], []) == [("", ["seed=1"])]


def test_wrong_input_is_one_line(trained_run: Find, tmp_path: Path) -> None:
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: look_at_run(trained_run("scratch")), "scratch_mlp, whose parts are raw tensors without names; take model=mlp"),
        (lambda: is_run("mnope", tmp_path), f"mnope is no run in {tmp_path}, no experiment and no file"),
        (lambda: look_at_run(trained_run("cnn"), image="999"), "images are 0 to 143"),
        (lambda: look_at_runs([trained_run("cnn")], refused=["optim.lr=1"]), "is a run, whose settings stand; leave out optim.lr=1"),
        (lambda: compare_runs([trained_run("cnn")] * 9), "at most 8"),
        (lambda: look_at_variants("quickstart", ["model=scratch_mlp"], [], out=tmp_path / "no"), "raw tensors"),
        (lambda: look_at_variants("quickstart", [], ["model.widths"], out=tmp_path / "no"), "has no values"),
        (lambda: look_at_variants("quickstart", [], ["seed=1,2,3,4,5,6,7,8,9"], out=tmp_path / "no"), "9 variants, at most 8"),
        (lambda: look_at_variants("quickstart", [], ["model.norm=true"], out=tmp_path / "no"), "norm"),
        (lambda: look_at_variants("quickstart", [], [], num_steps=-1, out=tmp_path / "no"), "--steps is -1"),
        (lambda: look_at_variants("quickstart", [], [], compare=["a"], out=tmp_path / "no"), "--compare goes with a run"),
    ]
    for call, says in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "no").exists()


def run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert not left.value.code


def test_the_command_takes_a_run_or_an_experiment(trained_run: Find, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["inspect", "activations", str(trained_run("plain")), "--compare", str(trained_run("dropout")), "--json"])
    assert json.loads(capsys.readouterr().out)["what"] == "activations-compare"
    run(["inspect", "activations", "quickstart", "model=linear", "--steps", "1", "--out", str(tmp_path / "pictures")])
    out = capsys.readouterr().out
    assert "linear1" in out and (tmp_path / "pictures" / "activations.png").is_file()
