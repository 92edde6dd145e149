import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
