"""FLOPs of each architecture, against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from firstlight.config.schema import Kind
from firstlight.models.build import MODELS, build_model
from firstlight.models.flops import flops_per_image
from firstlight.models.linear import Linear

IMAGE_SHAPE = (3, 70, 70)
"""AlexNet takes no smaller images."""


def test_a_multiply_add_counts_two() -> None:
    assert flops_per_image(Linear((1, 8, 8), 10), (1, 8, 8)) == 2 * 64 * 10


@pytest.mark.parametrize("name", MODELS)
def test_as_torch_counts(name: str) -> None:
    """D1: the library is the oracle; an architecture that computes by a function which is not counted fails here."""
    model = build_model(Kind(name), IMAGE_SHAPE, 10, seed=0)
    if isinstance(model, torch.nn.Module):
        model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *IMAGE_SHAPE))
    assert flops_per_image(model, IMAGE_SHAPE) == counter.get_total_flops() > 0


def test_nothing_but_the_count_is_left() -> None:
    """The mode of the network and the random numbers are as before."""
    model = build_model(Kind("lenet"), (1, 32, 32), 10, seed=0).train()
    before = torch.get_rng_state()
    flops_per_image(model, (1, 32, 32))
    assert model.training and torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
