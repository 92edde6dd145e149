"""The named initialisations against torch.nn.init, and what they must not do to one another."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from firstlight.models.init import INITS, init_layer

ORACLES: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": nn.init.zeros_,
    "uniform": lambda w: nn.init.uniform_(w, -0.01, 0.01),
    "normal_small": lambda w: nn.init.normal_(w, 0, 0.01),
    "xavier_uniform": nn.init.xavier_uniform_,
    "kaiming_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "kaiming_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "torch_default": lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
}


@pytest.mark.parametrize("shape", [(64, 30), (16, 3, 5, 5)])
@pytest.mark.parametrize("name", INITS)
def test_init_draws_what_torch_draws(name: str, shape: tuple[int, ...]) -> None:
    """C3 E3."""
    ours, theirs = torch.empty(shape), torch.empty(shape)
    torch.manual_seed(1)
    INITS[name](ours)
    torch.manual_seed(1)
    ORACLES[name](theirs)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", INITS)
def test_bias_is_zero_but_for_torchs_own_default(name: str) -> None:
    weight, bias = torch.empty(50, 4, requires_grad=True), torch.full((50,), 9.0)
    init_layer(weight, bias, name)
    if name == "torch_default":
        assert 0.3 < bias.abs().max() <= 0.5
    else:
        assert (bias == 0).all()


def test_scale_multiplies_weights_and_leaves_biases() -> None:
    """C5: init and its scale are two settings; a scale of 1 changes no bit."""
    found = {}
    for scale in (None, 1.0, 4.0):
        torch.manual_seed(3)
        weight, bias = torch.empty(50, 4), torch.empty(50)
        init_layer(weight, bias, "torch_default", **({} if scale is None else {"scale": scale}))
        found[scale] = weight, bias
    assert torch.equal(found[1.0][0], found[None][0])
    assert torch.equal(found[4.0][0], 4 * found[None][0])
    assert torch.equal(found[4.0][1], found[None][1])


def test_torch_default_is_nn_linear_bit_for_bit() -> None:
    torch.manual_seed(2)
    theirs = nn.Linear(7, 5)
    torch.manual_seed(2)
    weight, bias = torch.empty(5, 7), torch.empty(5)
    init_layer(weight, bias, "torch_default")
    assert torch.equal(weight, theirs.weight)
    assert torch.equal(bias, theirs.bias)
