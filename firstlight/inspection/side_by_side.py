"""`inspect data --compare A B`: two sets beside each other, how their figures differ, and what was likely done to A to make B."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.errors import DataError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.inspection.corruptions import Originals, corrupt, grey
from firstlight.inspection.features import moments, radial_power
from firstlight.inspection.naming import RESAMPLES, Named, Naming, name_corruption
from firstlight.inspection.pixels import histogram
from firstlight.inspection.sample import Sample, draw_sample
from firstlight.inspection.subject import Subject
from firstlight.plotting.datasets import plot_distances, plot_image_rows, plot_sheet, plot_two_histograms
from firstlight.tracking.console import Console
from firstlight.tracking.table import print_table

SIDE_IMAGES = 5
"""Images of a class and set on the sheet."""
SHOWN_CLASSES = 10
MEANINGFUL = 0.5
"""Share of the difference that must be explained, for what is named to stand without a doubt beside it."""


def compare_data(
    first: Subject, second: Subject, *, seed: int = 0, out: Path = Path("inspection"), console: Console | None = None
) -> dict[str, Any]:
    """Put the training parts of two subjects beside each other; return figures, the likely corruption, and the files.

    Writes OUT/compare-<A>-<B>.json and pictures. Raises DataError where images differ in size or channels.
    """
    console = console or Console(quiet=True)
    names = _names(first, second)
    one, other = first.part("train"), second.part("train")
    labels, other_labels, class_names = _matched(one, other)
    if one.image_shape != other.image_shape:
        sizes = " and ".join(" x ".join(map(str, data.image_shape)) for data in (one, other))
        remedy = "give both one size with input.image_size=32" if one.image_shape[0] == other.image_shape[0] else "compare sets of one kind"
        raise DataError(f"{names[0]} and {names[1]} have images of {sizes} (channels x height x width); {remedy}")
    sample = draw_sample(one.images, labels, other.images, other_labels, seed=seed)
    naming = name_corruption(sample, seed=seed, watch=console.line)
    corrected = corrupt(Originals.of(sample.first, seed), naming.recipe)
    says = sentence(naming, names, sample.shrunk)
    stem = make_dir(out) / file_name(f"compare-{names[0]}-{names[1]}")
    figures = {
        "sheets": _draw_sheets(sample, class_names, names, naming),
        "means": _draw_means(sample, corrected, class_names, names, naming),
        "pixels": _draw_pixels(sample, corrected, names, naming),
        "kinds": plot_distances(naming.tried, naming.before, naming.floor, naming.after, title=f"{_alone(naming)}"),
    }
    files = [path for name, figure in figures.items() for path in write_pictures(stem.with_name(f"{stem.name}-{name}"), figure)]
    path = stem.with_name(f"{stem.name}.json")
    found = {
        "what": "compare",
        "split": "train",
        "num_images": len(sample.first),
        "says": says,
        "sources": [one.source, other.source],
        "same_images": sample.other is None,
        "num_classes": sample.num_classes,
        "named": [_named_row(named, sample.shrunk) for named in naming.named],
        "explained": 1 - naming.left,
        "distance": {"before": naming.before, "after": naming.after, "chance": naming.floor, "chance_std": naming.floor_std},
        "tried": [{"kind": kind, "distance_left": left} for kind, left in naming.tried.items()],
        "statistics": _statistics(sample, corrected, names),
        "names": list(names),
        "files": [str(file) for file in (*files, path)],
    }
    write_json(path, found)
    return found


def file_name(text: str) -> str:
    """Return a text as part of a file's name: letters, digits and . - _ stay, all else becomes a dash."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "data"


def _names(first: Subject, second: Subject) -> tuple[str, str]:
    """Return what to call the two; told apart where they have one name."""
    return (first.name, second.name) if first.name != second.name else (f"{first.name} (1)", f"{second.name} (2)")


