import pytest
import torch
from torch.nn import functional as F

from firstlight.data.pixel_store import PixelStore
from firstlight.errors import ConfigError

NUM = 1100  # more than one chunk
INDICES = torch.tensor([3, 1099, 0, 3])
TOP, LEFT = torch.tensor([0, 2, 4, 1]), torch.tensor([4, 2, 0, 3])
MIRRORED = torch.tensor([True, False, True, False])


def some_images(channels: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    pixels = torch.randint(0, 256, (NUM, channels, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return pixels if dtype == torch.uint8 else pixels.to(dtype) / 256


def expected(images: torch.Tensor) -> torch.Tensor:
    padded = F.pad(images[INDICES].float(), (2, 2, 2, 2), mode="reflect").to(images.dtype)
    windows = [image[:, top : top + 6, left : left + 7] for image, top, left in zip(padded, TOP, LEFT, strict=True)]
    return torch.stack([window.flip(2) if mirror else window for window, mirror in zip(windows, MIRRORED, strict=True)])


@pytest.mark.parametrize("by", ["gather", "gather_by_torch"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_gather_equals_pad_slice_and_flip(by, dtype, channels_last, channels):
    images = some_images(channels, dtype)
    store = PixelStore(images, crop=2, channels_last=channels_last)
    rows = getattr(store, by)(INDICES, (TOP, LEFT), MIRRORED)
    assert torch.equal(store.as_images(rows), expected(images))


@pytest.mark.parametrize("by", ["gather", "gather_by_torch"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gather_without_crop(by, channels_last):
    images = some_images(3)
    store = PixelStore(images, channels_last=channels_last)
    assert torch.equal(store.as_images(getattr(store, by)(INDICES, None, None)), images[INDICES])
    mirrored = store.as_images(getattr(store, by)(INDICES, None, torch.ones(4, dtype=torch.bool)))
    assert torch.equal(mirrored, images[INDICES].flip(3))


@pytest.mark.parametrize("channels_last", [False, True])
def test_gather_leaves_the_stored_pixels_alone(channels_last):
    images = some_images(3)
    store = PixelStore(images, crop=2, channels_last=channels_last)
    before = store.pixels.clone()
    store.gather(INDICES, (TOP, LEFT), MIRRORED).zero_()
    assert torch.equal(store.pixels, before)


def test_pixels_are_shared_where_nothing_asks_for_a_copy():
    """A12: at most one copy of the data in memory."""
    images = some_images(1)
    assert PixelStore(images, channels_last=True).pixels.data_ptr() == images.data_ptr()
    assert PixelStore(some_images(3), crop=2).pixels.untyped_storage().nbytes() == NUM * 3 * 10 * 11


def test_spread_gives_each_pixel_the_value_of_its_channel():
    for channels_last in (False, True):
        store = PixelStore(some_images(3), channels_last=channels_last)
        rows = torch.zeros(2, *store.row_shape) + store.spread(torch.tensor([1.0, 2.0, 3.0]))
        assert store.as_images(rows).amin((0, 2, 3)).tolist() == store.as_images(rows).amax((0, 2, 3)).tolist() == [1, 2, 3]


def test_a_border_as_wide_as_the_image_is_refused():
    with pytest.raises(ConfigError, match=r"augment\.crop: 6 pixels on images 6 pixels high or wide; use 5 or less"):
        PixelStore(some_images(1), crop=6)
