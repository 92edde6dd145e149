"""The whitening layer: what comes out of it is white, it is not trained, and any network can stand behind it."""

import pytest
import torch
from torch import nn

import firstlight as fl
from firstlight.config.schema import Kind
from firstlight.errors import ConfigError
from firstlight.models.build import build_model
from firstlight.models.layers import count_parameters, freeze_norm_scales
from firstlight.models.whitening import EPS, Whitened, Whitening


def photographs(num: int = 300, channels: int = 3, size: int = 12) -> torch.Tensor:
    """Return images whose neighbouring pixels and channels are alike, float32."""
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn(num, channels, size + 4, size + 4, generator=generator)
    smooth = nn.functional.avg_pool2d(rough, 5, stride=1)
    return smooth + smooth.mean(1, keepdim=True)


@pytest.mark.parametrize(("channels", "side"), [(3, 2), (1, 3), (3, 1)])
def test_directions_are_uncorrelated_with_variance_1(channels: int, side: int) -> None:
    images = photographs(channels=channels) * 10  # so that EPS is small beside every variance
    layer = Whitening((channels, 12, 12), side)
    layer.measure(images)
    num_directions = channels * side**2
    values = nn.functional.conv2d(images, layer.filters[:num_directions]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(values @ values.T / values.shape[1], torch.eye(num_directions), atol=0.02, rtol=0)
    torch.testing.assert_close(layer.filters[:num_directions], -layer.filters[num_directions:])


def test_a_direction_without_contrast_is_not_blown_up() -> None:
    layer = Whitening((3, 4, 4), 2)
    layer.measure(torch.zeros(5, 3, 4, 4))
    assert layer.filters.abs().max() <= EPS**-0.5


def test_the_layer_hands_on_both_signs_of_a_patch() -> None:
    layer = Whitening((1, 5, 7), 2)
    layer.measure(photographs(channels=1))
    seen = layer(torch.randn(2, 1, 5, 7))
    assert seen.shape == (2, *layer.output_shape) == (2, 8, 4, 6)
    assert seen.min() == 0
    assert torch.equal((seen[:, :4] > 0) & (seen[:, 4:] > 0), torch.zeros(2, 4, 4, 6, dtype=torch.bool))


@pytest.mark.parametrize("name", ["airbench", "cnn5", "lenet", "mlp", "small_cnn"])
def test_any_network_stands_behind_it_and_the_filters_are_not_trained(name: str) -> None:
    model = build_model(Kind(name), (3, 32, 32), 10, seed=0, whiten=2)
    assert isinstance(model, Whitened)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    alone = build_model(Kind(name), (24, 31, 31), 10, seed=0)
    assert count_parameters(model) == count_parameters(alone)


def test_what_cannot_be_whitened_says_so() -> None:
    with pytest.raises(ConfigError, match=r"input.whiten is 9, but images are 8x8; set input.whiten=8 or less"):
        build_model(Kind("mlp"), (1, 8, 8), 10, seed=0, whiten=9)
    with pytest.raises(ConfigError, match=r"scratch_mlp takes images alone; set input.whiten=0 or another model"):
        build_model(Kind("scratch_mlp"), (1, 8, 8), 10, seed=0, whiten=2)
    with pytest.raises(ConfigError, match=r"input.whiten is 9; it must be >= 0 and <= 8"):
        fl.load_config("quickstart", "input.whiten=9")


def test_a_run_measures_its_own_images_and_comes_back_with_its_filters(tmp_path) -> None:
    """B11: evaluating a whitened run needs no images to measure again."""
    settings = ["input.whiten=2", "train.epochs=1", "train.test_at_end=false", "model.widths=[4]", "split.num_train=200"]
    runs = [fl.train("quickstart", *settings, f"split.seed={seed}", name=str(seed), runs_dir=tmp_path) for seed in (0, 1)]
    first, second = (fl.load_model(run.path).whitening.filters for run in runs)
    assert first.abs().max() > 0
    assert not torch.equal(first, second), "other training images, other filters"
    val = fl.evaluate(runs[0].path)
    assert val["accuracy"] == pytest.approx(runs[0].summary["val_accuracy"])


def test_frozen_scales_stay_1_and_biases_learn(tmp_path) -> None:
    settings = ["train.freeze_norm_scale=true", "train.epochs=1", "train.test_at_end=false", "model.widths=[4]", "split.num_train=200"]
    model = fl.load_model(fl.train("quickstart", *settings, runs_dir=tmp_path, name="run").path)
    norm = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    assert torch.equal(norm.weight, torch.ones(4))
    assert norm.bias.abs().min() > 0


def test_freezing_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no normalisation layer; leave it out or take another model"):
        freeze_norm_scales(build_model(Kind("lenet"), (3, 32, 32), 10, seed=0))
    with pytest.raises(ConfigError, match=r"no normalisation layer"):
        freeze_norm_scales(build_model(Kind("scratch_mlp"), (1, 8, 8), 10, seed=0))
