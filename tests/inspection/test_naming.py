"""B13: the corruption between two sets is named with its strength. scipy corrupts, so that our own warps are not their own judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from firstlight.config.schema import Kind
from firstlight.data.build import load_part
from firstlight.errors import DataError
from firstlight.inspection.naming import Naming, name_corruption
from firstlight.inspection.sample import draw_sample


@pytest.fixture(scope="module")
def mnist(shared_data: Path) -> tuple[Tensor, Tensor]:
    """MNIST at 14 x 14, the means of squares of four pixels, uint8."""
    data = load_part(Kind("mnist"), "train", shared_data)
    assert data.labels is not None
    small = torch.nn.functional.avg_pool2d(data.images[:1600].float(), 2).round().to(torch.uint8)
    return small, data.labels[:1600]


def warped(image: Any, matrix: Any) -> Any:
    """Take each pixel from `matrix` times its (down, right) place from the middle."""
    matrix, centre = np.asarray(matrix, float), (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, matrix, offset=centre - matrix @ centre, order=3)


ANGLE = np.deg2rad(20)
TURN = [[np.cos(ANGLE), np.sin(ANGLE)], [-np.sin(ANGLE), np.cos(ANGLE)]]
CHANGES: dict[str, tuple[Callable[[Any], Any], dict[str, tuple[float, float]]]] = {
    "rotation": (lambda image: warped(image, TURN), {"rotation": (20, 4)}),
    "shear": (lambda image: warped(image, [[1, 0], [0.4, 1]]), {"shear_x": (0.4, 0.08)}),
    "scale": (lambda image: warped(image, np.eye(2) / 0.75), {"scale": (0.75, 0.04)}),
    "translation": (lambda image: ndimage.shift(image, (-1, 2), order=3), {"move_x": (2, 0.2), "move_y": (-1, 0.2)}),
    "blur": (lambda image: ndimage.gaussian_filter(image, 0.8), {"blur": (0.8, 0.05)}),
    "contrast": (lambda image: image.mean() + 0.5 * (image - image.mean()), {"contrast": (0.5, 0.03)}),
    "inversion": (lambda image: 1 - image, {"inversion": (1, 0)}),
    "noise": (lambda image: image + np.random.default_rng(int(image.sum() * 1e6)).normal(0, 0.15, image.shape), {"noise": (0.15, 0.01)}),
}


def changed(images: Tensor, change: Callable[[Any], Any]) -> Tensor:
    done = np.stack([change(image) for image in images[:, 0].double().numpy() / 255])
    return torch.from_numpy((done.clip(0, 1) * 255).round().astype(np.uint8))[:, None]


def named_between(images: Tensor, labels: Tensor, change: Callable[[Any], Any]) -> Naming:
    """What is said of the first half of the images and the changed second half."""
    half = len(images) // 2
    return name_corruption(draw_sample(images[:half], labels[:half], changed(images[half:], change), labels[half:]))


QUICK = ("rotation", "scale", "blur", "noise")
"""Named in CI, 7 s each; the others are named by `make soak`, and all of them at three strengths by benchmarks/corruption_naming.py."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.soak) for kind in CHANGES])
def test_a_kind_is_named_with_its_strength(kind: str, mnist: tuple[Tensor, Tensor]) -> None:
    change, strengths = CHANGES[kind]
    found = named_between(*mnist, change)
    assert [named.kind for named in found.named] == [kind]
    assert found.named[0].recipe == {term: pytest.approx(value, abs=within) for term, (value, within) in strengths.items()}
    assert found.named[0].sure >= 0.9 and found.left < 0.25


def test_nothing_is_named_where_nothing_was_done(mnist: tuple[Tensor, Tensor]) -> None:
    found = named_between(*mnist, lambda image: image)
    assert found.named == [] and found.recipe == {}


