from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from firstlight.models.layers import ACTIVATIONS, ActivationName
from firstlight.models.mlp import MLP


@pytest.mark.parametrize(
    ("norm", "order"),
    [
        ("none", ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]),
        ("before", ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]),
        ("after", ["Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]),
    ],
)
def test_order_of_the_layers(norm: str, order: list[str]) -> None:
    """E4 E5: dropout behind the activation; batch norm before or after it."""
    assert [type(layer).__name__ for layer in MLP((1, 4, 4), 3, hidden=(5,), norm=norm, dropout=0.5)] == order


def test_no_hidden_layer_is_softmax_regression() -> None:
    assert [tuple(p.shape) for p in MLP((1, 28, 28), 10, hidden=()).parameters()] == [(10, 784), (10,)]


def test_softmax_rows_sum_to_1_and_cross_entropy_is_nll_of_log_softmax() -> None:
    """B4."""
    logits, labels = MLP((1, 28, 28), 10)(torch.randn(64, 1, 28, 28)) * 20, torch.randint(10, (64,))
    assert torch.allclose(logits.softmax(1).sum(1), torch.ones(64), atol=1e-6)
    assert torch.allclose(F.cross_entropy(logits, labels), F.nll_loss(F.log_softmax(logits, 1), labels), rtol=0, atol=1e-6)


def test_input_norm_makes_scaling_the_pixels_needless() -> None:
    """E5: batch norm as input scaling."""
    torch.manual_seed(0)
    model, images = MLP((1, 4, 4), 3, input_norm=True), torch.rand(32, 1, 4, 4)
    assert torch.allclose(model(images), model(images * 255 - 40), atol=1e-3)


def test_zero_init_keeps_hidden_units_identical() -> None:
    """C3: why it fails; after one step every hidden unit is still a copy of the next."""
    model = MLP((1, 4, 4), 3, hidden=(6,), init="zeros", activation="sigmoid")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(torch.rand(8, 1, 4, 4)), torch.randint(3, (8,))).backward()
        optimizer.step()
    weight = model.linear1.weight
    assert weight.abs().max() > 0
    assert torch.equal(weight, weight[:1].expand_as(weight))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (7, 5, 6)])
def test_the_written_out_gradient_is_that_of_autograd(hidden: tuple[int, ...], activation: ActivationName) -> None:
    """The fast path beside the plain one: the same logits, bit for bit, and the same gradients."""
    torch.manual_seed(0)
    fast = MLP((1, 4, 4), 3, hidden=hidden, activation=activation)
    plain = nn.Sequential(*deepcopy(fast))
    images, found = torch.randn(9, 1, 4, 4), []
    for model in (fast, plain):
        seen = images.clone().requires_grad_()
        logits = model(seen)
        F.cross_entropy(logits, torch.arange(9) % 3).backward()
        found.append([logits.detach(), seen.grad, *(parameter.grad for parameter in model.parameters())])
    assert type(fast(images).grad_fn).__name__ == "_DenseLayersBackward"
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def _hook(layer: nn.Module, *values: object) -> None:
    pass


LOOKS = {
    "forward hook": lambda model: model.linear1.register_forward_hook(_hook),
    "backward hook": lambda model: model.linear1.register_full_backward_hook(_hook),
    "another layer": lambda model: model.add_module("activation1", nn.Tanh()),
}


@pytest.mark.parametrize("look", LOOKS)
def test_who_looks_at_a_layer_sees_it(look: str) -> None:
    """Hooks are called and exchanged layers are used: then the layers run one by one."""
    model, images = MLP((1, 4, 4), 3, hidden=(7,)), torch.randn(2, 1, 4, 4)
    LOOKS[look](model)
    assert type(model(images).grad_fn).__name__ == "AddmmBackward0"
    assert torch.equal(model(images), nn.Sequential(*model)(images))


def test_torch_func_and_autocast_run_the_layers_one_by_one() -> None:
    model, images = MLP((1, 4, 4), 3, hidden=(7,)), torch.randn(2, 1, 4, 4)
    assert torch.equal(torch.vmap(model)(images[:, None])[:, 0], model(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.bfloat16
    with torch.no_grad():
        assert model(images).grad_fn is None
