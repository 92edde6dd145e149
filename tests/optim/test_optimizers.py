"""The optimizers against the rules of their papers, written out here."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from firstlight.config.schema import Kind
from firstlight.errors import ConfigError
from firstlight.models.build import build_model
from firstlight.optim.build import OPTIMIZERS, build_optimizer

State = dict[str, Any]


def _sgd(w: Tensor, g: Tensor, s: State) -> Tensor:
    g = g + 0.1 * w
    s["m"] = g if "m" not in s else 0.9 * s["m"] + g
    return w - 0.05 * (g + 0.9 * s["m"])


def _rmsprop(w: Tensor, g: Tensor, s: State) -> Tensor:
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    return w - 0.05 * g / (s["v"].sqrt() + 1e-8)


def _adam(w: Tensor, g: Tensor, s: State) -> Tensor:
    s["t"] = s.get("t", 0) + 1
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    return w - 0.05 * (s["m"] / (1 - 0.8 ** s["t"])) / ((s["v"] / (1 - 0.99 ** s["t"])).sqrt() + 1e-8)


def _adamw(w: Tensor, g: Tensor, s: State) -> Tensor:
    return _adam(w, g, s) - 0.05 * 0.1 * w


def _muon_on_vectors(w: Tensor, g: Tensor, s: State) -> Tensor:
    s["t"] = s.get("t", 0) + 1
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
    step = (s["m"] / (1 - 0.9 ** s["t"])) / ((s["v"] / (1 - 0.999 ** s["t"])).sqrt() + 1e-8)
    return w - 0.05 * 0.5 * (step + 0.1 * w)


RULES: list[tuple[str, State, Callable[[Tensor, Tensor, State], Tensor]]] = [
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, _sgd),
    ("rmsprop", {"decay": 0.9}, _rmsprop),
    ("adam", {"beta1": 0.8, "beta2": 0.99}, _adam),
    ("adamw", {"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1}, _adamw),
    ("muon", {"other_lr_scale": 0.5, "weight_decay": 0.1}, _muon_on_vectors),
]


class Weights:
    """Tensors to train and nothing else."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = [tensor.clone().requires_grad_() for tensor in tensors]

    def parameters(self) -> Any:
        return iter(self.tensors)


@pytest.mark.parametrize(("name", "options", "rule"), RULES, ids=[name for name, _, _ in RULES])
def test_five_steps_follow_the_rule_of_the_paper(name: str, options: State, rule: Callable[[Tensor, Tensor, State], Tensor]) -> None:
    """D19."""
    torch.manual_seed(0)
    weights = Weights(torch.randn(67))
    optimizer = build_optimizer(Kind(name, {"lr": 0.05, **options}), weights)
    expected, state = weights.tensors[0].detach().double(), {}
    for _ in range(5):
        gradient = torch.randn(67)
        weights.tensors[0].grad = gradient.clone()
        optimizer.step()
        expected = rule(expected, gradient.double(), state)
    assert torch.allclose(weights.tensors[0].double(), expected, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_of_every_kind_of_model(name: str) -> None:
    images, labels = torch.randn(24, 1, 8, 8), torch.arange(24) % 3
    for model_name in ("scratch_mlp", "mlp", "small_cnn"):
        model = build_model(Kind(model_name), (1, 8, 8), 3, seed=0)
        optimizer = build_optimizer(Kind(name), model)
        losses = []
        for _ in range(15):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("stored", [torch.contiguous_format, torch.channels_last])
def test_restored_state_steps_to_the_same_bits_in_any_memory_order(name: str, stored: torch.memory_format) -> None:
    """F3: files hold contiguous state, and torch's fused kernels would pair it with channels_last weights element by element."""
    torch.manual_seed(0)
    start = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    gradients = torch.randn(4, 8, 4, 3, 3)
    ended = []
    for restore in (False, True):
        weights = Weights(start)
        optimizer = build_optimizer(Kind(name), weights)
        for index, gradient in enumerate(gradients):
            if restore and index == 2:
                saved = optimizer.state_dict()
                for entries in saved["state"].values():
                    entries.update({k: v.contiguous(memory_format=stored) for k, v in entries.items() if v is not None and v.ndim == 4})
                optimizer = build_optimizer(Kind(name), weights)
                optimizer.load_state_dict(saved)
            weights.tensors[0].grad = gradient.contiguous(memory_format=torch.channels_last)
            optimizer.step()
        ended.append(weights.tensors[0].detach())
    assert torch.equal(*ended)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_tensors_alone(name: str) -> None:
    """So that safetensors holds all of it."""
    weights = Weights(torch.randn(3, 2), torch.randn(3))
    optimizer = build_optimizer(Kind(name), weights)
    for tensor in weights.tensors:
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    values = [value for entries in optimizer.state.values() for value in entries.values()]
    assert all(value is None or isinstance(value, Tensor) for value in values)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ConfigError, match=r"optim.nesterov: true needs momentum above 0"):
        build_optimizer(Kind("sgd", {"nesterov": True}), Weights(torch.zeros(1)))


def test_unknown_optimizer_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"optim: unknown name 'adamm'; did you mean 'adam'\?"):
        build_optimizer(Kind("adamm"), Weights(torch.zeros(1)))


@pytest.mark.parametrize(
    ("name", "options", "plain"),
    [
        ("sgd", {"lr": 0.1}, lambda params: torch.optim.SGD(params, lr=0.1, fused=True)),
        (
            "sgd",
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, fused=True),
        ),
        ("adam", {"lr": 0.1, "weight_decay": 0.1}, lambda params: torch.optim.Adam(params, lr=0.1, weight_decay=0.1, fused=True)),
        ("adamw", {"lr": 0.1}, lambda params: torch.optim.AdamW(params, lr=0.1, fused=True)),
    ],
)
def test_the_short_way_to_the_kernel_gives_the_bits_of_torch(name: str, options: State, plain: Callable[[list[Tensor]], Any]) -> None:
    """Two steps for all tensors, one where a tensor has no gradient, one at another lr; a closure is torch's own way."""
    torch.manual_seed(0)
    start, gradients = [torch.randn(5, 3), torch.randn(7)], torch.randn(5, 22)
    ended = []
    for ours in (True, False):
        weights = Weights(*start)
        params = weights.tensors
        optimizer = build_optimizer(Kind(name, options), weights) if ours else plain(params)
        for number, gradient in enumerate(gradients):
            params[0].grad, params[1].grad = gradient[:15].view(5, 3).clone(), None if number == 2 else gradient[15:].clone()
            optimizer.param_groups[0]["lr"] = 0.1 if number < 3 else 0.02
            optimizer.step(None if number < 4 else lambda: torch.tensor(2.0))
        ended.append(params)
    assert all(torch.equal(our, their) for our, their in zip(*ended, strict=True))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_without_any_gradient_changes_nothing(name: str) -> None:
    weights = Weights(torch.ones(3))
    optimizer = build_optimizer(Kind(name), weights)
    optimizer.step()
    weights.tensors[0].grad = torch.ones(3)
    optimizer.step()
    after = weights.tensors[0].detach().clone()
    weights.tensors[0].grad = None
    optimizer.step()
    assert torch.equal(weights.tensors[0], after) and not torch.equal(after, torch.ones(3))
