import pytest
import torch

from firstlight.optim.muon import OTHER_MOMENTUM, Muon, newton_schulz


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (32, 32), (1, 9), (9, 1)])
def test_newton_schulz_drives_singular_values_towards_1_and_keeps_the_directions(shape: tuple[int, int]) -> None:
    """Jordan et al. 2024: U S V^T becomes U S' V^T with S' in about 0.7..1.2, whatever the scale."""
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.1, 1, min(shape))
    out = newton_schulz(1000 * u @ torch.diag(values) @ vh)
    inner = u.T @ out @ vh.T
    assert inner.diagonal().min() > 0.65
    assert inner.diagonal().max() < 1.25
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-3)


def test_zero_gradient_stays_zero() -> None:
    assert torch.equal(newton_schulz(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(20, 48), (48, 20)])
def test_matrices_go_where_torchs_muon_takes_them(shape: tuple[int, int], nesterov: bool) -> None:
    """torch.optim.Muon iterates in bfloat16, hence the tolerance: 3 % of the distance that was moved."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(5, *shape)
    moved = []
    for make in (Muon, torch.optim.Muon):
        weight = start.clone().requires_grad_()
        optimizer = make([weight], lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        moved.append(weight.detach() - start)
    assert (moved[0] - moved[1]).norm() < 0.03 * moved[1].norm()


def test_filters_are_flattened_to_rows() -> None:
    """A filter bank moves as the matrix [out, in*k*k] would."""
    torch.manual_seed(0)
    start, gradient = torch.randn(6, 3, 3, 3), torch.randn(6, 3, 3, 3)
    ended = []
    for shape in ((6, 3, 3, 3), (6, 27)):
        weight = start.reshape(shape).clone().requires_grad_()
        weight.grad = gradient.reshape(shape).clone()
        Muon([weight]).step()
        ended.append(weight.detach().reshape(6, 27))
    assert torch.equal(*ended)


def test_channels_last_filters_move_to_the_same_place() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(6, 3, 3, 3), torch.randn(6, 3, 3, 3)
    ended = []
    for order in (torch.contiguous_format, torch.channels_last):
        weight = start.clone(memory_format=order).requires_grad_()
        weight.grad = gradient.clone(memory_format=order)
        Muon([weight]).step()
        ended.append(weight.detach())
    assert ended[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(*ended, atol=1e-6)


def test_normalized_matrices_have_norm_sqrt_rows_before_the_step() -> None:
    """F9, as airbench94_muon does: a gradient of 0 leaves the matrix at that norm, whatever its scale was."""
    for scale in (0.1, 10.0):
        weight = (scale * torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))).requires_grad_()
        weight.grad = torch.zeros_like(weight)
        Muon([weight], normalize=True).step()
        assert weight.detach().norm() == pytest.approx(6**0.5)


def test_filters_alone_leaves_matrices_to_adamw() -> None:
    start, gradient = torch.ones(3, 4), torch.full((3, 4), 0.5)
    ended = []
    for matrices in ("all", "filters"):
        weight = start.clone().requires_grad_()
        weight.grad = gradient.clone()
        Muon([weight], lr=0.1, other_lr_scale=0.5, matrices=matrices).step()
        ended.append(start - weight.detach())
    torch.testing.assert_close(ended[1], torch.full((3, 4), 0.05))  # AdamW's first step is its lr
    assert not torch.allclose(*ended)


def test_the_others_can_be_left_to_sgd() -> None:
    """Biases and the head move as with torch's SGD with Nesterov momentum, each at a learning rate of its own."""
    torch.manual_seed(0)
    start = [torch.randn(4, 3, 3, 3), torch.randn(5, 4), torch.randn(4)]
    ours, theirs = ([values.clone().requires_grad_() for values in start] for _ in range(2))
    scales = {"others": "sgd", "other_lr_scale": 0.5, "bias_lr_scale": 10.0}
    muon = Muon(ours, lr=0.1, matrices="filters", weight_decay=0.2, **scales)
    settings = {"momentum": OTHER_MOMENTUM, "nesterov": True}
    plain = torch.optim.SGD([{"params": [theirs[1]], "lr": 0.05}, {"params": [theirs[2]], "lr": 0.5}], lr=1.0, **settings)
    for _ in range(4):
        gradients = [torch.randn_like(values) for values in start]
        for values, gradient in zip([*ours, *theirs], [*gradients, *gradients], strict=True):
            values.grad = gradient.clone()
        with torch.no_grad():
            theirs[1].mul_(1 - 0.05 * 0.2)  # decoupled from the gradient, as Muon's own
            theirs[2].mul_(1 - 0.5 * 0.2)
        muon.step()
        plain.step()
    torch.testing.assert_close(ours[1:], theirs[1:])
    assert not torch.equal(ours[0], start[0])
