"""The figures by which two sets of images are compared."""

import numpy as np
import pytest
import torch

from firstlight.inspection.features import GROUPS, NUM_QUANTILES, Profile, distance, features, moments, radial_power, weights

IMAGES = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(1))
CLASSES = [torch.arange(0, 40, 2), torch.arange(1, 40, 2)]


def test_an_image_has_so_many_features() -> None:
    assert features(IMAGES).shape == (40, sum(GROUPS.values()))
    assert features(torch.zeros(2, 3, 5, 9)).isfinite().all(), "of one colour, and of any shape"


def test_moments_of_a_bar_that_leans() -> None:
    """Middle, width and height of the foreground; a bar that leans to the right has a positive slant."""
    bar = torch.zeros(1, 21, 21)
    for row in range(5, 16):
        bar[0, row, 13 - (row - 10) // 2] = 1  # the upper end is at the right
    rows, columns = np.nonzero(bar[0].numpy())
    x, y, wide, tall, slant = moments(bar)[0].tolist()
    assert (x, y) == pytest.approx((columns.mean() - 10, rows.mean() - 10), abs=1e-3)
    assert (wide, tall) == pytest.approx((columns.std(), rows.std()), abs=1e-2)
    assert slant == pytest.approx(-np.mean((columns - columns.mean()) * (rows - rows.mean())) / rows.var(), abs=1e-2)
    assert slant > 0 > moments(bar.flip(2))[0, 4]


def test_the_background_may_be_white() -> None:
    """The foreground is what differs from the border."""
    images = torch.zeros(1, 15, 15)
    images[0, 3:8, 4:9] = 0.8
    torch.testing.assert_close(moments(1 - images), moments(images), atol=1e-4, rtol=0)


def test_radial_power_agrees_with_a_plain_loop() -> None:
    pixels = IMAGES[0, 0].double().numpy()
    power = np.abs(np.fft.rfft2(pixels - pixels.mean(), norm="ortho")) ** 2
    rings: dict[int, list[float]] = {}
    for row, down in enumerate(np.fft.fftfreq(16) * 16):
        for column, right in enumerate(np.fft.rfftfreq(16) * 16):
            rings.setdefault(round(float(np.hypot(down, right))), []).append(power[row, column])
    theirs = [np.mean(rings[radius]) for radius in range(9)]
    np.testing.assert_allclose(radial_power(IMAGES[:1, 0])[0].numpy(), theirs, atol=1e-5)


def test_quantiles_agree_with_numpy() -> None:
    found = features(IMAGES)
    profile = Profile.of(found, CLASSES)
    at = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    for label, places in enumerate(CLASSES):
        np.testing.assert_allclose(profile.quantiles[label].numpy(), np.quantile(found[places].numpy(), at, axis=0).T, atol=1e-5)
    np.testing.assert_allclose(profile.variances.numpy(), np.mean([found[places].numpy().var(0) for places in CLASSES], 0), rtol=1e-4)


def test_a_set_is_nowhere_from_itself_and_farther_from_what_is_shifted_more() -> None:
    profile = Profile.of(features(IMAGES), CLASSES)
    near, far = (Profile.of(features((IMAGES + by).clamp(0, 1)), CLASSES) for by in (0.05, 0.2))
    weight = weights(profile, profile)
    assert distance(profile, profile, weight) == 0
    assert 0 < distance(profile, near, weight) < distance(profile, far, weight)
