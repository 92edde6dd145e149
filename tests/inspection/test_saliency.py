"""Saliency maps against gradients that are known otherwise."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from firstlight.config.schema import Kind
from firstlight.data.dataset import Dataset
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.inspection import saliency
from firstlight.inspection.saliency import gradient, saliency_of
from firstlight.models.build import build_model

SHAPE = (3, 8, 8)
IMAGES = torch.randint(0, 256, (10, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loader_of(images: Tensor) -> Loader:
    dataset = Dataset(images, None, ("a", "b", "c"), "noise")
    return Loader(dataset, batch_size=4, seed=0, normalize=Normalize.measure(IMAGES))


def network(name: str, **options: Any) -> Any:
    model = build_model(Kind(name, options), SHAPE, 3, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("name", ["linear", "scratch_linear"])
@pytest.mark.parametrize("smooth", [False, True])
def test_of_a_linear_network_it_is_the_weights(name: str, smooth: bool) -> None:
    """C9: to 1e-6; noise changes nothing where the gradient is the same everywhere."""
    model = network(name)
    maps = saliency_of(model, loader_of(IMAGES), smooth=smooth)
    weight = next(iter(model.parameters()))
    batch = torch.cat([model(batch.images) for batch in loader_of(IMAGES).batches(0)])
    expected = weight[batch.argmax(dim=1)].view(-1, *SHAPE).abs().amax(dim=1)
    torch.testing.assert_close(maps, expected.detach(), atol=1e-6, rtol=0)
    assert maps.shape == (10, 8, 8) and maps.std() > 0


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_it_is_the_largest_gradient_over_the_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simonyan et al. 2014, image by image by torch.func, in eval mode whatever mode the network was in."""
    monkeypatch.setattr(saliency, "AT_ONCE", 3)
    model = network(name)
    model.train()
    maps = saliency_of(model, loader_of(IMAGES), smooth=False)
    assert model.training
    model.eval()
    for batch in loader_of(IMAGES).batches(0):
        for image, index in zip(batch.images, batch.indices, strict=True):
            predicted = int(model(image[None]).argmax())
            slope = jacrev(lambda values, predicted=predicted: model(values[None])[0, predicted])(image)
            torch.testing.assert_close(maps[index], slope.abs().amax(dim=0).detach(), atol=1e-6, rtol=1e-5)


def test_the_smooth_map_is_the_mean_over_noisy_copies() -> None:
    """Smilkov et al. 2017: gradients are averaged before the magnitude is taken; the seed makes it the same each time."""
    model = network("mlp").eval()
    (batch,) = loader_of(IMAGES[:4]).batches(0)
    predicted = model(batch.images).argmax(dim=1)
    generator = torch.Generator().manual_seed(0)
    span = batch.images.flatten(1).amax(1) - batch.images.flatten(1).amin(1)
    copies = [batch.images + 0.15 * span[:, None, None, None] * torch.randn(batch.images.shape, generator=generator) for _ in range(25)]
    expected = torch.stack([gradient(model, copy, predicted) for copy in copies]).mean(dim=0).abs().amax(dim=1)
    found = saliency_of(model, loader_of(IMAGES[:4]))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(found, saliency_of(model, loader_of(IMAGES[:4])))
    assert not torch.allclose(found, saliency_of(model, loader_of(IMAGES[:4]), smooth=False), rtol=0.01)


def test_no_gradient_is_left_in_the_network() -> None:
    model = network("mlp")
    saliency_of(model, loader_of(IMAGES))
    assert all(parameter.grad is None for parameter in model.parameters())
