"""How often `inspect data --compare` names a corruption right, and how far off its strength is.

`python -m benchmarks.corruption_naming` corrupts MNIST images 40,000 to 59,999, which were left alone while the method was written. Each
trial draws two sets of other images, corrupts the second with scipy (cubic splines, where ours interpolates bilinearly), and asks.
`--first 0 --last 20000 --dry` was the bench of the development; nothing is recorded then.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

import firstlight as fl
from benchmarks.record import write_result
from firstlight.inspection.naming import name_corruption
from firstlight.inspection.sample import draw_sample

Images = NDArray[np.float64]
NUM_IMAGES = 4000
"""Images drawn for each of the two sets of a trial."""


def turned(images: Images, degrees: NDArray[np.float64] | float, order: int = 3) -> Images:
    """Turn counter-clockwise about the middle."""
    angles = np.broadcast_to(np.deg2rad(degrees), len(images))
    return mapped(images, [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in angles], order)


def sheared(images: Images, factor: NDArray[np.float64] | float, order: int = 3) -> Images:
    """Move each row to the right by `factor` times its height over the middle."""
    return mapped(images, [np.array([[1, 0], [f, 1]]) for f in np.broadcast_to(factor, len(images))], order)


def scaled(images: Images, factor: NDArray[np.float64] | float, order: int = 3) -> Images:
    """Enlarge about the middle."""
    return mapped(images, [np.eye(2) / f for f in np.broadcast_to(factor, len(images))], order)


def mapped(images: Images, backs: list[NDArray[np.float64]], order: int) -> Images:
    """Take each pixel from `back` times its (down, right) place from the middle."""
    middle = (np.array(images.shape[1:]) - 1) / 2
    parts = [
        ndimage.affine_transform(image, back, offset=middle - back @ middle, order=order) for image, back in zip(images, backs, strict=True)
    ]
    return np.stack(parts)


def moved(images: Images, right: float, down: float) -> Images:
    """Move all images alike."""
    return ndimage.shift(images, (0, down, right), order=3)  # type: ignore[no-any-return]


def blurred(images: Images, sigma: float) -> Images:
    """Blur with a Gaussian."""
    return ndimage.gaussian_filter(images, (0, sigma, sigma))  # type: ignore[no-any-return]


def contrasted(images: Images, factor: float) -> Images:
    """Scale about the mean of each image, as torchvision and Pillow do."""
    mean = images.mean((1, 2), keepdims=True)
    scaled_values: Images = mean + factor * (images - mean)
    return scaled_values


Change = Callable[[Images, np.random.Generator], Images]


def trials() -> list[tuple[str, str, dict[str, float], Change]]:
    """Return group, kind, true strengths by term, and what does it."""
    rows: list[tuple[str, str, dict[str, float], Change]] = []
    one = "one strength for all images"
    rows += [(one, "rotation", {"rotation": a}, lambda x, r, a=a: turned(x, a)) for a in (5.0, -15.0, 30.0)]  # type: ignore[misc]
    rows += [(one, "shear", {"shear_x": s}, lambda x, r, s=s: sheared(x, s)) for s in (0.1, -0.2, 0.4)]  # type: ignore[misc]
    rows += [(one, "blur", {"blur": s}, lambda x, r, s=s: blurred(x, s)) for s in (0.5, 1.0, 2.0)]  # type: ignore[misc]
    rows += [(one, "noise", {"noise": s}, lambda x, r, s=s: x + r.normal(0, s, x.shape)) for s in (0.05, 0.15, 0.3)]  # type: ignore[misc]
    rows += [(one, "contrast", {"contrast": c}, lambda x, r, c=c: contrasted(x, c)) for c in (0.8, 0.5, 0.25)]  # type: ignore[misc]
    rows += [(one, "inversion", {"inversion": 1.0}, lambda x, r: 1 - x) for _ in range(3)]
    rows += [(one, "scale", {"scale": s}, lambda x, r, s=s: scaled(x, s)) for s in (0.9, 0.75, 1.2)]  # type: ignore[misc]
    places = ((1.0, 0.0), (2.0, -1.0), (-4.0, 3.0))
    rows += [(one, "translation", {"move_x": x, "move_y": y}, lambda i, r, x=x, y=y: moved(i, x, y)) for x, y in places]  # type: ignore[misc]
    each = "a strength of its own for each image"
    drawn = {
        "rotation_drawn": ("rotation", (10.0, 20.0, 40.0), lambda x, u: turned(x, u)),
        "shear_x_drawn": ("shear", (0.2, 0.3, 0.5), lambda x, u: sheared(x, u)),
        "scale_drawn": ("scale", (1.1, 1.2, 1.3), lambda x, u: scaled(x, 1 + u)),
        "move_drawn": ("translation", (1.0, 2.0, 4.0), lambda x, u: np.stack([ndimage.shift(i, s) for i, s in zip(x, u, strict=True)])),
    }
    for term, (kind, strengths, change) in drawn.items():
        for most in strengths:
            size = (2,) if kind == "translation" else ()
            width = most - 1 if kind == "scale" else most
            rows.append((each, kind, {term: most}, lambda x, r, c=change, w=width, s=size: c(x, r.uniform(-w, w, (len(x), *s)))))  # type: ignore[misc]
    rows += [("nothing done", "none", {}, lambda x, r: x) for _ in range(3)]
    return rows


def main() -> None:
    """Name them all, print a line each, and record how many were right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=40_000, help="first image of MNIST's training part to draw from")
    parser.add_argument("--last", type=int, default=60_000, help="the image behind the last one")
    parser.add_argument("--only", help="trials of this kind alone")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    arguments = parser.parse_args()
    if not arguments.dry and arguments.only:
        parser.error("--only is for --dry")
    mnist = fl.load_data("mnist")
    assert mnist.labels is not None
    images, labels = mnist.images[arguments.first : arguments.last], mnist.labels[arguments.first : arguments.last]
    found = []
    for number, (group, kind, strengths, change) in enumerate(trials()):
        if arguments.only in (None, kind):
            found.append(trial(images, labels, number, group, kind, strengths, change))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    if not arguments.dry:
        command = "python -m benchmarks.corruption_naming"
        write_result("corruption_naming", "Naming what was done to images", command, table(found, arguments.first, arguments.last))


