"""Predictions of a run on one split: a sheet of images, a table with a row an image, and one image beside the bars of its classes."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.data.build import load_images
from firstlight.data.dataset import Dataset
from firstlight.engine.evaluate import predict_probabilities
from firstlight.engine.finished import spread
from firstlight.errors import ConfigError
from firstlight.files import write_bytes, write_pictures, write_stream
from firstlight.inspection.answers import Answers, answers_of, parse_classes
from firstlight.inspection.one_image import place_named
from firstlight.inspection.opened import Opened, opened
from firstlight.plotting.images import plot_class_bars, plot_nothing, plot_predictions
from firstlight.tracking.csv_table import csv_chunks
from firstlight.tracking.table import print_table

SHEET_SIZE = 20
ALL_CLASSES = 20
"""Up to so many classes the table holds the probabilities of all."""
BLOCK = 1000
"""Rows of the table that are written at once."""
SORTS = ("confident", "unsure", "loss")


def inspect_predictions(
    run: str | Path,
    *,
    split: str = "val",
    num: int = SHEET_SIZE,
    classes: str | None = None,
    only: str | None = None,
    sort: str | None = None,
    all_classes: bool = False,
    **places: Any,
) -> dict[str, Any]:
    """Draw `num` images of a split with true and predicted label, and write what the network says of every image as a table.

    classes: true classes to draw, such as `4,9`; only: `right` or `wrong` answers; sort: `confident` or `unsure` first, or by falling
    `loss`; unsorted, the images are spread evenly over the split. The table always has every image.
    """
    if num < 1:
        raise ConfigError(f"--num is {num}, allowed are 1 and more; leave it out for {SHEET_SIZE}")
    if only not in (None, "right", "wrong") or sort not in (None, *SORTS):
        raise ConfigError("--only is right or wrong, and --sort is confident, unsure or loss; correct the option")
    with opened(run, "predictions", split=split, **places) as o:
        chosen = None if classes is None else parse_classes(classes, o.dataset.class_names)
        answers = answers_of(o)
        found = _selected(answers, chosen, only)
        what = _describe(split, classes, only)
        shown = _ordered(answers, found, sort, num)
        says = f"{o.run.name}: {int(answers.correct.sum()):,} of {len(answers):,} {split} images right ({answers.correct.mean():.2%})"
        says += f"; {_shown(shown, found, what, sort)}" if classes or only or sort or len(shown) < len(found) else ""
        files = write_pictures(o.stem, _sheet(o.dataset, answers, shown, says, f"no {what}"))
        files += write_table(o.stem, answers, o.dataset.names, all_classes=all_classes)
        figures = {
            "says": says,
            "accuracy": float(answers.correct.mean()),
            "class_names": list(o.dataset.class_names),
            "selected": len(found),
            "predictions": [answers.row(index) for index in shown],
        }
        return o.keep(figures, files)


def inspect_image(run: str | Path, image: str, *, split: str = "val", **places: Any) -> dict[str, Any]:
    """Draw one image beside the probabilities of its classes: number `image` of a split (from 0), or an image file."""
    with opened(run, f"image_{int(image) if image.isdecimal() else Path(image).stem}", split=split, **places) as o:
        index = place_named(image, split, len(o.dataset))
        if index is None:
            return _look_at_file(o, Path(image))
        answers = answers_of(o, dataset=o.dataset.subset(torch.tensor([index])))
        row = {**answers.row(0), "index": index}
        verdict = "right" if row["right"] else f"true: {row['label']}"
        says = f"{split} image {index}: {row['predicted']} with probability {row['probability']:.3f} ({verdict})"
        return _keep_bars(o, o.dataset.pixels(index), answers.probabilities([0])[0], {"says": says, "image": image, **row})


def _look_at_file(o: Opened, path: Path) -> dict[str, Any]:
    images, found = load_images([path], o.dataset.image_shape, o.dataset.class_names)
    if len(images) != 1:
        raise ConfigError(f"--image {path} holds {len(found)} images; name one image file (several: `firstlight predict RUN {path}`)")
    values = predict_probabilities(o.model, o.loader(images), o.arithmetic, o.config.evaluation)[0].double().numpy()
    best = int(values.argmax())
    guess, probability = o.dataset.class_names[best], float(values[best])
    says = f"{path.name}: {guess} with probability {probability:.3f}"
    figures = {"says": says, "image": str(path), "predicted": guess, "probability": probability}
    return _keep_bars(replace(o, split="file"), images.pixels(0), values, figures)


def _keep_bars(o: Opened, pixels: Any, probabilities: NDArray[np.float64], figures: dict[str, Any]) -> dict[str, Any]:
    figure = plot_class_bars(pixels, o.dataset.class_names, probabilities.tolist(), title=figures["says"], label=figures.get("label"))
    named = dict(zip(o.dataset.class_names, probabilities.tolist(), strict=True))
    return o.keep({**figures, "num_images": 1, "probabilities": named}, write_pictures(o.stem, figure))


def _selected(answers: Answers, classes: Sequence[int] | None, only: str | None) -> NDArray[np.int64]:
    """Return the places of the images that the options leave, int64 [M], in the order of the split."""
    kept = np.ones(len(answers), bool) if classes is None else np.isin(answers.labels, classes)
    if only is not None:
        kept &= answers.correct == (only == "right")
    return np.flatnonzero(kept)


def _ordered(answers: Answers, found: NDArray[np.int64], sort: str | None, num: int) -> list[int]:
    """Return the first `num` of the places found, or so many spread evenly over them."""
    if not len(found):
        return []
    if sort is None:
        return found[spread(len(found), num).numpy()].tolist()  # type: ignore[no-any-return]
    key = {"confident": -answers.figures["probability"], "unsure": answers.figures["probability"], "loss": -answers.figures["loss"]}[sort]
    return found[np.argsort(key[found], kind="stable")][:num].tolist()  # type: ignore[no-any-return]


def _describe(split: str, classes: str | None, only: str | None) -> str:
    """Return what is selected, such as `wrong val images of class 4,9`."""
    return f"{only + ' ' if only else ''}{split} images{f' of class {classes}' if classes else ''}"


def _shown(shown: Sequence[int], found: NDArray[np.int64], what: str, sort: str | None) -> str:
    if not shown:
        return f"no {what} to show"
    order = {None: "spread evenly", "confident": "the most confident first", "unsure": "the least confident first", "loss": "worst first"}
    return f"{len(shown)} of {len(found):,} {what}, {order[sort]}"


def _sheet(dataset: Dataset, answers: Answers, shown: Sequence[int], title: str, nothing: str) -> Any:
    if not shown:
        return plot_nothing(nothing, title=title)
    names, rows = dataset.class_names, np.asarray(shown)
    labels, guesses = ([names[label] for label in of[rows]] for of in (answers.labels, answers.predicted))
    probabilities = answers.figures["probability"][rows].tolist()
    return plot_predictions([dataset.pixels(index) for index in shown], labels, guesses, probabilities, title=title)


def write_table(stem: Path, answers: Answers, names: Sequence[str] | None, *, all_classes: bool) -> list[Path]:
    """Write a row an image as `stem`.csv, and as `stem`.parquet where pyarrow is installed; return the paths.

    names: of the images' files, where they have any. The probabilities of all classes follow where they are few, or asked for.
    """
    wide = all_classes or len(answers.class_names) <= ALL_CLASSES
    table = stem.with_name(f"{stem.name}.csv")
    write_stream(table, csv_chunks(_rows(answers, names, wide=wide)))
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return [table]
    columns = _columns(answers, names)
    if wide:
        rows = answers.probabilities(np.arange(len(answers)))
        columns |= {f"p_{name}": rows[:, place] for place, name in enumerate(answers.class_names)}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    path = stem.with_name(f"{stem.name}.parquet")
    write_bytes(path, buffer.getvalue())
    return [table, path]


def _columns(answers: Answers, names: Sequence[str] | None) -> dict[str, Any]:
    """Return the columns of the table but those of the single classes."""
    classes = np.array(answers.class_names, dtype=object)
    columns: dict[str, Any] = {"index": np.arange(len(answers))}
    if names is not None:
        columns["path"] = list(names)
    columns |= {"label": classes[answers.labels].tolist(), "predicted": classes[answers.predicted].tolist(), "right": answers.correct}
    return columns | answers.figures


def _rows(answers: Answers, names: Sequence[str] | None, *, wide: bool) -> Iterator[list[Any]]:
    columns = _columns(answers, names)
    yield [*columns, *([f"p_{name}" for name in answers.class_names] if wide else [])]
    for start in range(0, len(answers), BLOCK):
        end = min(start + BLOCK, len(answers))
        rows = zip(*(_plain(values[start:end]) for values in columns.values()), strict=True)
        probabilities = answers.probabilities(np.arange(start, end)).tolist() if wide else [[]] * (end - start)
        for row, values in zip(rows, probabilities, strict=True):
            yield [*row, *values]


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def print_inspected_predictions(result: dict[str, Any]) -> None:
    """Print the images of the sheet, what was found, and the files."""
    if result["predictions"]:
        print_table(result["predictions"], ("index", "label", "predicted", "probability", "label_probability", "loss", "margin", "entropy"))
        print()
    print_found(result)


def print_image(result: dict[str, Any]) -> None:
    """Print the likeliest classes of one image."""
    likeliest = sorted(result["probabilities"].items(), key=lambda item: -item[1])[:5]
    print_table([{"class": name, "probability": value} for name, value in likeliest], ("class", "probability"))
    print()
    print_found(result)


def print_found(result: dict[str, Any]) -> None:
    """Print the sentence of a finding, and its files."""
    print(result["says"])
    for file in result["files"]:
        print(file)
