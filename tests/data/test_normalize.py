import json
from dataclasses import asdict

import pytest
import torch

from firstlight.data.normalize import Normalize, channel_statistics


def some_pixels(num: int = 2500, channels: int = 3) -> torch.Tensor:
    """More than two chunks of random images, the channels of different brightness."""
    pixels = torch.randint(0, 256, (num, channels, 4, 5), generator=torch.Generator().manual_seed(0))
    return (pixels // torch.arange(1, channels + 1)[:, None, None]).to(torch.uint8)


def test_statistics_equal_those_of_the_whole_in_float64():
    images = some_pixels()
    mean, std = channel_statistics(images)
    whole = images.double() / 255
    torch.testing.assert_close(mean, whole.mean((0, 2, 3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(std, whole.std((0, 2, 3), correction=0), rtol=0, atol=1e-12)


def test_statistics_of_uint8_and_float_agree():
    """A12: uint8 and float input give the same result."""
    images = some_pixels()
    for ours, theirs in zip(channel_statistics(images), channel_statistics(images / 255), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_statistics_leave_float64_images_as_they_are():
    images = some_pixels().double() / 255
    before = images.clone()
    channel_statistics(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_channel_is_divided_by_1(level):
    images = torch.full((2000, 1, 3, 3), level, dtype=torch.uint8)
    normalize = Normalize.measure(images)
    assert normalize.std == (1.0,)
    torch.testing.assert_close(normalize.apply(images), torch.zeros(2000, 1, 3, 3), rtol=0, atol=1e-6)


def test_apply_gives_mean_0_and_deviation_1():
    images = some_pixels()
    seen = Normalize.measure(images).apply(images)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-5)


def test_apply_is_pixel_minus_mean_over_deviation():
    images, normalize = some_pixels(2), Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    expected = (images / 255 - torch.tensor(normalize.mean)[:, None, None]) / torch.tensor(normalize.std)[:, None, None]
    torch.testing.assert_close(normalize.apply(images), expected, rtol=0, atol=1e-6)


def test_identity_is_pixels_between_0_and_1():
    """A1: pixels in [0, 1]."""
    images = some_pixels(10)
    torch.testing.assert_close(Normalize.identity(3).apply(images), images / 255, rtol=0, atol=1e-7)
    assert torch.equal(Normalize.identity(3).apply(images / 255), images / 255)


def test_json_and_back():
    normalize = Normalize.measure(some_pixels())
    assert Normalize(**json.loads(json.dumps(asdict(normalize)))) == normalize