def trial(
    images: torch.Tensor, labels: torch.Tensor, number: int, group: str, kind: str, strengths: dict[str, float], change: Change
) -> dict[str, Any]:
    """Draw two sets of other images, corrupt the second, and return what was named."""
    random = np.random.default_rng(number)
    order = random.permutation(len(images))
    one, other = order[:NUM_IMAGES], order[NUM_IMAGES : 2 * NUM_IMAGES]
    pixels = change(images[other, 0].double().numpy() / 255, random).clip(0, 1)
    corrupted = torch.from_numpy((pixels * 255).round().astype(np.uint8))[:, None]
    began = time.monotonic()
    naming = name_corruption(draw_sample(images[one], labels[one], corrupted, labels[other], seed=number), seed=number)
    named = [entry.kind for entry in naming.named] or ["none"]
    return {
        "group": group,
        "kind": kind,
        "true": strengths,
        "named": named,
        "recipe": {name: round(value, 4) for name, value in naming.recipe.items()},
        "sure": [entry.sure for entry in naming.named],
        "before": round(naming.before, 3),
        "after": round(naming.after, 3),
        "floor": round(naming.floor, 3),
        "right": named == [kind],
        "first": named[0] == kind,
        "seconds": round(time.monotonic() - began, 1),
    }


def table(found: list[dict[str, Any]], first: int, last: int) -> list[dict[str, Any]]:
    """Return the rows of the record."""
    rows: list[dict[str, Any]] = []
    for group in dict.fromkeys(entry["group"] for entry in found):
        chosen = [entry for entry in found if entry["group"] == group]
        wrong = [f"{entry['kind']} {entry['true']} taken for {' and '.join(entry['named'])}" for entry in chosen if not entry["right"]]
        seconds = np.mean([entry["seconds"] for entry in chosen])
        note = f"images {first:,} to {last - 1:,}; {seconds:.0f} s each; {'; '.join(wrong) or 'none wrong'}"
        right = sum(entry["first"] for entry in chosen)
        alone = sum(entry["right"] for entry in chosen)
        rows.append(
            {"what": f"{group}: strongest kind named right", "value": right, "unit": f"of {len(chosen)}", "n": len(chosen), "note": note}
        )
        rows.append(
            {"what": f"{group}: named right, and nothing else", "value": alone, "unit": f"of {len(chosen)}", "n": len(chosen), "note": ""}
        )
        rows[-2] |= {"least": -(-9 * len(chosen) // 10)} if group.startswith("one") else {}
    rows += [error_row(kind, [entry for entry in found if entry["kind"] == kind and entry["first"]]) for kind in errors_in()]
    return rows


def errors_in() -> dict[str, str]:
    """Return the unit of each kind's strength."""
    return {
        "rotation": "degrees",
        "shear": "",
        "blur": "pixels",
        "noise": "of [0, 1]",
        "contrast": "times",
        "scale": "times",
        "translation": "pixels",
    }


def error_row(kind: str, chosen: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean error of the strengths of a kind; a term that was not named counts as its neutral strength."""
    from firstlight.inspection.corruptions import TERMS

    gaps = [abs(entry["recipe"].get(term, TERMS[term].neutral) - value) for entry in chosen for term, value in entry["true"].items()]
    note = "against " + ", ".join(f"{value:g}" for entry in chosen for value in entry["true"].values())
    return {
        "what": f"mean error of the strength: {kind}",
        "value": float(np.mean(gaps)),
        "unit": errors_in()[kind],
        "n": len(gaps),
        "note": note,
    }


if __name__ == "__main__":
    main()
