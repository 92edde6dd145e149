"""The first exercise of a course: tell odd digits from even ones by least squares, in closed form, with nothing but tensors."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.normalize import pixel_scale
from firstlight.data.splits import carve
from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.inspection.subject import Subject
from firstlight.plotting.datasets import plot_warmup


def fit_least_squares(inputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Return the weights that minimise |X w - y|^2, the shortest such where there are many, and the rank of X.

    inputs: float [N, D]; targets: float [N] in -1, 1; weights float64 [D]. No bias: a row is the pixels alone.
    """
    solved = torch.linalg.lstsq(inputs.double(), targets.double()[:, None], driver="gelsd")
    return solved.solution[:, 0], int(solved.rank)


def parity_accuracy(weights: Tensor, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of rows whose X w has the sign of y."""
    return float(((inputs.double() @ weights).sign() == targets).double().mean())


def warm_up(subject: Subject, *, num: int = 500, seed: int = 0, out: Path = Path("inspection")) -> dict[str, Any]:
    """Fit odd (+1) and even (-1) digits on `num` images that `seed` draws; return the accuracy on them and on the validation images.

    Writes OUT/warmup.png, .svg and .json: a digit with its label, and the weights as an image. Raises ConfigError for classes that are no
    numbers, and for more images than are there.
    """
    dataset = subject.part("train")
    parities = _parities(dataset)
    assert dataset.labels is not None
    train, val = carve(dataset.labels, subject.config.split.val_fraction, subject.config.split.seed)
    if not 1 <= num <= len(train):
        raise ConfigError(f"--num {num:,} of {len(train):,} training images; allowed: 1 to {len(train):,}")
    chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:num]]
    inputs, targets = _inputs(dataset.images[chosen]), parities[dataset.labels[chosen]]
    weights, rank = fit_least_squares(inputs, targets)
    train_accuracy = parity_accuracy(weights, inputs, targets)
    val_accuracy = parity_accuracy(weights, _inputs(dataset.images[val]), parities[dataset.labels[val]]) if len(val) else None
    held = "nothing is held out" if val_accuracy is None else f"{val_accuracy:.1%} of {len(val):,} it has not seen"
    exact = f"; {rank} independent rows can fit any labels of {num:,} images exactly" if rank >= num else ""
    fitted = f"{train_accuracy:.1%} of the {num:,} images it was fitted to"
    says = f"a weight for each of {inputs.shape[1]} pixels tells odd from even on {fitted}, {held}{exact}"
    first = int(chosen[0])
    figure = plot_warmup(dataset.pixels(first), dataset.class_names[int(dataset.labels[first])], _as_image(weights, dataset), title=says)
    files = write_pictures(make_dir(out) / "warmup", figure)
    found = {
        "source": dataset.source,
        "what": "warmup",
        "num_images": num,
        "seed": seed,
        "says": says,
        "digit": {"index": first, "label": dataset.class_names[int(dataset.labels[first])]},
        "inputs_shape": list(inputs.shape),
        "targets_shape": list(targets.shape),
        "rank": rank,
        "train_accuracy": train_accuracy,
        "val_accuracy": val_accuracy,
        "num_val": len(val),
        "files": [*map(str, files), str(out / "warmup.json")],
    }
    write_json(out / "warmup.json", found)
    return found


def _inputs(images: Tensor) -> Tensor:
    """Return images as rows of pixels in [0, 1], float32 [N, D]."""
    return images.flatten(1).float() / pixel_scale(images)


def _parities(dataset: Dataset) -> Tensor:
    """Return +1 for each class whose name is an odd number, -1 for an even one."""
    wrong = [name for name in dataset.class_names if not name.isdecimal()]
    if wrong or dataset.labels is None:
        raise ConfigError(f"{dataset.source}: odd and even need classes that are numbers, not {wrong[:1] or 'none'}; try mnist or digits")
    return torch.tensor([1.0 if int(name) % 2 else -1.0 for name in dataset.class_names], dtype=torch.float64)


def _as_image(weights: Tensor, dataset: Dataset) -> Any:
    """Return the weights in the shape of an image, summed over its channels."""
    return weights.view(dataset.image_shape).sum(0).numpy()


def print_warmup(result: dict[str, Any]) -> None:
    """Print what the warm-up found."""
    rows, columns = result["inputs_shape"]
    print(result["source"])
    print(f"image {result['digit']['index']:,} shows a {result['digit']['label']}")
    print(f"X ({rows}, {columns}), y ({rows},) of +1 for odd and -1 for even; rank of X {result['rank']}")
    print(result["says"])
    for file in result["files"]:
        print(file)
