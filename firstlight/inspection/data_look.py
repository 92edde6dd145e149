"""`inspect data`: the images as they are and as the network sees them, their classes, their pixels, and what is there twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.measure import is_streamed
from firstlight.data.training_data import twin_warnings
from firstlight.engine.finished import MORE_MEMORY
from firstlight.engine.memory import give_back_freed_memory, out_of_memory
from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.inspection.duplicates import NEAR, Duplicates, Pair, find_duplicates
from firstlight.inspection.opened import FOLDER
from firstlight.inspection.pixels import Survey, survey
from firstlight.inspection.sheets import draw_as_seen, draw_sheet, shown_classes
from firstlight.inspection.side_by_side import compare_data, file_name, print_comparison_of_data
from firstlight.inspection.subject import Subject, find_subject
from firstlight.plotting.balance import plot_class_balance
from firstlight.plotting.datasets import plot_image_rows, plot_pairs
from firstlight.tracking.console import Console
from firstlight.tracking.table import print_table
from firstlight.tracking.writer import record_test_opening

SHOWN_PAIRS = 16
LISTED_PAIRS = 200
"""Pairs of duplicates in the JSON file, of each kind."""
MEAN_CLASSES = 12
"""Classes whose mean image is drawn."""


def look(
    words: Sequence[str],
    *,
    compare: bool,
    test: bool,
    out: Path,
    runs_dir: Path | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Look at what the words of a command line name, one set or two to compare, with settings for all of them.

    Raises ConfigError for another number of names.
    """
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    names = [word for word in words if word not in settings]
    if len(names) != 1 + compare:
        wanted = "two data sets, such as --compare mnist corrupted_mnist" if compare else "one data set, experiment or run, such as mnist"
        raise ConfigError(f"inspect data was given {' and '.join(names) or 'nothing to look at'}; name {wanted}")
    if compare and test:
        raise ConfigError("--test looks for duplicates of test images in one set; leave it out with --compare")
    subjects = [find_subject(name, settings, runs_dir=runs_dir, data_dir=data_dir) for name in names]
    with out_of_memory("reading and comparing the images", MORE_MEMORY), give_back_freed_memory():
        if compare:
            return compare_data(subjects[0], subjects[1], out=out, console=console)
        return inspect_data(subjects[0], test=test, out=out, console=console)


def print_look(result: dict[str, Any]) -> None:
    """Print what was found in one set, or between two."""
    (print_data_look if result["what"] == "data" else print_comparison_of_data)(result)


def inspect_data(subject: Subject, *, test: bool = False, out: Path = Path("inspection"), console: Console | None = None) -> dict[str, Any]:
    """Look at the training images of a subject; return figures, a sentence and the files.

    test: look for duplicates of test images, too. Their pixels are read, their labels are not; a run records it.
    Writes data-train.json and pictures into the inspection folder of a run, and those of other subjects as data-<name>.json into `out`.
    """
    console = console or Console(quiet=True)
    data = subject.training_data()
    train, normalize = data.train, subject.normalize(data)
    parts: dict[str, Dataset] = {"train": train, **({} if data.val is None else {"val": data.val})}
    pixels = {part: dataset.images for part, dataset in parts.items()}
    if test:
        pixels["test"] = subject.part("test").images
        if subject.run is not None:
            record_test_opening(subject.run, {"by": "inspect data (pixels only, for duplicates)", "num_images": len(pixels["test"])})
    console.line(f"looking for duplicates among {sum(map(len, pixels.values())):,} images")
    twice = find_duplicates(pixels, seed=0)
    seed = subject.config.seed if subject.config.order_seed is None else subject.config.order_seed
    network, values = draw_as_seen(train, subject.config, normalize, seed=seed, title="as the network sees them")
    drawn = shown_classes(train, MEAN_CLASSES)
    surveyed = survey(train, drawn)
    classes = _class_rows(parts, surveyed)
    says = _sentence(train, classes, twice, values)
    stem = make_dir(subject.run.path / FOLDER) / "data-train" if subject.run else make_dir(out) / f"data-{file_name(subject.name)}"
    figures = {
        "raw": draw_sheet(train, f"as they are: {train.source}"),
        "network": network,
        "balance": plot_class_balance([row["class"] for row in classes], [row["images"] for row in classes]),
        "means": _draw_means(train, drawn, surveyed),
        "duplicates": _draw_duplicates(twice, pixels, parts),
    }
    files = [path for name, figure in figures.items() for path in write_pictures(stem.with_name(f"{stem.name}-{name}"), figure)]
    path = stem.with_name(f"{stem.name}.json")
    found = {
        "run": str(subject.run.path) if subject.run else None,
        "what": "data",
        "split": "train",
        "num_images": len(train),
        "says": says,
        "source": train.source,
        "image_shape": list(train.image_shape),
        "dtype": str(train.images.dtype).removeprefix("torch."),
        "num_val": len(data.val) if data.val else 0,
        "statistics": _statistics(surveyed),
        "normalize": {"mean": list(normalize.mean), "std": list(normalize.std)},
        "network_values": values,
        "classes": classes,
        "duplicates": _duplicate_rows(twice),
        "pairs": [_pair_row(pair, parts) for pair in (*twice.exact[:LISTED_PAIRS], *twice.near[:LISTED_PAIRS])],
        "near_from": NEAR,
        "near_complete": twice.complete,
        "exact_complete": twice.all_exact,
        "num_searched": twice.num_sampled,
        "num_searched_exact": twice.num_hashed,
        "streamed": is_streamed(train),
        "left_out": _left_out(twice, pixels, data.record.num_measured if subject.run is None else None),
        "warnings": [*data.warnings, *_twins(twice, parts), *_warnings(twice, parts, classes)],
        "files": [str(file) for file in (*files, path)],
    }
    write_json(path, found)
    return found


