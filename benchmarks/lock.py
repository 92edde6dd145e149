"""How many digits the lock reads right wherever they stand, of any size and stroke: with and without centring.

`python -m benchmarks.lock`, with FIRSTLIGHT_DATA set: all 10,000 test images of MNIST, each 60 to 240 pixels large, its strokes half to
twice as wide, pasted at a random place of a pad of 280 pixels in black and white. The network is the one that the package ships. Only
accuracies are compared, so a busy machine does no harm; milliseconds are of one digit on one thread.
"""

import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import firstlight as fl
from benchmarks.record import write_result
from firstlight.dashboard.strokes import PAD, as_mnist, stroke_width
from firstlight.export.reader import SHIPPED_READER, Reader

LEAST = 0.97


def main() -> None:
    """Read them all, print, and write results/lock.json."""
    digits = fl.load_data("mnist", "test")
    assert digits.labels is not None
    images, labels = digits.images[:, 0].numpy(), digits.labels.numpy()
    random = np.random.default_rng(0)
    pads = [pasted(image, random) for image in images]
    began = time.perf_counter()
    centred = np.stack([as_mnist(pad) for pad in pads])
    milliseconds = 1000 * (time.perf_counter() - began) / len(pads)
    scaled = np.stack([as_mnist(pad, centre=False) for pad in pads])
    reader = Reader(SHIPPED_READER)

    def accuracy(seen: NDArray[np.uint8]) -> float:
        return float((reader.probabilities(seen[:, None]).argmax(1) == labels).mean())

    note = "random place, 60 to 240 of 280 pixels, strokes half to twice as wide"
    rows = [
        {"what": "read right, as the lock centres them", "value": accuracy(centred), "unit": "", "n": len(labels), "least": LEAST,
         "note": note},
        {"what": "the same pads, only scaled", "value": accuracy(scaled), "unit": "", "n": len(labels), "note": "without centring"},
        {"what": "MNIST's own images", "value": accuracy(images), "unit": "", "n": len(labels), "note": "the network alone"},
        {"what": "centring of a pad", "value": milliseconds, "unit": "ms", "n": len(labels), "note": "one thread"},
    ]  # fmt: skip
    for row in rows:
        print(f"{row['value']:.4g} {row['unit']} {row['what']}")
    print(write_result("lock", "The lock: digits drawn anywhere on a pad", "python -m benchmarks.lock", rows))


def pasted(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a pad, uint8 [280, 280], black and white, with a digit [28, 28] at a random place, size and width of strokes."""
    side = int(random.integers(60, 241))
    digit = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    factor = 2 ** random.uniform(-1, 1)
    radius = (factor - 1) / 2 * stroke_width(image / 255) / 28 * side
    left = round(abs(radius))
    while left > 0:
        step = min(left, 3)
        digit = digit.filter((ImageFilter.MaxFilter if radius > 0 else ImageFilter.MinFilter)(2 * step + 1))
        left -= step
    pad = np.zeros((PAD, PAD), np.uint8)
    row, column = random.integers(0, PAD - side + 1, 2)
    pad[row : row + side, column : column + side] = (np.asarray(digit) > 127) * np.uint8(255)
    return pad


if __name__ == "__main__":
    main()
