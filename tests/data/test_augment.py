import pytest
import torch

from firstlight.data.augment import Augment, Draws, cut_out, jitter_colors, rotate
from firstlight.data.augment_reference import reference_augment
from firstlight.data.normalize import Normalize

MANY = torch.arange(20_000)


def some_images(num: int, *shape: int) -> torch.Tensor:
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(0))


def reference_batch(images: torch.Tensor, augment: Augment) -> torch.Tensor:
    plain = Normalize.identity(images.shape[1])
    return torch.stack(
        [reference_augment(image, index, epoch=2, seed=5, augment=augment, normalize=plain) for index, image in enumerate(images)]
    )


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 6), (2, 5, 12)])
def test_rotate_equals_the_plain_reference(shape):
    images, augment = some_images(8, *shape), Augment(rotation=45)
    turned = rotate(images, Draws(augment, 5, 2).angles(torch.arange(8)))
    torch.testing.assert_close(turned, reference_batch(images, augment), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_color_jitter_equals_the_plain_reference(channels):
    images, augment = some_images(8, channels, 6, 6), Augment(color_jitter=0.8)
    jittered = jitter_colors(images, Draws(augment, 5, 2).color_factors(torch.arange(8)), 1.0)
    torch.testing.assert_close(jittered, reference_batch(images, augment), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_cutout_equals_the_plain_reference(size):
    images, augment = some_images(20, 3, 8, 10) + 1, Augment(cutout=size)
    expected = reference_batch(images, augment)
    assert torch.equal(cut_out(images, *Draws(augment, 5, 2).cutout_centres(torch.arange(20), 8, 10), size), expected)


def test_a_quarter_turn_is_counter_clockwise():
    image = some_images(1, 3, 7, 7)
    torch.testing.assert_close(rotate(image, torch.tensor([90.0])), image.rot90(1, (2, 3)), rtol=0, atol=1e-5)


def test_a_turn_by_0_changes_nothing():
    images = some_images(4, 3, 8, 8)
    torch.testing.assert_close(rotate(images, torch.zeros(4)), images, rtol=0, atol=1e-6)


def test_brightness_contrast_and_saturation_each_do_their_part():
    image = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 4)

    def jitter(*factors: float) -> torch.Tensor:
        return jitter_colors(image, torch.tensor(factors, dtype=torch.float32)[:, None], 1.0)[0, :, 0, 0]

    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    torch.testing.assert_close(jitter(1, 1, 1), torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(jitter(2, 1, 1), torch.tensor([0.4, 0.8, 1.0]))
    torch.testing.assert_close(jitter(1, 0, 1), torch.full((3,), grey))
    torch.testing.assert_close(jitter(1, 1, 0), torch.full((3,), grey))


def test_color_factors_and_angles_fill_their_ranges():
    draws = Draws(Augment(rotation=15, color_jitter=0.4), seed=0, epoch=0)
    factors, angles = draws.color_factors(MANY), draws.angles(MANY)
    assert 0.6 <= factors.min() < 0.601 and 1.399 < factors.max() <= 1.4
    assert -15 <= angles.min() < -14.9 and 14.9 < angles.max() <= 15
    assert torch.corrcoef(torch.cat((factors, angles[None]))).fill_diagonal_(0).abs().max() < 0.04


def test_corners_cover_every_window_and_half_the_images_are_mirrored():
    draws = Draws(Augment(flip=True, crop=2), seed=0, epoch=0)
    top, left = draws.corners(MANY)
    counts = torch.bincount(top * 5 + left, minlength=25)
    assert len(counts) == 25 and counts.min() > 650 and counts.max() < 950
    assert 0.48 < draws.mirrored(MANY).float().mean() < 0.52


def test_alternating_flip_turns_every_image_over_from_epoch_to_epoch():
    """F9 (Jordan 2024): one draw an image; in any two epochs in a row each image is seen from both sides."""
    mirrored = [Draws(Augment(flip="alternating"), seed=3, epoch=epoch).mirrored(MANY) for epoch in range(4)]
    assert torch.equal(mirrored[0], Draws(Augment(flip=True), seed=3, epoch=0).mirrored(MANY))
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2]) and torch.equal(mirrored[1], mirrored[3])


def test_default_augment_changes_nothing():
    image = some_images(1, 3, 4, 4)[0]
    assert torch.equal(reference_augment(image, 0, epoch=0, seed=0, augment=Augment(), normalize=Normalize((0.0,) * 3, (1.0,) * 3)), image)
