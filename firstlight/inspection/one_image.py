"""The one image that a command is asked about: a number in the split, or a file."""

from dataclasses import replace
from pathlib import Path

import torch

from firstlight.data.build import load_images
from firstlight.errors import ConfigError
from firstlight.inspection.opened import Opened


def one_image(opened: Opened, image: str) -> tuple[Opened, str]:
    """Return the inspection of a single image, whose files bear its name, and what to call it in a sentence.

    image: a place in the split, from 0, or the path of an image file, which has no label.
    Raises ConfigError for a place that is none, DataError for a file that is no image of the network's shape.
    """
    if image.isdigit() and not Path(image).is_file():
        index, num = int(image), len(opened.dataset)
        if index >= num:
            raise ConfigError(f"--image {index} is not in {opened.split}, whose images are 0 to {num - 1}; name one of those")
        chosen = opened.dataset.subset(torch.tensor([index]))
        return replace(opened, what=f"{opened.what}-image{index}", dataset=chosen), f"{opened.split} image {index}"
    if not Path(image).exists():
        raise ConfigError(f"--image {image} is neither a number nor a file; name an image of {opened.split} by its place, or an image file")
    if Path(image).is_dir():
        raise ConfigError(f"--image {image} is a folder; name one image in it")
    chosen, (path,) = load_images([Path(image)], opened.dataset.image_shape, opened.dataset.class_names)
    return replace(opened, what=f"{opened.what}-{path.stem}", split="file", dataset=chosen), path.name
