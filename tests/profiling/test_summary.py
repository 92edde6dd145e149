"""The layer table: each layer's FLOPs as torch counts them, totals as published."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import firstlight as fl
from firstlight.config.schema import Kind
from firstlight.data.build import load_part
from firstlight.errors import ConfigError
from firstlight.models.build import MODELS, build_model
from firstlight.models.layers import count_parameters
from firstlight.profiling.subject import SHAPES
from firstlight.profiling.summary import describe_layers, profile_summary

SHAPE = (3, 70, 70)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_as_torch_counts(name: str) -> None:
    """D13: FLOPs of each layer against the library's; parameters and shapes add up."""
    model = build_model(Kind(name, {"width": 8} if name == "resnet18" else {}), SHAPE, 10, seed=0)
    rows = describe_layers(model, SHAPE, name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()
        model(torch.zeros(1, *SHAPE))
    assert sum(row["flops"] for row in rows) == counter.get_total_flops() > 0
    assert sum(row["parameters"] for row in rows) == count_parameters(model)
    assert rows[-1]["output"] == [10]
    if isinstance(model, torch.nn.Module):
        known = {path.partition(".")[2]: sum(counts.values()) for path, counts in counter.get_flop_counts().items()}
        for row in rows:
            assert row["flops"] == known.get(row["layer"], row["flops"] if row["flops"] == 0 or len(rows) == 1 else -1)


def test_a_layer_that_is_called_twice_has_its_weights_once() -> None:
    shared = torch.nn.Linear(4, 4)
    rows = describe_layers(torch.nn.Sequential(torch.nn.Flatten(), shared, torch.nn.ReLU(), shared), (1, 2, 2), "net")
    assert [(row["parameters"], row["flops"], row["weight_bytes"]) for row in rows] == [(0, 0, 0), (20, 32, 80), (0, 0, 0), (0, 32, 0)]


def test_what_is_computed_between_the_layers_has_a_row() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(10, 4))
            self.flatten = torch.nn.Flatten()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(self.flatten(images), self.weight)

    *_, last = describe_layers(Net(), (1, 2, 2), "net")
    assert (last["layer"], last["parameters"], last["flops"]) == ("(between the layers)", 40, 80)


@pytest.mark.parametrize(
    ("source", "parameters", "flops", "published"),
    [
        ("resnet18_cifar10", 11_173_962, 1_110_845_440, 2),
        ("lenet", 83_126, 1_772_880, 1),
        ("alexnet", 57_044_810, 189_620_224, 1),
        ("cifar10_cnn5", 1_558_026, None, 1),
        ("mnist_scratch", 109_386, 218_368, 0),
    ],
)
def test_published_counts(source: str, parameters: int, flops: int | None, published: int, tmp_path: Path) -> None:
    """A2 D3: without an image of the data on this machine."""
    found = profile_summary(source, out=tmp_path, data_dir=tmp_path)
    assert found["total"]["parameters"] == parameters
    assert flops in (None, found["total"]["flops"])
    assert len(found["published"]) == published
    assert all(f"{parameters:,}" in line or "multiply-adds" in line for line in found["published"])
    assert json.loads((tmp_path / f"summary-{source}.json").read_text())["says"] == found["says"]


def test_other_settings_are_not_compared(tmp_path: Path) -> None:
    assert profile_summary("resnet18_cifar10", "model.width=32", out=tmp_path)["published"] == []
    assert profile_summary("lenet", "input.image_size=48", out=tmp_path)["published"] == []


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_known_shapes_are_those_of_the_data(name: str, shared_data: Path) -> None:
    dataset = load_part(Kind(name), "train", shared_data)
    assert SHAPES[name] == (dataset.image_shape, dataset.num_classes)


def test_a_run_tells_its_own_shape(tmp_path: Path) -> None:
    run = fl.train("quickstart", "model=linear", "train.epochs=1", name="mine", runs_dir=tmp_path)
    found = profile_summary(str(run.path))
    assert (found["image_shape"], found["total"]["parameters"]) == ([1, 8, 8], 650)
    assert found["files"][0] == str(run.path / "profile" / "summary.png")


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="alexnet: images are 32x32, allowed are 63x63"):
        profile_summary("alexnet", "input.image_size=32", out=tmp_path)
    with pytest.raises(ConfigError) as caught:
        profile_summary("lennet", runs_dir=tmp_path)
    assert "did you mean 'lenet'" in str(caught.value)
