"""Passes with dropout on: what they change, what they leave alone, and that remembering the layers ahead changes no bit."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from firstlight.config.schema import Kind
from firstlight.data.dataset import Dataset
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.device import Arithmetic
from firstlight.engine.seeding import seed_batch
from firstlight.inspection.dropout_passes import dropout_layers, dropout_on, layers_ahead, passes_of
from firstlight.models.build import build_model

CPU = Arithmetic("cpu")
SHAPE = (1, 8, 8)
NETWORKS = {
    "small_cnn": Kind("small_cnn", {"widths": (4, 8), "dropout": 0.5}),
    "mlp": Kind("mlp", {"hidden": (16, 12), "dropout": 0.3, "norm": "before"}),
}


@pytest.fixture(scope="module")
def loader() -> Loader:
    pixels = torch.randint(256, (25, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = Dataset(pixels, torch.arange(25) % 10, tuple("0123456789"), "noise")
    return Loader(dataset, batch_size=10, seed=0, normalize=Normalize.identity(1))


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def model(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    made = build_model(request.param, SHAPE, 10, seed=3)
    assert isinstance(made, nn.Module)
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1, generator=drawn)  # as after a training
    yield made.eval()


def passes(model: nn.Module, loader: Loader, *, num: int = 3, seed: int = 0) -> torch.Tensor:
    """Return the logits of each pass, [T, N, K]."""
    found: list[list[torch.Tensor]] = [[] for _ in range(num)]
    for _, number, logits in passes_of(model, loader, CPU, num_passes=num, seed=seed):
        found[number].append(logits)
    return torch.stack([torch.cat(one) for one in found])


def test_passes_differ_and_come_again(model: nn.Module, loader: Loader) -> None:
    """B9: passes differ; the same seed gives the same bits, and more passes leave the first as they were."""
    first = passes(model, loader)
    assert all(not torch.equal(first[one], first[other]) for one, other in ((0, 1), (1, 2), (0, 2)))
    assert torch.equal(first, passes(model, loader, num=5)[:3])
    assert not torch.equal(first, passes(model, loader, seed=1))


def test_remembering_what_lies_ahead_of_the_dropout_changes_no_bit(model: nn.Module, loader: Loader) -> None:
    """A plain loop over whole forward passes is the reference."""
    wanted = torch.zeros(3, 25, 10)
    with torch.inference_mode(), dropout_on(model):
        for place, batch in enumerate(loader.batches(0)):
            for number in range(3):
                seed_batch(0, number, place)
                wanted[number, batch.indices] = model(batch.images)
    assert torch.equal(passes(model, loader), wanted)


def test_nothing_but_the_dropout_is_in_train_mode(model: nn.Module, loader: Loader) -> None:
    """B9: batch norm stays in eval mode: its statistics do not change; modes, layers and the global generator are as before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: layer.training for name, layer in model.named_modules()}
    generator = torch.get_rng_state()
    passes(model, loader)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: layer.training for name, layer in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_image_gets_the_same_answer_whatever_is_beside_it_in_the_batch(model: nn.Module, loader: Loader) -> None:
    """Batch norm uses its running statistics: with the dropout's masks alike, an image alone answers as in a batch."""
    for layer in dropout_layers(model):
        layer.p = 1e-12
    batch = next(loader.batches(0))
    whole = next(passes_of(model, loader, CPU, num_passes=1, seed=0))[2]
    with torch.inference_mode():
        alone = model(batch.images[:1])
    torch.testing.assert_close(whole[:1], alone, rtol=1e-5, atol=1e-5)


def test_the_layers_ahead_are_the_outermost_that_are_done_before_the_first_dropout() -> None:
    images = torch.zeros(2, *SHAPE)
    assert layers_ahead(build_model(NETWORKS["small_cnn"], SHAPE, 10, seed=0), images) == ["features", "pool"]  # type: ignore[arg-type]
    assert layers_ahead(build_model(NETWORKS["mlp"], SHAPE, 10, seed=0), images) == ["flatten", "linear1", "norm1", "activation1"]  # type: ignore[arg-type]


def test_a_layer_that_is_used_twice_is_not_remembered(loader: Loader) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten, self.mix, self.dropout, self.head = nn.Flatten(), nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.dropout(self.mix(self.mix(self.flatten(images)))))  # type: ignore[no-any-return]

    assert layers_ahead(Twice(), torch.zeros(1, *SHAPE)) == ["flatten"]


@pytest.mark.parametrize("kind", [Kind("mlp", {}), Kind("small_cnn", {"dropout": 0.0}), Kind("lenet", {}), Kind("scratch_mlp", {})])
def test_a_network_without_dropout_has_no_such_layers(kind: Kind) -> None:
    assert dropout_layers(build_model(kind, (1, 28, 28), 10, seed=0)) == []
