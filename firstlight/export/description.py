"""What an exported file says of itself, whatever its format: how pixels become its input, and what its outputs mean.

It travels inside the file as one JSON text under the name KEY. Needs no torch.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firstlight.errors import CheckpointError

KEY = "firstlight"
"""Name of the text in safetensors' metadata and in ONNX's."""
EXTRA_FILE = "firstlight.json"
"""Name of the text inside a .pt2 or TorchScript archive."""
FORMAT = 1
INPUT, OUTPUT = "images", "logits"
"""What the input and the output of a graph are called."""
MAX_SIDE = 2**14
MAX_CLASSES = 10**6
MIDDLE_SQUARE = "cut out the middle square, then resize it, bilinear with antialiasing (Pillow's BILINEAR)"
NO_RESIZE = "none; images must have this size"


@dataclass(frozen=True, kw_only=True)
class Description:
    """class_names: in the order of the logits. image_shape: channels, height, width.

    pixels: `uint8`, 0 to 255, or `float32`, 0 to 1: what the graph takes. mean, std: of pixels in [0, 1]; a graph has them inside, a file
    of weights alone has not. about: run, config, versions and whatever else is worth knowing, as plain data.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    has_graph: bool = True
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the description as JSON."""
        channels, height, width = self.image_shape
        normalization = {"mean": self.mean, "std": self.std, "of": "pixels in [0, 1]", "inside_the_graph": self.has_graph}
        images = {
            "name": INPUT,
            "shape": ["batch", channels, height, width],
            "dtype": self.pixels if self.has_graph else "float32",
            "values": ("0 to 255" if self.pixels == "uint8" else "0 to 1") if self.has_graph else "normalised",
            "channels": {1: "grey", 3: "red, green, blue"}.get(channels, f"{channels}"),
            "resize": MIDDLE_SQUARE if height == width else NO_RESIZE,
            "normalization": normalization,
        }
        output = {"name": OUTPUT, "shape": ["batch", len(self.class_names)], "dtype": "float32", "probabilities": "softmax over axis 1"}
        whole = {"format": FORMAT, "class_names": self.class_names, "input": images, "pixels": self.pixels, "output": output, **self.about}
        return json.dumps(whole, ensure_ascii=False)

    @property
    def white(self) -> float:
        """The value of a white pixel."""
        return 255.0 if self.pixels == "uint8" else 1.0


def read_description(text: str | None, where: Path) -> Description:
    """Return what a file says of itself; classes without names are called by their numbers. Raises CheckpointError."""
    if not text:
        raise CheckpointError(f"{where} does not say how images become its input; take a file that `firstlight export` wrote")
    try:
        whole = json.loads(text)
        if whole["format"] != FORMAT:
            raise CheckpointError(f"{where} has export format {whole['format']!r}, this firstlight reads {FORMAT}; export the run again")
        images, output = whole["input"], whole["output"]
        channels, height, width = (_whole_number(size, MAX_SIDE) for size in images["shape"][1:])
        num_classes = _whole_number(output["shape"][1], MAX_CLASSES)
        names = tuple(str(name) for name in whole.get("class_names") or range(num_classes))
        mean, std = (tuple(float(value) for value in images["normalization"][key]) for key in ("mean", "std"))
        if len(names) != num_classes or whole["pixels"] not in ("uint8", "float32") or not len(mean) == len(std) == channels:
            raise ValueError("its entries do not fit each other")
        about = {key: value for key, value in whole.items() if key not in ("format", "class_names", "input", "pixels", "output")}
        inside = bool(images["normalization"]["inside_the_graph"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{where}: what it says of itself is damaged ({reason}); export the run again") from None
    shape = (channels, height, width)
    return Description(class_names=names, image_shape=shape, pixels=whole["pixels"], mean=mean, std=std, has_graph=inside, about=about)


def _whole_number(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{value!r} is no number from 1 to {most}")
    return value


def without_folders(settings: Any) -> Any:
    """Return the settings of a config with the last part alone of each path: where its maker keeps things is not told."""
    if isinstance(settings, dict):
        return {key: without_folders(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [without_folders(value) for value in settings]
    return re.split(r"[/\\]", settings.rstrip("/\\"))[-1] if isinstance(settings, str) else settings