def _matched(one: Dataset, other: Dataset) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return the labels of both sets by the classes that they share by name, -1 for others; without such classes all are one class."""
    if one.labels is None or other.labels is None:
        return torch.zeros(len(one), dtype=torch.int64), torch.zeros(len(other), dtype=torch.int64), ("all",)
    shared = tuple(name for name in one.class_names if name in other.class_names)
    if not shared:
        return torch.zeros_like(one.labels), torch.zeros_like(other.labels), ("all",)
    place = {name: number for number, name in enumerate(shared)}
    mine, theirs = (torch.tensor([place.get(name, -1) for name in data.class_names])[data.labels] for data in (one, other))
    return mine, theirs, shared


def sentence(naming: Naming, names: tuple[str, str], shrunk: int = 1) -> str:
    """Return what was found as one sentence."""
    first, second = names
    if not naming.named:
        if naming.after <= naming.floor + 3 * naming.floor_std:
            return f"{second} cannot be told from {first}: they differ no more than two draws of {first} do"
        return f"{second} differs from {first}, but none of the eight kinds of corruption brings them nearer"
    words = ", then ".join(phrase(named, shrunk) for named in naming.named)
    doubts = [f"{named.kind} against {named.rival} only {named.sure:.0%}" for named in naming.named if named.sure < 0.95]
    sure = (
        f"unsure: {', '.join(doubts)} of resamples"
        if doubts
        else "the same in all resamples"
        if _always(naming)
        else "the same in 95 % or more of resamples"
    )
    explained = 1 - naming.left
    tail = "" if explained >= MEANINGFUL else "; most of the difference is something else"
    return f"{second} looks like {first} with {words}; this explains {explained:.0%} of the difference ({sure}){tail}"


def _finding(naming: Naming, names: tuple[str, str]) -> str:
    """Return what was found in a few words, for a title."""
    kinds = " and ".join(named.kind for named in naming.named)
    return f"{names[1]} looks like {names[0]} with {kinds}" if kinds else "no corruption to name"


def _always(naming: Naming) -> bool:
    return all(named.sure == 1 for named in naming.named)


def phrase(named: Named, shrunk: int = 1) -> str:
    """Return a corruption in words; lengths in pixels of the images, `shrunk` of which make one pixel of the sample."""
    recipe = named.recipe
    term, value = next(iter(recipe.items()))
    if term in ("move_x", "move_y"):
        right, down = recipe["move_x"] * shrunk, recipe["move_y"] * shrunk
        sideways, upright = (
            f"{abs(right):.1f} pixels to the {'right' if right >= 0 else 'left'}",
            f"{abs(down):.1f} {'down' if down >= 0 else 'up'}",
        )
        return f"translation by {sideways} and {upright}"
    return {
        "rotation": f"rotation by {abs(value):.1f} degrees {'counter-clockwise' if value >= 0 else 'clockwise'}",
        "rotation_drawn": f"rotation by up to {value:.0f} degrees either way, another for each image",
        "shear_x": f"shear to the {'right' if value >= 0 else 'left'} by {abs(value):.2f} of the height",
        "shear_y": f"shear {'upwards' if value >= 0 else 'downwards'} by {abs(value):.2f} of the width",
        "shear_x_drawn": f"shear by up to {value:.2f} of the height either way, another for each image",
        "scale": f"scale by {value:.2f}",
        "scale_drawn": f"scale by {2 - value:.2f} to {value:.2f}, another for each image",
        "move_drawn": f"translation by up to {value * shrunk:.1f} pixels each way, another for each image",
        "blur": f"blur of sigma {value * shrunk:.2f} pixels",
        "contrast": f"contrast times {value:.2f} about each image's mean",
        "contrast_middle": f"contrast times {value:.2f} about middle grey",
        "contrast_black": f"contrast times {value:.2f} about black (darker or brighter as a whole)",
        "inversion": "inversion",
        "noise": f"noise of standard deviation {value * shrunk:.3f} (pixels in [0, 1])",
    }[term]


def _named_row(named: Named, shrunk: int) -> dict[str, Any]:
    factor = {"blur": shrunk, "noise": shrunk, "translation": shrunk}.get(named.kind, 1)
    strengths = {term: value * factor for term, value in named.recipe.items()}
    return {
        "kind": named.kind,
        "says": phrase(named, shrunk),
        "explained": named.explained,
        "sure": named.sure,
        "rival": named.rival,
        "strength": strengths,
    }


def _alone(naming: Naming) -> str:
    if not naming.tried:
        return "the two sets differ no more than two draws of one set"
    best = next(iter(naming.tried))
    return (
        f"{best} alone brings the first set nearest to the second"
        if naming.named
        else "no kind alone brings the first set nearer to the second"
    )


def _statistics(sample: Sample, corrected: Tensor, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Return rows of figures: of the first set, the second, and the first with what was named done to it; lengths in pixels."""
    columns = [_figures(images, sample.shrunk) for images in (sample.first, sample.second, corrected)]
    return [{"figure": key, "first": columns[0][key], "second": columns[1][key], "first_corrupted": columns[2][key]} for key in columns[0]]