def _statistics(surveyed: Survey) -> dict[str, Any]:
    """Return mean, deviation, least and greatest pixel in [0, 1], and how many images have one colour."""
    images = surveyed.images
    return {
        "mean": surveyed.mean.tolist(),
        "std": surveyed.std.tolist(),
        "least": float(images.least.min()),
        "greatest": float(images.greatest.max()),
        "num_constant": int(images.constant.sum()),
        "share_constant": float(images.constant.double().mean()),
    }


def _class_rows(parts: Mapping[str, Dataset], surveyed: Survey) -> list[dict[str, Any]]:
    """Return a row a class: images to train and to validate, share, and the mean brightness of its images with its deviation."""
    train = parts["train"]
    counts = {part: torch.bincount(_labels(dataset), minlength=train.num_classes).tolist() for part, dataset in parts.items()}
    means = surveyed.images.mean.double()
    rows = []
    for label, name in enumerate(train.class_names):
        own = means[_labels(train) == label]
        rows.append(
            {
                "class": name,
                "images": counts["train"][label],
                "share": counts["train"][label] / len(train),
                "val": counts["val"][label] if "val" in parts else 0,
                "brightness": float(own.mean()) if len(own) else None,
                "brightness_std": float(own.std(correction=0)) if len(own) else None,
            }
        )
    return rows


def _labels(dataset: Dataset) -> Tensor:
    assert dataset.labels is not None
    return dataset.labels


def _draw_means(dataset: Dataset, classes: list[int], surveyed: Survey) -> Any:
    """Return the mean image of each class over how much its pixels vary."""
    mean, std = (values.permute(0, 2, 3, 1).numpy() for values in (surveyed.class_means, surveyed.class_stds))
    colours = mean.shape[3] == 3
    rows = []
    for name, values in (("mean", mean), ("standard\ndeviation", std)):
        shown = [image if colours else image[..., 0] for image in values]
        most = max(float(image.max()) for image in shown) or 1.0
        rows.append((name, [(image / most * 255).round().astype("uint8") for image in shown]))
    which = f"{len(classes)} of {dataset.num_classes} classes" if len(classes) < dataset.num_classes else "each class"
    apart = _most_alike(mean, [dataset.class_names[label] for label in classes])
    return plot_image_rows(rows, [dataset.class_names[label] for label in classes], title=f"mean image of {which}{apart}")


def _most_alike(means: Any, names: list[str]) -> str:
    """Return which two classes have the mean images that are most alike."""
    if len(names) < 3:
        return ""
    flat = torch.from_numpy(means).flatten(1)
    gaps = torch.cdist(flat, flat).fill_diagonal_(float("inf"))
    first, second = divmod(int(gaps.argmin()), len(names))
    return f"; those of {names[first]} and {names[second]} are the most alike"


def _draw_duplicates(twice: Duplicates, pixels: Mapping[str, Tensor], parts: Mapping[str, Dataset]) -> Any:
    """Return the first duplicates, those across parts before the others, the most alike first."""
    pairs = sorted([*twice.exact, *twice.near], key=lambda pair: (pair.first_part == pair.second_part, -pair.correlation))[:SHOWN_PAIRS]
    shown = [
        (
            _pixels(pixels[pair.first_part], pair.first),
            _title(pair.first_part, pair.first, parts),
            _pixels(pixels[pair.second_part], pair.second),
            f"{'same pixels' if pair.exact else f'correlation {pair.correlation:.4f}'}\n{_title(pair.second_part, pair.second, parts)}",
        )
        for pair in pairs
    ]
    return plot_pairs(
        shown, title=_said_twice(twice) + (f"; {SHOWN_PAIRS} of them" if len(twice.exact) + len(twice.near) > SHOWN_PAIRS else "")
    )


def _pixels(images: Tensor, index: int) -> Any:
    return Dataset(images[index : index + 1], None, (), "").pixels(0)


def _title(part: str, index: int, parts: Mapping[str, Dataset]) -> str:
    """Return part, place and class of an image; that of a test image stays unread."""
    if part not in parts:
        return f"{part} {index:,}"
    name = parts[part].class_names[int(_labels(parts[part])[index])]
    return f"{part} {index:,}\n{name if len(name) <= 16 else name[:15] + '…'}"


