"""The gradient of a convolution's weights by matrix products, against torch's own."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from firstlight.models import convolution
from firstlight.models.convolution import Conv2d, weight_gradient

SIZES = st.integers(1, 3)


@settings(deadline=None)
@given(
    num_images=st.integers(1, 5),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    side=st.integers(3, 9),
    kernel=st.tuples(SIZES, SIZES),
    stride=st.tuples(SIZES, SIZES),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    rows=st.sampled_from([1, 100, 2**20]),
)
def test_the_gradient_is_that_of_torch(
    num_images: int,
    channels: tuple[int, int],
    side: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    rows: int,
) -> None:
    """The plain reference beside the fast path: any kernel, stride and padding, and any number of images at once."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num_images, channels[0], side, side + 1, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels[1], channels[0], *kernel, generator=generator, requires_grad=True)
    result = torch.conv2d(images, weight, None, stride, padding)
    slope = torch.randn(result.shape, generator=generator).contiguous(memory_format=torch.channels_last)
    result.backward(slope)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "ROWS", rows)
        torch.testing.assert_close(weight_gradient(images, slope, weight, stride, padding), weight.grad, rtol=1e-4, atol=1e-4)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [Conv2d(3, 32, 3), nn.ReLU(), Conv2d(32, 40, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(40), Conv2d(40, 32, 1)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten()).to(memory_format=torch.channels_last)


def test_a_network_learns_as_with_torchs_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, biases and images get the gradients that they get from torch.nn.Conv2d, in the layout of the weights."""
    monkeypatch.setattr(convolution, "AVX2", True)
    ours = network()
    plain = copy.deepcopy(ours)
    for layer in plain:
        if isinstance(layer, Conv2d):
            layer.__class__ = nn.Conv2d
    images = torch.randn(4, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    by_images = []
    for model in (ours, plain):
        seen = images.clone().requires_grad_()
        model(seen).square().sum().backward()
        by_images.append(seen.grad)
    used = [
        type(layer(torch.zeros(1, layer.in_channels, 9, 9).to(memory_format=torch.channels_last)).grad_fn).__name__
        for layer in ours[::2][:3]
    ]
    assert [name == "_ConvolutionBackward" for name in used] == [False, True, True]
    torch.testing.assert_close(*by_images, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert mine.grad.stride() == mine.stride()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "case",
    ["frozen", "no gradients", "contiguous", "grouped", "dilated", "reflected", "padded by name", "double", "autocast", "narrow", "AVX512"],
)
def test_elsewhere_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(convolution, "AVX2", case != "AVX512")
    more = {"grouped": {"groups": 2}, "dilated": {"dilation": 2}, "reflected": {"padding": 1, "padding_mode": "reflect"}}
    more["padded by name"] = {"padding": "same"}
    layer = Conv2d(16 if case == "narrow" else 32, 32, 3, **more.get(case, {})).to(memory_format=torch.channels_last)
    images = torch.randn(2, layer.in_channels, 6, 6)
    if case != "contiguous":
        images = images.contiguous(memory_format=torch.channels_last)
    if case == "double":
        layer, images = layer.double(), images.double()
    layer.weight.requires_grad_(case != "frozen")
    with torch.set_grad_enabled(case != "no gradients"), torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        result = layer(images)
    expected = {"no gradients": "NoneType"}.get(case, "ConvolutionBackward0")
    if case == "autocast":
        assert result.dtype == torch.bfloat16
    assert type(result.grad_fn).__name__ == expected


def test_it_stays_out_of_the_way_of_torch_func(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "AVX2", True)
    layer = Conv2d(32, 32, 3).to(memory_format=torch.channels_last)
    weights, images = dict(layer.named_parameters()), torch.randn(3, 32, 6, 6).to(memory_format=torch.channels_last)

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(layer, weights, (images,)).square().sum()

    loss(weights).backward()
    torch.testing.assert_close(torch.func.grad(loss)(weights)["weight"], layer.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.vmap(layer)(images[None])[0], layer(images))
