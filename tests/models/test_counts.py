"""Every architecture has the published number of parameters, takes any sane image, and learns from a last batch of one."""

import pytest
import torch

from firstlight.config.schema import Kind
from firstlight.errors import ConfigError
from firstlight.models.build import MODELS, build_model
from firstlight.models.layers import count_parameters

LEAST = {"lenet": 12, "digit_cnn": 20, "alexnet": 63, "airbench": 8}
E9 = {"hidden": (900, 900), "norm": "before", "input_norm": True, "output_norm": True}


@pytest.mark.parametrize(
    ("kind", "image_shape", "num_classes", "count"),
    [
        (Kind("linear"), (1, 28, 28), 10, 7_850),
        (Kind("scratch_linear"), (1, 28, 28), 10, 7_850),
        (Kind("mlp"), (1, 28, 28), 10, 109_386),
        (Kind("scratch_mlp"), (1, 28, 28), 10, 109_386),
        (Kind("mlp", E9), (1, 28, 28), 10, 1_531_598),
        (Kind("cnn5"), (3, 32, 32), 10, 1_558_026),
        (Kind("cnn5", {"norm": False}), (3, 32, 32), 10, 1_556_106),
        (Kind("lenet"), (3, 32, 32), 10, 83_126),
        (Kind("lenet"), (3, 32, 32), 200, 99_276),
        (Kind("alexnet"), (3, 70, 70), 10, 57_044_810),
        (Kind("alexnet"), (3, 70, 70), 200, 57_823_240),
        (Kind("resnet18"), (3, 32, 32), 10, 11_173_962),
        (Kind("digit_cnn"), (1, 28, 28), 10, 21_714),
        (Kind("airbench"), (24, 31, 31), 10, 1_972_480),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
def test_parameter_counts(kind: Kind, image_shape: tuple[int, int, int], num_classes: int, count: int) -> None:
    """A2 A3 B4 C1 D3 E9."""
    assert count_parameters(build_model(kind, image_shape, num_classes, seed=0)) == count


SHAPES = [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 33, 32), (3, 96, 80)]
FITTING = [(name, shape) for name in sorted(MODELS) for shape in SHAPES if min(shape[1:]) >= LEAST.get(name, 1)]


@pytest.mark.parametrize(("name", "image_shape"), FITTING)
def test_any_sane_image_gives_finite_logits_even_alone_in_training(name: str, image_shape: tuple[int, int, int]) -> None:
    """Fault 34: the last batch may hold one image, and batch norm must bear it."""
    model = build_model(Kind(name, {"width": 8} if name in ("cnn5", "resnet18") else {}), image_shape, 7, seed=0)
    for batch_size in (1, 2):
        logits = model(torch.rand(batch_size, *image_shape))
        assert logits.shape == (batch_size, 7)
        assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_alexnet_at_70_pixels_flattens_to_9216() -> None:
    """D3."""
    model = build_model(Kind("alexnet"), (3, 70, 70), 10, seed=0).eval()
    with torch.no_grad():
        assert model.features(torch.rand(1, 3, 70, 70)).flatten(1).shape == (1, 9216)


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_too_small_images_are_refused_with_the_least_size(name: str, least: int) -> None:
    with pytest.raises(ConfigError, match=rf"model {name}: images are {least - 1}x64, allowed are {least}x{least} pixels"):
        build_model(Kind(name), (3, least - 1, 64), 10, seed=0)
    with torch.device("meta"):
        build_model(Kind(name), (3, least, least), 10, seed=0)


def test_unknown_model_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"model: unknown name 'lennet'; did you mean 'lenet'\?"):
        build_model(Kind("lennet"), (3, 32, 32), 10, seed=0)


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"alexnet"}))
def test_weights_follow_from_the_seed_and_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, second, other = (build_model(Kind(name), (3, 32, 32), 10, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "linear" in name or any(not torch.equal(first[key], other[key]) for key in first)


def test_cnn5_depth_and_width_are_settings() -> None:
    """A4: layers and width by config."""
    shallow = build_model(Kind("cnn5", {"depth": 2, "width": 16}), (3, 32, 32), 10, seed=0)
    assert [tuple(p.shape) for p in shallow.parameters() if p.ndim == 4] == [(16, 3, 3, 3), (32, 16, 3, 3)]
    deep = build_model(Kind("cnn5", {"depth": 9, "width": 8}), (3, 32, 32), 10, seed=0)
    assert deep(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert [p.shape[0] for p in deep.parameters() if p.ndim == 4] == [8, 16, 32, 64, 64, 64, 64, 64, 64]


def test_cnn5_pools_1_2_2_8_as_published() -> None:
    """A1."""
    model = build_model(Kind("cnn5"), (3, 32, 32), 10, seed=0)
    pools = [module.kernel_size for module in model.features if isinstance(module, torch.nn.MaxPool2d)]
    assert pools == [(2, 2), (2, 2), (8, 8)]
