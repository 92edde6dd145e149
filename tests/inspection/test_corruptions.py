"""Each way to corrupt does what its strength says; scipy is the oracle where it has the same definition."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from firstlight.inspection.corruptions import KINDS, TERMS, Originals, corrupt, gaussian_blur, grey

IMAGES = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def done(images: Tensor, **recipe: float) -> Tensor:
    return corrupt(Originals.of(images, seed=0), recipe)


def dot(row: int, column: int, size: int = 21) -> Tensor:
    """An image with a bright square of 3 x 3 about a place."""
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row - 1 : row + 2, column - 1 : column + 2] = 1
    return image


def middle(image: Tensor) -> tuple[float, float]:
    """Row and column of the middle of what is bright."""
    found = ndimage.center_of_mass(image[0, 0].numpy())
    return float(found[0]), float(found[1])


def test_there_are_eight_kinds() -> None:
    """B13: rotation, shear, blur, noise, contrast, inversion, scale, translation."""
    assert sorted(KINDS) == ["blur", "contrast", "inversion", "noise", "rotation", "scale", "shear", "translation"]


def test_neutral_strengths_change_nothing() -> None:
    assert torch.equal(done(IMAGES, **{name: term.neutral for name, term in TERMS.items()}), IMAGES)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    torch.testing.assert_close(done(IMAGES, rotation=90.0), IMAGES.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_whole_pixels_are_moved_exactly() -> None:
    moved = done(IMAGES, move_x=2.0, move_y=-1.0)
    torch.testing.assert_close(moved[:, :, :-1, 2:], IMAGES[:, :, 1:, :-2], atol=1e-5, rtol=0)
    assert moved[:, :, :, :2].abs().max() < 1e-5, "black comes in"


@pytest.mark.parametrize(
    ("recipe", "row", "column"),
    [
        ({"shear_x": 0.5}, 4, 13),  # 6 above the middle: 3 to the right
        ({"shear_y": 0.5}, 5, 16),  # 6 right of the middle: 3 upwards
        ({"scale": 1.5}, 4, 10),
        ({"rotation": 90.0}, 10, 4),
    ],
)
def test_a_dot_goes_where_the_strength_says(recipe: dict[str, float], row: int, column: int) -> None:
    start = dot(4, 10) if "shear_x" in recipe or "rotation" in recipe else dot(8, 16) if "shear_y" in recipe else dot(6, 10)
    assert middle(done(start, **recipe)) == pytest.approx((row, column), abs=0.05)


def test_an_enlarged_square_has_the_area_of_its_factor() -> None:
    square = torch.zeros(1, 1, 40, 40)
    square[:, :, 15:25, 15:25] = 1
    assert float(done(square, scale=1.5).sum()) == pytest.approx(225, rel=0.01)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.3])
def test_blur_agrees_with_scipy(sigma: float) -> None:
    theirs = ndimage.gaussian_filter(IMAGES.double().numpy(), (0, 0, sigma, sigma), mode="mirror")
    np.testing.assert_allclose(gaussian_blur(IMAGES, sigma).numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize(("order", "bilinear", "within"), [(1, 1.0, 1e-4), (3, 0.0, 0.02)])
def test_warps_agree_with_scipy(order: int, bilinear: float, within: float) -> None:
    """Bilinear to rounding; cubic splines but for the straight lines between their places."""
    smooth = gaussian_blur(torch.nn.functional.pad(IMAGES, (6, 6, 6, 6)), 1.0)
    angle, middle = np.deg2rad(17.0), np.full(2, (24 - 1) / 2)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    theirs = [ndimage.affine_transform(image.double().numpy(), back, offset=middle - back @ middle, order=order) for image in smooth[:, 0]]
    np.testing.assert_allclose(done(smooth, rotation=17.0, bilinear=bilinear)[:, 0].numpy(), np.stack(theirs).clip(0, 1), atol=within)


def test_values_are_scaled_about_their_pivot() -> None:
    mean = IMAGES.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(done(IMAGES, contrast=0.5), mean + (IMAGES - mean) / 2)
    torch.testing.assert_close(done(IMAGES, contrast_middle=0.5), 0.25 + IMAGES / 2)
    torch.testing.assert_close(done(IMAGES, contrast_black=0.5), IMAGES / 2)
    torch.testing.assert_close(done(IMAGES, inversion=1.0), 1 - IMAGES)


def test_noise_has_its_deviation_and_is_cut_at_black_and_white() -> None:
    flat = torch.full((50, 1, 20, 20), 0.5)
    assert float(done(flat, noise=0.1).std()) == pytest.approx(0.1, rel=0.02)
    noisy = done(flat, noise=2.0)
    assert (float(noisy.min()), float(noisy.max())) == (0, 1)


def test_each_image_gets_a_strength_of_its_own() -> None:
    originals = Originals.of(IMAGES, seed=3)
    each = corrupt(originals, {"rotation_drawn": 40.0})
    for row in range(len(IMAGES)):
        alone = Originals.of(IMAGES[row : row + 1], seed=0)
        degrees = 40 * float(originals.signs[row, 0])
        torch.testing.assert_close(each[row : row + 1], corrupt(alone, {"rotation": degrees}), atol=1e-5, rtol=0)


def test_colours_are_weighted_as_the_eye_does() -> None:
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    torch.testing.assert_close(grey(red), torch.full((1, 2, 2), 0.299))


def test_an_unknown_term_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="no such term"):
        done(IMAGES, wobble=1.0)
