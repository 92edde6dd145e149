"""A15: the data as the network sees them, on sheets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstlight.config.schema import Kind
from firstlight.data.augment import Augment
from firstlight.data.augment_reference import reference_augment
from firstlight.data.build import load_part
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.normalize import Normalize
from firstlight.engine.sources import load_config
from firstlight.inspection.pixels import ImageFigures, histogram, survey
from firstlight.inspection.sheets import EPOCHS, chosen_images, draw_as_seen, shown_classes, to_pixels


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_part(Kind("digits"), "train", Path()).subset(torch.arange(300))


def cells(figure: Any, size: int = 8) -> list[list[np.ndarray]]:
    """The images of a sheet by row and column; a gap of one pixel parts them."""
    canvas = figure.axes[0].images[0].get_array()
    step = size + 1
    return [[canvas[y : y + size, x : x + size] for x in range(0, canvas.shape[1], step)] for y in range(0, canvas.shape[0], step)]


def test_what_the_network_sees_is_what_the_training_loader_gives(digits: Dataset) -> None:
    """The images of epoch 1, 2, ... agree with the plain reference, normalisation undone."""
    config = load_config("quickstart", "augment.rotation=25", "augment.crop=1")
    normalize = Normalize.measure(digits.images)
    figure, values = draw_as_seen(digits, config, normalize, seed=5, title="seen")
    images, chosen = cells(figure), chosen_images(digits, 1).tolist()
    assert [len(row) for row in images] == [1 + EPOCHS] * len(chosen)
    augment = Augment(crop=1, rotation=25.0)
    for row, index in enumerate(chosen):
        np.testing.assert_array_equal(images[row][0], digits.images[index, 0].numpy())
        for epoch in range(EPOCHS):
            ours = reference_augment(digits.images[index], index, epoch=epoch, seed=5, augment=augment, normalize=normalize)
            np.testing.assert_allclose(images[row][1 + epoch].astype(int), to_pixels(ours, normalize).astype(int), atol=1)
    assert values["least"] == pytest.approx(-normalize.mean[0] / normalize.std[0], abs=1e-5), "black, as the network gets it"


def test_without_augmentation_the_images_come_back_as_they_are(digits: Dataset) -> None:
    config, normalize = load_config("quickstart"), Normalize.measure(digits.images)
    figure, values = draw_as_seen(digits, config, normalize, seed=0, title="seen")
    chosen = chosen_images(digits)
    for image, index in zip([image for row in cells(figure) for image in row], chosen.tolist(), strict=True):
        np.testing.assert_array_equal(image, digits.images[index, 0].numpy())
    seen = normalize.apply(digits.images[chosen])
    assert values == pytest.approx(
        {"least": float(seen.min()), "greatest": float(seen.max()), "mean": float(seen.mean()), "std": float(seen.std(correction=0))},
        abs=1e-5,
    )
    assert "no augmentation is set" in figure.get_suptitle().replace("\n", " ")


def test_of_many_classes_evenly_spread_ones_are_shown() -> None:
    dataset = make_dataset(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), torch.arange(100), [str(number) for number in range(100)], "many")
    assert shown_classes(dataset) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]


def test_figures_of_pixels_agree_with_numpy(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken in small blocks, and of all at once."""
    monkeypatch.setattr("firstlight.inspection.pixels._BLOCK_VALUES", 1000)
    pixels = digits.images.double().numpy() / 255
    surveyed = survey(digits, [3, 7])
    found = surveyed.images
    np.testing.assert_allclose(found.mean.numpy(), pixels.mean((1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.greatest.numpy(), pixels.max((1, 2, 3)), atol=1e-6)
    mean, std = surveyed.class_means, surveyed.class_stds
    np.testing.assert_allclose([surveyed.mean.item(), surveyed.std.item()], [pixels.mean(), pixels.std()], atol=1e-12)
    own = pixels[digits.labels.numpy() == 7]  # type: ignore[union-attr]
    np.testing.assert_allclose(mean[1].numpy(), own.mean(0), atol=1e-6)
    np.testing.assert_allclose(std[1].numpy(), own.std(0), atol=1e-6)
    theirs = np.histogram(pixels, bins=10, range=(0, 1))[0] / pixels.size
    np.testing.assert_allclose(histogram(digits.images, 10).numpy(), theirs, atol=1e-3)
    assert float(histogram(digits.images).sum()) == pytest.approx(1)


def figures(images: torch.Tensor) -> ImageFigures:
    return survey(make_dataset(images, torch.zeros(len(images), dtype=torch.int64), ["all"], "made"), [0]).images


def test_images_of_one_colour_are_told() -> None:
    images = torch.tensor([0, 5, 5, 9], dtype=torch.uint8).view(4, 1, 1, 1).repeat(1, 1, 3, 3)
    images[2, 0, 1, 1] = 6
    assert figures(images).constant.tolist() == [True, True, False, True]
    red = torch.tensor([255, 0, 10], dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, 3, 3)
    red[1, 2, 0, 0] = 11
    found = figures(red)
    assert found.constant.tolist() == [True, False] and found.least.tolist() == [0, 0] and found.greatest.tolist() == [1, 1]
