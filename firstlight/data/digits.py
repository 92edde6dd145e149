"""Handwritten digits of 8x8 pixels, which come with the package.

Source: Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI Machine Learning Repository,
doi:10.24432/C50P49, licence CC BY 4.0: the 1,797 images that scikit-learn's load_digits holds, their values 0..16
scaled to 0..255.
"""

from pathlib import Path

import numpy as np
import torch

from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.splits import carve

TEST_FRACTION = 0.2
TEST_SEED = 20240


def load_digits(part: str, data_dir: Path) -> Dataset:
    """Return one part of the 1,797 digits that come with the package: four fifths to train on, a fixed stratified fifth to test."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    train, test = carve(labels, TEST_FRACTION, TEST_SEED)
    chosen = test if part == "test" else train
    name = "test" if part == "test" else "training"
    return make_dataset(
        images[chosen], labels[chosen], [str(digit) for digit in range(10)], f"UCI handwritten digits ({len(chosen):,} {name} images)"
    )
