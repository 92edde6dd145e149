"""The loss and its gradient in one go, against autograd over torch's own cross-entropy."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from firstlight.engine.loss import cross_entropy_with_gradient


@pytest.mark.parametrize("scale", [1.0, 0.375])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.3])
def test_loss_and_gradient_have_the_bits_of_autograd(label_smoothing: float, dtype: torch.dtype, scale: float) -> None:
    """Issue 4, line 5: the cheap way changes no number; logits far from 0 are among them."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(33, 10, generator=generator) * torch.logspace(-2, 2, 33)[:, None]).to(dtype).requires_grad_()
    labels = torch.randint(0, 10, (33,), generator=generator)
    expected = cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    (expected * scale).backward()
    with torch.no_grad():
        loss, gradient = cross_entropy_with_gradient(logits, labels, scale=torch.tensor(scale), label_smoothing=label_smoothing)
    assert torch.equal(loss, expected.detach())
    assert logits.grad is not None and gradient.dtype == dtype
    if label_smoothing == 0:
        assert torch.equal(gradient, logits.grad)
    else:  # two sums in another order
        torch.testing.assert_close(gradient, logits.grad, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-8)
