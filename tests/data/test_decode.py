"""Odd images: modes, turned photographs, too many pixels, damage (fault 31)."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from firstlight.data.decode import decode_image, decode_images, is_grey
from firstlight.errors import DataError


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (2, 1), (255, 0, 0))


@pytest.mark.parametrize(
    "content",
    [
        encoded(RED),
        encoded(RED.convert("P", palette=Image.Palette.ADAPTIVE)),
        encoded(RED.convert("P", palette=Image.Palette.ADAPTIVE), transparency=bytes([0, 128])),
        encoded(RED.convert("RGBA")),
        encoded(RED, "BMP"),
        encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (2, 1))]),
        encoded(RED, "WEBP", lossless=True),
        encoded(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "TIFF"),
    ],
    ids=["RGB", "palette", "transparent palette", "alpha", "BMP", "animated GIF", "WEBP", "CMYK"],
)
def test_odd_modes_become_rgb(content: bytes):
    assert decode_image(content).tolist() == [[[255, 0, 0]] * 2]
    assert not is_grey(content)


def test_sixteen_bits_are_scaled_and_not_clipped():
    wide = Image.fromarray(np.array([[0, 256, 65535]], np.uint16))
    for kind in ("PNG", "TIFF"):
        assert decode_image(encoded(wide, kind), grey=True).tolist() == [[0, 1, 255]]
        assert is_grey(encoded(wide, kind))
    assert decode_image(b"P5 2 1 65535\n\x01\x00\xff\xff", grey=True).tolist() == [[1, 255]]


def test_grey_modes():
    assert decode_image(encoded(Image.new("1", (2, 1), 1)), grey=True).tolist() == [[255, 255]]
    assert decode_image(encoded(Image.new("LA", (1, 1), (9, 0))), grey=True).tolist() == [[9]]
    assert decode_image(encoded(Image.new("L", (1, 1), 9))).tolist() == [[[9, 9, 9]]]


def test_photographs_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn a quarter to the right
    picture = Image.fromarray(np.array([[10, 200]], np.uint8)).resize((16, 8), Image.Resampling.NEAREST)
    upright = decode_image(encoded(picture, "JPEG", exif=exif, quality=100), grey=True)
    assert upright.shape == (16, 8)
    assert upright[0, 0] < 20 < 190 < upright[-1, 0]


def test_a_line_of_pixels_is_an_image():
    """Fault 31: 1 x 100,000 pixels are few; a square is cut out of them where a size is asked for."""
    line = encoded(Image.new("L", (1, 100_000), 7))
    assert decode_image(line, grey=True).shape == (100_000, 1)
    assert (decode_image(line, grey=True, image_size=8) == 7).all()


def test_resizing_cuts_out_the_middle():
    picture = Image.new("L", (30, 10), 0)
    picture.paste(100, (10, 0, 20, 10))
    assert (decode_image(encoded(picture), grey=True, image_size=5) == 100).all()


def bomb(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 9) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb(0, 0), "no image"),
        (bomb(0, 5), "no image"),
        (b"P5 0 0 255\n", "no image"),
        (b"P5 1 100000 255\n", "damaged image .*truncated"),
        (encoded(Image.new("L", (1, 1)), "BMP")[:18] + bytes(8) + encoded(Image.new("L", (1, 1)), "BMP")[26:], "no image"),
        (bomb(8001, 8000), "8001 x 8000 pixels; at most 64,000,000"),
        (bomb(10_000, 10_000), "10000 x 10000 pixels; at most 64,000,000"),
        (bomb(60_000, 60_000), "too many pixels"),
        (bomb(4, 4), "damaged image"),
        (bomb(4, 4)[:-8], "no image"),
        (b"", "no image in one of the formats JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image in one of the formats"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point pixels"),
        (encoded(Image.new("RGB", (64, 64), 5), "BMP")[:-50], "damaged image .*truncated"),
    ],
)
def test_refused(content: bytes, message: str):
    """Fault 31: nothing is allocated for what a header only promises."""
    with pytest.raises(DataError, match=message):
        decode_image(content)


@pytest.mark.parametrize("size", [4, 80])
def test_many_come_in_order_with_errors_in_place(size: int):
    """Small images decode in one thread, large ones in two."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    items = [(str(number), encoded(Image.fromarray(noise), compress_level=0)) for number in range(300)]
    items[150] = ("150", b"broken")
    results = list(decode_images(items, grey=False, image_size=None))
    assert [name for name, _ in results] == [str(number) for number in range(300)]
    assert [number for number, (_, pixels) in enumerate(results) if isinstance(pixels, DataError)] == [150]
    assert (results[299][1] == noise).all()


def test_what_pillow_warns_of_is_one_error_and_no_warning():
    """Fault 31: a hundred million pixels are refused by our limit, and nothing else is printed."""
    with warnings.catch_warnings(record=True) as seen, pytest.raises(DataError):
        warnings.simplefilter("always")
        decode_image(bomb(10_000, 10_000))
    assert seen == []