def _figures(images: Tensor, shrunk: int) -> dict[str, float]:
    pixels = grey(images)
    x, y, wide, tall, slant = moments(pixels).mean(0).tolist()
    steps = (pixels.diff(dim=1).square().mean() + pixels.diff(dim=2).square().mean()).sqrt()
    return {
        "mean": float(images.mean()),
        "standard deviation": float(images.std(correction=0)),
        "sharpness (rms step to the next pixel)": float(steps),
        "middle of the foreground, right (pixels)": x * shrunk,
        "middle of the foreground, down (pixels)": y * shrunk,
        "width (rms, pixels)": wide * shrunk,
        "height (rms, pixels)": tall * shrunk,
        "slant to the right (pixels a row)": slant,
    }


def _draw_sheets(sample: Sample, class_names: tuple[str, ...], names: tuple[str, str], naming: Naming) -> Any:
    """Return images of both sets, a row a class: the first set left, the second right."""
    rows, row_names = [], []
    for label in sample.labels.unique()[:SHOWN_CLASSES].tolist():
        places = (sample.labels == label).nonzero().flatten()[:SIDE_IMAGES].tolist()
        blank = [None] * (SIDE_IMAGES - len(places) + 1)
        rows.append([*(_pixels(sample.first[place]) for place in places), *blank, *(_pixels(sample.second[place]) for place in places)])
        row_names.append(class_names[label] if sample.num_classes else "all")
    pairs = ", the same images" if sample.other is None else ""
    title = f"left: {names[0]}, right: {names[1]}{pairs}: {_finding(naming, names)}"
    return plot_sheet(rows, row_names, title=title)


def _pixels(image: Tensor) -> Any:
    return Dataset(image[None], None, (), "").pixels(0)


def _draw_means(sample: Sample, corrected: Tensor, class_names: tuple[str, ...], names: tuple[str, str], naming: Naming) -> Any:
    """Return the mean image of each class in both sets, and in the first with what was named done to it."""
    labels = sample.labels.unique()[:SHOWN_CLASSES].tolist()
    rows = [(names[0], sample.first), (names[1], sample.second)]
    if naming.named:
        rows.append((f"{names[0]}\nwith {' and '.join(named.kind for named in naming.named)}", corrected))
    shown = [(name, [_pixels(images[sample.labels == label].mean(0)) for label in labels]) for name, images in rows]
    title = f"mean images of {len(sample.first):,} images of each set: {_finding(naming, names)}"
    return plot_image_rows(shown, [class_names[label] if sample.num_classes else "all" for label in labels], title=title)


def _draw_pixels(sample: Sample, corrected: Tensor, names: tuple[str, str], naming: Naming) -> Any:
    """Return histograms and spectra of both sets, and of the first with what was named done to it."""
    values, waves = zip(
        *((histogram(images).numpy(), radial_power(grey(images)).mean(0).numpy()) for images in (sample.first, sample.second, corrected)),
        strict=True,
    )
    title = f"values and frequencies of both sets: {_finding(naming, names)}"
    return plot_two_histograms(names, values[:2], waves[:2], fitted=(values[2], waves[2]) if naming.named else None, title=title)


def print_comparison_of_data(result: dict[str, Any]) -> None:
    """Print what was found between two sets."""
    first, second = result["names"]
    print(f"{first}: {result['sources'][0]}\n{second}: {result['sources'][1]}\n")
    how = "the same images in both, in the same order" if result["same_images"] else "other images in each"
    print(f"{result['num_images']:,} images of each set, {how}; {result['num_classes'] or 'no'} classes matched by name")
    rows = [
        {"figure": row["figure"], first: row["first"], second: row["second"], "named done to it": row["first_corrupted"]}
        for row in result["statistics"]
    ]
    print_table(rows, ("figure", first, second, "named done to it"))
    if result["named"]:
        print("\nwhat was done, the strongest first")
        rows = [
            {"corruption": row["says"], "explains": row["explained"], "sure": row["sure"], "next likely": row["rival"]}
            for row in result["named"]
        ]
        print_table(rows, ("corruption", "explains", "sure", "next likely"), decimals={"explains": 2, "sure": 2})
        print(f"sure: share of {RESAMPLES} resamples of the images in which no other kind comes nearer")
    print(f"\n{result['says']}\n")
    for file in result["files"]:
        if not file.endswith(".svg"):
            print(file)