def _duplicate_rows(twice: Duplicates) -> list[dict[str, Any]]:
    exact, near = twice.num(exact=True), twice.num(exact=False)
    return [
        {"parts": first if first == second else f"{first} and {second}", "same": exact[first, second], "nearly": near[first, second]}
        for first, second in exact
    ]


def _pair_row(pair: Pair, parts: Mapping[str, Dataset]) -> dict[str, Any]:
    row = {
        "first": f"{pair.first_part} {pair.first}",
        "second": f"{pair.second_part} {pair.second}",
        "correlation": pair.correlation,
        "exact": pair.exact,
    }
    for key, part, index in (("first_class", pair.first_part, pair.first), ("second_class", pair.second_part, pair.second)):
        row[key] = parts[part].class_names[int(_labels(parts[part])[index])] if part in parts else None
    return row


def _left_out(twice: Duplicates, pixels: Mapping[str, Tensor], num_measured: int | None) -> list[str]:
    """Return a line for each thing that was looked for among some of the images alone."""
    lines = []
    for part, images in pixels.items():
        hashed, sampled, num = twice.num_hashed[part], twice.num_sampled[part], len(images)
        if hashed < num:
            lines.append(f"exact copies were looked for among the first {hashed:,} of {num:,} {part} images")
        if sampled < num:
            lines.append(f"nearly equal images were looked for among {sampled:,} of {num:,} {part} images, a seeded sample")
    if num_measured is not None:
        lines.append(f"what the network gets is normalised by {num_measured:,} training images, a fixed sample")
    return lines


def _twins(twice: Duplicates, parts: Mapping[str, Dataset]) -> list[str]:
    """Return what opening the data says of validation images that are training images; of streamed ones it says nothing."""
    if "val" not in parts or not any(map(is_streamed, parts.values())):
        return []
    return twin_warnings(twice.num(exact=True)["train", "val"], len(parts["val"]))


def _warnings(twice: Duplicates, parts: Mapping[str, Dataset], classes: list[dict[str, Any]]) -> list[str]:
    found = []
    rows = [_pair_row(pair, parts) for pair in twice.exact]
    if quarrels := sum(None not in (row["first_class"], row["second_class"]) and row["first_class"] != row["second_class"] for row in rows):
        found.append(f"{quarrels:,} images have the same pixels as one of another class; one of the two labels is wrong")
    if leaks := sum(pair.second_part == "test" and pair.first_part != "test" for pair in twice.exact):
        found.append(f"{leaks:,} test images are training or validation images, pixel by pixel; test figures flatter")
    least, most = min(row["images"] for row in classes), max(row["images"] for row in classes)
    if least and most > 10 * least:
        found.append(
            f"the largest class has {most / least:.0f} times the images of the smallest; look at recall by class, not at accuracy alone"
        )
    return found


def _sentence(train: Dataset, classes: list[dict[str, Any]], twice: Duplicates, values: Mapping[str, float]) -> str:
    counts = [row["images"] for row in classes]
    each = f"{min(counts):,} each" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,} each"
    seen = f"the network gets values from {values['least']:.2f} to {values['greatest']:.2f}"
    return f"{len(train):,} training images in {len(classes)} classes, {each}; {_said_twice(twice)}; {seen}"


def _said_twice(twice: Duplicates) -> str:
    many, more = ("" if whole else "more than " for whole in (twice.all_exact, twice.complete))
    copies, pairs = len(twice.exact), len(twice.near)
    parts = " and ".join(filter(None, [", ".join([*twice.num_sampled][:-1]), [*twice.num_sampled][-1]]))
    same = f"{many}{copies:,} image{'s' * (copies != 1)} with an exact copy"
    return f"{same} and {more}{pairs:,} nearly equal pair{'s' * (pairs != 1)} in {parts}"


def print_data_look(result: dict[str, Any]) -> None:
    """Print what was found in a data set."""
    statistics, (channels, height, width) = result["statistics"], result["image_shape"]
    print(f"{result['source']}: {result['says']}\n")
    print(f"{channels} x {height} x {width} (channels x height x width), {result['dtype']}; {result['num_val']:,} more to validate")
    mean, std = (", ".join(f"{value:.4f}" for value in statistics[key]) for key in ("mean", "std"))
    print(f"pixels in [0, 1]: mean {mean}, deviation {std}, from {statistics['least']:.4f} to {statistics['greatest']:.4f}")
    print(f"images of one colour: {statistics['num_constant']:,} ({statistics['share_constant']:.2%})\n")
    print_table(result["classes"], ("class", "images", "share", "val", "brightness", "brightness_std"))
    print(f"\nthere twice (nearly: correlation of thumbnails {result['near_from']} or more)")
    print_table(result["duplicates"], ("parts", "same", "nearly"))
    for line in result["left_out"]:
        print(f"note: {line}")
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    print()
    for file in result["files"]:
        if not file.endswith(".svg"):
            print(file)
