"""Evaluation: exact on an odd last batch, in eval mode, without gradients, and it changes nothing (B8)."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import firstlight as fl
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import evaluate_model, predict_probabilities
from firstlight.models.mlp import MLP
from firstlight.models.small_cnn import SmallCNN

CPU = Arithmetic("cpu")


def loader(batch_size: int) -> Loader:
    return Loader(fl.load_data("digits", "test"), batch_size=batch_size, seed=0, normalize=Normalize((0.3,), (0.4,)))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallCNN((1, 8, 8), 10, widths=(4, 8), dropout=0.5)


def test_figures_are_those_of_the_whole_set_at_once(model: nn.Module) -> None:
    """B8: 359 images in batches of 100 leave an odd last batch of 59."""
    result = evaluate_model(model, loader(100), 10, CPU)
    images, labels, _ = next(loader(359).batches(0))
    logits = model.eval()(images).detach()
    assert result.num_images == 359
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert result.loss == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)
    assert result.top_k_accuracy == pytest.approx(float((logits.topk(5).indices == labels[:, None]).any(1).float().mean()), abs=1e-6)


def test_batch_norm_is_in_eval_mode_and_the_mode_comes_back(model: nn.Module) -> None:
    """B8: neither statistics nor mode nor gradients change, and dropout draws nothing."""
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (evaluate_model(model, loader(64), 10, CPU) for _ in range(2))
    assert first == again
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_probabilities_sum_to_one_in_the_order_of_the_data(model: nn.Module) -> None:
    probabilities = predict_probabilities(model, loader(100), CPU)
    assert probabilities.shape == (359, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(359))
    torch.testing.assert_close(probabilities, predict_probabilities(model, loader(7), CPU), rtol=1e-4, atol=1e-6)


def test_the_same_loop_serves_labelled_and_unlabelled_images() -> None:
    """D11: predict and evaluate agree on every image."""
    model = MLP((1, 8, 8), 10)
    labels = fl.load_data("digits", "test").labels
    assert labels is not None
    right = (predict_probabilities(model, loader(50), CPU).argmax(1) == labels).float().mean()
    assert evaluate_model(model, loader(50), 10, CPU).accuracy == pytest.approx(float(right), abs=1e-6)
