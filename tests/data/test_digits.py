"""The digits that come with the package."""

from pathlib import Path

import torch

from firstlight.data.digits import load_digits
from firstlight.files import sha256


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits as load_oracle

    oracle = load_oracle()
    images = torch.cat([load_digits(part, Path()).images for part in ("train", "test")])
    wanted = (torch.from_numpy(oracle.images) * 255 / 16).round().to(torch.uint8)
    assert sorted(map(bytes, images.flatten(1).numpy())) == sorted(map(bytes, wanted.flatten(1).numpy()))


def test_digits_parts_are_fixed_and_stratified():
    train, test = load_digits("train", Path()), load_digits("test", Path())
    assert (len(train), len(test)) == (1438, 359)
    assert train.image_shape == (1, 8, 8)
    assert test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert sha256(test.images.numpy().tobytes())[:16] == "60753db109a4acff"  # published numbers rest on this part
    train_bytes = {bytes(image) for image in train.images.flatten(1).numpy()}
    assert not any(bytes(image) in train_bytes for image in test.images.flatten(1).numpy())
