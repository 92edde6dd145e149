import pytest
import torch
from torch import nn

from firstlight.config.schema import Kind
from firstlight.errors import ConfigError
from firstlight.models.build import build_model
from firstlight.models.init import INITS
from firstlight.models.layers import ACTIVATIONS, BatchNorm1d, BatchNorm2d, Reshape


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 2, 1)])
def test_reshape_keeps_the_batch_and_the_order(shape: tuple[int, ...]) -> None:
    """B3."""
    values = torch.arange(24).reshape(4, 2, 3)
    out = nn.Sequential(Reshape(*shape))(values)
    assert torch.equal(out, values.reshape(4, *shape))


def test_reshape_names_both_shapes_when_the_size_is_wrong() -> None:
    """B3: no silent change of the batch dimension, although 4 x 6 values fit 12 x 2."""
    with pytest.raises(ConfigError, match=r"Reshape\(2,\): each element has shape \(2, 3\), which holds 6 values; \(2,\) needs 2"):
        Reshape(2)(torch.zeros(4, 2, 3))


def test_reshape_of_no_images_and_its_print() -> None:
    assert Reshape(2, 3)(torch.zeros(0, 6)).shape == (0, 2, 3)
    assert repr(Reshape(2, 3)) == "Reshape(2, 3)"


def test_batch_norm_is_torchs_but_for_a_single_value_a_channel() -> None:
    """Fault 34."""
    for ours, theirs, shape in ((BatchNorm1d(5), nn.BatchNorm1d(5), (3, 5)), (BatchNorm2d(5), nn.BatchNorm2d(5), (1, 5, 2, 2))):
        images = torch.randn(shape)
        assert torch.equal(ours(images), theirs(images))
        assert torch.equal(ours.running_mean, theirs.running_mean)
        alone = images[:1, :, :1, :1] if images.ndim == 4 else images[:1]
        mean = ours.running_mean.clone()
        assert torch.equal(ours.train()(alone), theirs.eval()(alone))
        assert torch.equal(ours.running_mean, mean)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_the_shape(name: str) -> None:
    assert ACTIVATIONS[name]()(torch.randn(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("init", INITS)
def test_init_of_a_convolutional_network(init: str) -> None:
    """A3 A16: every convolution and the head start by name and scale; the default leaves what torch drew, bit for bit."""

    def start(**options: object) -> dict[str, torch.Tensor]:
        return build_model(Kind("cnn5", {"width": 4, **options}), (3, 8, 8), 10, seed=0).state_dict()

    plain, scaled, drawn = start(init=init), start(init=init, init_scale=0.5), start()
    for name in (name for name in plain if name.startswith(("features.0.", "head."))):
        assert torch.equal(scaled[name], plain[name] * (0.5 if name.endswith("weight") else 1))
        assert torch.equal(plain[name], drawn[name]) == (init == "torch_default")
