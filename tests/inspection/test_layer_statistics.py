"""Figures of each layer in a training step, against a plain computation; and that the measured network is left as it was."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from firstlight.config.schema import Kind
from firstlight.data.loader import Batch
from firstlight.inspection.layer_images import feature_maps, filters_of
from firstlight.inspection.layer_statistics import Watch, measure_layers, weight_layers
from firstlight.models.build import build_model


def batch_of(num: int, *shape: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(num, *shape, generator=generator), torch.arange(num) % 10, torch.arange(num))


def module(name: str, shape: tuple[int, int, int], **options: object) -> nn.Module:
    model = build_model(Kind(name, options), shape, 10, seed=0)
    assert isinstance(model, nn.Module)
    return model


def test_the_figures_of_an_mlp_are_those_of_a_plain_step() -> None:
    """A16: activation and gradient statistics by depth, to 1e-6 of plain tensor arithmetic."""
    model, batch = module("mlp", (1, 6, 6), hidden=(20, 15)), batch_of(32, 1, 6, 6)
    loss, (first, second, last) = measure_layers(model, batch, seed=0, device="cpu")

    weights = [(layer.weight.detach().double().requires_grad_(), layer.bias.detach().double()) for _, layer in weight_layers(model)]
    outputs, activations, values = [], [], batch.images.flatten(1).double()
    for place, (weight, bias) in enumerate(weights):
        values = values @ weight.T + bias
        values.retain_grad()
        outputs.append(values)
        values = values.clamp(min=0) if place < 2 else values
        activations.append(values)
    wanted = cross_entropy(values, batch.labels)
    wanted.backward()

    assert loss == pytest.approx(wanted.item(), rel=1e-6)
    for layer, (weight, _), output, activation in zip((first, second, last), weights, outputs, activations, strict=True):
        assert layer.output_std == pytest.approx(np.std(output.detach().numpy()), rel=1e-5)
        assert layer.output_gradient == pytest.approx(32 * float(output.grad.square().mean().sqrt()), rel=1e-5)
        assert layer.weight_gradient == pytest.approx(float(weight.grad.norm()), rel=1e-5)
        assert layer.relative_gradient == pytest.approx(float(weight.grad.norm() / weight.detach().norm()), rel=1e-5)
        assert sum(layer.histogram) == pytest.approx(float((weight.grad != 0).double().mean()), abs=1e-3)
        if layer is not last:
            shown = activation.detach().numpy()
            assert (layer.mean, layer.std, layer.zeros) == pytest.approx((shown.mean(), shown.std(), (shown == 0).mean()), rel=1e-5)
    assert [(layer.name, layer.kind, layer.num_units) for layer in (first, second, last)] == [
        ("linear1", "linear", 20),
        ("linear2", "linear", 15),
        ("linear3", "linear", 10),
    ]
    assert (last.mean, last.zeros, last.num_dead) == (None, None, None)  # no activation behind the logits


def test_units_that_are_zero_for_all_images_are_dead() -> None:
    """Planted: three hidden units with a bias that nothing lifts above zero."""
    model = module("mlp", (1, 6, 6), hidden=(20,))
    with torch.no_grad():
        model.linear1.bias[[2, 5, 11]] = -1e3  # type: ignore[union-attr, operator]
    _, (hidden, _) = measure_layers(model, batch_of(64, 1, 6, 6), seed=0, device="cpu")
    assert hidden.num_dead == 3 and hidden.zeros is not None and hidden.zeros > 3 / 20


def test_channels_are_the_units_of_a_convolution() -> None:
    model = module("lenet", (1, 16, 16))
    with torch.no_grad():
        model.features[0].bias[4] = -1e3  # type: ignore[index, union-attr]
    _, layers = measure_layers(model, batch_of(16, 1, 16, 16), seed=0, device="cpu")
    assert [(layer.kind, layer.num_units) for layer in layers[:2]] == [("convolution", 6), ("convolution", 16)]
    assert layers[0].num_dead == 1


def test_a_measured_network_is_left_as_it_was() -> None:
    """A16: neither weights nor running statistics change, no gradient stays behind, the mode and the global generator stay."""
    model = module("small_cnn", (1, 8, 8), widths=(4, 8), dropout=0.5).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    first = measure_layers(model, batch_of(12, 1, 8, 8), seed=0, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(layer._forward_hooks for layer in model.modules())
    assert first == measure_layers(model, batch_of(12, 1, 8, 8), seed=0, device="cpu")


def test_batch_norm_uses_the_batch_as_in_training() -> None:
    """A16: a new network's running statistics say nothing yet; normalised by the batch, half of a ReLU's outputs are zero."""
    far = batch_of(64, 3, 8, 8)._replace(images=batch_of(64, 3, 8, 8).images * 50 + 200)
    _, layers = measure_layers(module("cnn5", (3, 8, 8), width=4), far, seed=0, device="cpu")
    assert all(layer.zeros is not None and abs(layer.zeros - 0.5) < 0.15 for layer in layers[:4])
    assert all(layer.std is not None and 0.3 < layer.std < 0.9 for layer in layers[:4])


def test_gradients_shrink_with_depth_in_a_deep_sigmoid_network() -> None:
    """A16: vanishing gradients (Glorot and Bengio 2010) are seen where they must be."""
    _, layers = measure_layers(module("mlp", (1, 6, 6), hidden=(32,) * 6, activation="sigmoid", init="normal_small"), batch_of(32, 1, 6, 6),
                               seed=0, device="cpu")  # fmt: skip
    sizes = [layer.output_gradient for layer in layers]
    assert all(earlier < later / 4 for earlier, later in itertools.pairwise(sizes))


def test_activations_that_are_called_as_functions_are_seen() -> None:
    """ResNet-18 has no layer for most of its ReLUs."""
    _, layers = measure_layers(module("resnet18", (3, 8, 8), width=8), batch_of(4, 3, 8, 8), seed=0, device="cpu")
    seen = {layer.name: layer.zeros for layer in layers}
    assert len(layers) == 21
    assert seen["stages.0.0.conv1"] is not None and seen["stages.0.0.conv2"] is not None
    assert seen["stages.1.0.conv2"] is None  # the projection beside it comes before the ReLU
    assert seen["stages.1.0.shortcut.0"] is not None and seen["head"] is None


def test_weights_of_zero_have_no_relative_gradient() -> None:
    _, (layer,) = measure_layers(module("linear", (1, 6, 6)), batch_of(8, 1, 6, 6), seed=0, device="cpu")
    assert layer.relative_gradient is None and layer.weight_gradient > 0 and layer.mean is None


def test_a_watch_ends_with_its_block() -> None:
    model, watch = module("mlp", (1, 6, 6)), Watch()
    with watch.on(model):
        model(torch.zeros(1, 1, 6, 6))
    model(torch.zeros(1, 1, 6, 6))
    assert len(watch.seen) == 3


def test_filters_are_the_first_weights_in_the_shape_of_the_images() -> None:
    model = module("mlp", (3, 6, 6))
    found = filters_of(model, (3, 6, 6), 5)
    assert found is not None and found[0] == "linear1" and found[1].shape == (5, 6, 6, 3)
    np.testing.assert_array_equal(found[1][2, :, :, 1].ravel(), model.linear1.weight.detach()[2, 36:72])  # type: ignore[union-attr, index]
    grey = filters_of(module("lenet", (1, 16, 16)), (1, 16, 16), 32)
    assert grey is not None and grey[1].shape == (6, 5, 5)


def test_filters_over_many_channels_are_averaged_over_them() -> None:
    model = build_model(Kind("cnn5", {"width": 4}), (3, 8, 8), 10, seed=0, whiten=2)
    assert isinstance(model, nn.Module)
    found = filters_of(model, (3, 8, 8), 4)
    wanted = model.network.features[0].weight.detach().mean(1)  # type: ignore[union-attr, index]
    assert found is not None
    np.testing.assert_allclose(found[1], wanted, atol=1e-7)


def test_feature_maps_are_the_strongest_outputs_behind_the_activation() -> None:
    model = module("lenet", (1, 16, 16)).eval()
    image = batch_of(1, 1, 16, 16).images
    (name, channels, maps), (_, others, _) = feature_maps(model, image, 3)
    wanted = torch.relu(model.features[0](image))[0].detach()  # type: ignore[index, operator]
    strongest = wanted.abs().mean((1, 2)).argsort(descending=True)[:3].sort().values
    assert (name, channels, others) == ("features.0", 6, 16)
    np.testing.assert_allclose(maps, wanted[strongest], atol=1e-7)
    assert feature_maps(module("mlp", (1, 6, 6)), torch.zeros(1, 1, 6, 6), 3) == []


def test_the_loss_of_a_new_network_is_near_that_of_guessing() -> None:
    loss, _ = measure_layers(module("linear", (1, 6, 6)), batch_of(20, 1, 6, 6), seed=0, device="cpu")
    assert loss == pytest.approx(math.log(10), abs=1e-6)
