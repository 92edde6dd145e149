"""Bytes of an image file to pixels: fully decoded, upright, 8 bits, grey or RGB."""

import io
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from firstlight.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MAX_PIXELS = 64_000_000
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
NUM_THREADS = 2
_FILTERS = threading.Lock()
"""Held while the filters of warnings are changed, which all threads share."""
CHUNK = 256
SMALL_BYTES = 10_000
"""Below this mean size threads lose: 10,000 JPEGs of 900 bytes take 1.5 s in one thread and 2.7 s in two."""


def decode_image(content: bytes, *, grey: bool = False, image_size: int | None = None) -> NDArray[np.uint8]:
    """Return the pixels, uint8 [H, W] if `grey`, else [H, W, 3].

    The first frame, turned upright by its EXIF tag; palettes and CMYK become RGB, 16 bits become 8, transparency is dropped.
    image_size: cut out the middle square and resize it to so many pixels.
    Raises DataError that says what is wrong with the image.
    """
    try:
        with _open(content) as image:
            upright = _to_8_bits(ImageOps.exif_transpose(image)).convert("L" if grey else "RGB")
            if image_size is not None:
                upright = _middle_square(upright).resize((image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(upright)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged bytes
        raise DataError(f"damaged image ({' '.join(str(error).split()) or type(error).__name__})") from error


def is_grey(content: bytes) -> bool:
    """Tell from the header alone whether the image has no colour. Raises DataError where there is no such header."""
    with _open(content) as image:
        return image.mode in GREY_MODES


def decode_images(
    items: Iterable[tuple[str, bytes]], *, grey: bool, image_size: int | None
) -> Iterator[tuple[str, NDArray[np.uint8] | DataError]]:
    """Yield (name, pixels) in the order of `items`, or the error in place of the pixels; large images decode in two threads."""

    def decode(item: tuple[str, bytes]) -> tuple[str, NDArray[np.uint8] | DataError]:
        try:
            return item[0], decode_image(item[1], grey=grey, image_size=image_size)
        except DataError as error:
            return item[0], error

    remaining = iter(items)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        while chunk := list(islice(remaining, CHUNK)):  # bounds how much is read ahead
            is_small = sum(len(content) for _, content in chunk) < SMALL_BYTES * len(chunk)
            yield from map(decode, chunk) if is_small else pool.map(decode, chunk)


def _open(content: bytes) -> Image.Image:
    try:
        with _FILTERS, warnings.catch_warnings():  # the limit here is lower than the one that Pillow warns of
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels ({error})") from error
    except Exception as error:
        raise DataError(f"no image in one of the formats {', '.join(FORMATS)}") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are decoded")
    return image


def _middle_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise DataError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 instead of scaling
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image