def test_two_kinds_the_stronger_first(mnist: tuple[Tensor, Tensor]) -> None:
    noise = CHANGES["noise"][0]
    found = named_between(*mnist, lambda image: noise(ndimage.shift(image, (0, 2), order=3).clip(0, 1)))
    assert [named.kind for named in found.named] == ["noise", "translation"]
    assert found.recipe["noise"] == pytest.approx(0.15, abs=0.01)
    assert found.recipe["move_x"] == pytest.approx(2, abs=0.3)


def test_the_same_images_are_noticed_and_a_turn_is_found(mnist: tuple[Tensor, Tensor]) -> None:
    """Pairs: nothing is compared with other draws of the first set. (A turn by 4 degrees is taken for blur or shear.)"""
    images, labels = mnist[0][:500], mnist[1][:500]
    angle = np.deg2rad(10)
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    sample = draw_sample(images, labels, changed(images, lambda image: warped(image, turn)), labels)
    assert sample.other is None
    found = name_corruption(sample)
    assert found.named[0].kind == "rotation"
    assert found.recipe["rotation"] == pytest.approx(10, abs=0.6)


def test_the_same_answer_twice(mnist: tuple[Tensor, Tensor]) -> None:
    images, labels = mnist[0][:800], mnist[1][:800]
    one, other = (named_between(images, labels, CHANGES["contrast"][0]) for _ in range(2))
    assert one == other


# Samples


def tiny(num: int, num_classes: int = 2, shape: tuple[int, ...] = (1, 6, 6), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, *shape), generator=generator, dtype=torch.uint8), torch.arange(num) % num_classes


def test_a_sample_has_as_many_of_each_class_and_no_image_twice() -> None:
    images, labels = tiny(200, 4)
    others, other_labels = tiny(90, 3, seed=1)
    sample = draw_sample(images, labels, others, other_labels)
    assert sample.num_classes == 3 and sample.other is not None
    assert torch.bincount(sample.labels).tolist() == [25, 25, 25], "half of the first set's 50 stays for the draw beside it"
    both = torch.cat((sample.first, sample.other)).flatten(1)
    assert len(both.unique(dim=0)) == 150
    assert float(sample.first.max()) <= 1


def test_images_of_other_classes_and_a_class_with_few_images_are_left_out() -> None:
    images, labels = tiny(300, 3)
    labels = torch.where(labels == 2, torch.where(torch.arange(300) < 60, 2, -1), labels)
    sample = draw_sample(images, labels, *tiny(300, 2, seed=1))
    assert torch.bincount(sample.labels).tolist() == [50, 50]
    labels[:] = -1
    with pytest.raises(DataError, match="0 images are too few"):
        draw_sample(images, labels, *tiny(300, 2, seed=1))


def test_pairs_keep_their_partners() -> None:
    images, labels = tiny(100, shape=(1, 16, 16))
    sample = draw_sample(images, labels, 255 - images, labels)
    assert sample.other is None
    torch.testing.assert_close(sample.second, 1 - sample.first)
    assert draw_sample(images, labels, tiny(100, shape=(1, 16, 16), seed=5)[0], labels).other is not None


def test_classes_that_are_too_small_count_as_one() -> None:
    images, labels = tiny(60, 20)
    assert draw_sample(images, labels, *tiny(60, 20, seed=1)).num_classes == 0


def test_large_images_are_shrunk() -> None:
    sample = draw_sample(*tiny(40, shape=(3, 130, 96)), *tiny(40, shape=(3, 130, 96), seed=1))
    assert sample.shrunk == 3 and sample.first.shape[1:] == (3, 43, 32)


@pytest.mark.parametrize(
    ("num", "shape", "says"), [(40, (1, 8, 8), "1 x 6 x 6 in the one set and 1 x 8 x 8"), (12, (1, 6, 6), "12 images are too few")]
)
def test_sets_that_cannot_be_compared(num: int, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        draw_sample(*tiny(40), *tiny(num, shape=shape))
