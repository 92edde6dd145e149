"""The one image that a command is asked about: a number in the split, or a file."""

from dataclasses import replace
from pathlib import Path

import torch

from firstlight.data.build import load_images
from firstlight.errors import ConfigError
from firstlight.inspection.opened import Opened


def place_named(image: str, split: str, num: int) -> int | None:
    """Return the place that --image names among the `num` images of a split, None where it names a file.

    Raises ConfigError for a place that is none.
    """
    if not image.isdecimal() or Path(image).is_file():
        return None
    if int(image) >= num:
        raise ConfigError(f"--image {image} is not in {split}, whose images are 0 to {num - 1}; name one of those, or a file")
    return int(image)


def one_image(opened: Opened, image: str) -> tuple[Opened, str]:
    """Return the inspection of a single image, whose files bear its name, and what to call it in a sentence.

    image: a place in the split, from 0, or the path of an image file, which has no label.
    Raises ConfigError for a place that is none, DataError for a file that is no image of the network's shape.
    """
    index = place_named(image, opened.split, len(opened.dataset))
    if index is not None:
        chosen = opened.dataset.subset(torch.tensor([index]))
        return replace(opened, what=f"{opened.what}-image{index}", dataset=chosen), f"{opened.split} image {index}"
    if not Path(image).exists():
        raise ConfigError(f"--image {image} is neither a number nor a file; name an image of {opened.split} by its place, or an image file")
    if Path(image).is_dir():
        raise ConfigError(f"--image {image} is a folder; name one image in it")
    chosen, (path,) = load_images([Path(image)], opened.dataset.image_shape, opened.dataset.class_names)
    return replace(opened, what=f"{opened.what}-{path.stem}", split="file", dataset=chosen), path.name
