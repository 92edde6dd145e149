"""The penultimate layer: for every shipped network, the last layer makes the logits of the features."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from firstlight.config.schema import Kind
from firstlight.data.dataset import Dataset
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import logits_of
from firstlight.errors import ConfigError
from firstlight.inspection.penultimate import feature_batches, features_of, find_last_layer
from firstlight.models.build import MODELS, build_model
from firstlight.models.scratch import ScratchMLP

FLOAT32 = Arithmetic("cpu")


def loader_of(shape: tuple[int, int, int], num: int = 11, batch_size: int = 4) -> Loader:
    """Noise images in batches, the last one odd."""
    images = torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = Dataset(images, torch.zeros(num, dtype=torch.int64), ("a", "b", "c"), "noise")
    return Loader(dataset, batch_size=batch_size, seed=0, normalize=Normalize.measure(images))


def last_matrix(model: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the last linear layer, found by its place in the source of each network."""
    if isinstance(model, ScratchMLP):
        return model.layers[-1]
    layer = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    return layer.weight, layer.bias


@pytest.mark.parametrize(
    ("name", "whiten"), [(name, 0) for name in sorted(MODELS)] + [(name, 2) for name in ("airbench", "lenet", "mlp", "resnet18")]
)
def test_the_last_layer_makes_the_logits_of_the_features(name: str, whiten: int) -> None:
    """C9: the features are those of the penultimate layer, to 1e-5 of the largest logit."""
    side = 66 if name == "alexnet" else 20
    options = {"width": 8} if name == "resnet18" else {}
    model = build_model(Kind(name, options), (3, side, side), 3, seed=0, whiten=whiten)
    for parameter in model.parameters():
        parameter.data += 0.01  # a network of zeros would agree with anything
    loader = loader_of((3, side, side))
    features = features_of(model, loader, FLOAT32)
    logits = torch.cat([logits for logits, _ in logits_of(model, loader, FLOAT32)])
    weight, bias = last_matrix(model)
    assert features.dtype == torch.float32 and features.shape == (11, weight.shape[1])
    made = nn.functional.linear(features, weight, bias)
    assert (made - logits).abs().max() <= 1e-5 * logits.abs().max()
    assert not features.requires_grad


def test_features_come_with_logits_and_batch() -> None:
    model = build_model(Kind("mlp", {}), (1, 8, 8), 3, seed=0)
    loader = loader_of((1, 8, 8))
    found = list(feature_batches(model, loader, FLOAT32))
    assert [len(features) for features, _, _ in found] == [4, 4, 3]
    assert torch.cat([batch.indices for _, _, batch in found]).tolist() == list(range(11))
    torch.testing.assert_close(torch.cat([logits for _, logits, _ in found]), torch.cat([x for x, _ in logits_of(model, loader, FLOAT32)]))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_features_in_bfloat16_are_those_of_float32_roughly() -> None:
    model = build_model(Kind("small_cnn", {}), (1, 8, 8), 3, seed=0)
    exact = features_of(model, loader_of((1, 8, 8)), FLOAT32)
    rough = features_of(model, loader_of((1, 8, 8)), Arithmetic("cpu", "bfloat16"))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


class Scaled(nn.Module):
    """A network that divides its logits by a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Tanh()), nn.Linear(7, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images)) / 2.5
        return logits


class Mixed(Scaled):
    """A network whose logits depend on more than its last layer is given."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images)) + images.flatten(1)[:, :3]  # type: ignore[no-any-return]


ONE_BY_ONE = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
WHOLE = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 6), nn.Flatten())
MAXIMA = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten())
OUTPUT_NORM: Any = build_model(Kind("mlp", {"output_norm": True}), (1, 8, 8), 3, seed=0)
OUTPUT_NORM.output_norm.running_mean.copy_(torch.tensor([1.0, -2.0, 3.0]))
OUTPUT_NORM.output_norm.running_var.copy_(torch.tensor([4.0, 0.5, 9.0]))


@pytest.mark.parametrize(
    ("model", "name", "size"),
    [(ONE_BY_ONE, "2", 5), (WHOLE, "2", 5 * 6 * 6), (Scaled(), "head", 7), (OUTPUT_NORM, "linear3", 64)],
    ids=["1x1 convolution", "convolution over all", "scaled", "normalised logits"],
)
def test_other_ends_of_a_network(model: nn.Module, name: str, size: int) -> None:
    loader = loader_of((1, 8, 8))
    assert find_last_layer(model, next(loader.batches(0)).images).name == name
    assert features_of(model, loader, FLOAT32).shape == (11, size)


@pytest.mark.parametrize("model", [Mixed(), MAXIMA, nn.Flatten()], ids=["mixed", "maxima", "no weights"])
def test_logits_that_are_not_made_of_the_features_are_refused(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="; "):
        features_of(model, loader_of((1, 8, 8)), FLOAT32)
