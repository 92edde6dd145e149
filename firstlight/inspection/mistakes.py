"""What a network gets wrong, worst first and by confusion, with what may explain it: the nearest training images, the pixels that count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.data.dataset import Dataset
from firstlight.errors import ConfigError
from firstlight.files import write_pictures, write_stream
from firstlight.inspection.answers import Answers, answers_of, parse_classes
from firstlight.inspection.neighbours import Neighbours, nearest
from firstlight.inspection.opened import Opened, opened
from firstlight.inspection.penultimate import feature_batches, features_of
from firstlight.inspection.predictions import print_found
from firstlight.inspection.saliency import saliency_of
from firstlight.plotting.images import plot_nothing
from firstlight.plotting.mistakes import plot_mistakes
from firstlight.tracking.csv_table import csv_chunks
from firstlight.tracking.table import print_table

NUM_SHOWN, MOST_SHOWN = 20, 200
NUM_NEAREST, NUM_DRAWN = 5, 3
"""Nearest training images that are found for each mistake, and those of them that are drawn."""
MOST_LOOKED_AT = 1000
"""Mistakes, the worst ones, whose nearest training images are looked for."""
SHOWN_PAIRS = 10

Row = dict[str, Any]


def inspect_mistakes(
    run: str | Path, *, split: str = "val", num: int = NUM_SHOWN, pair: str | None = None, saliency: str = "smooth", **places: Any
) -> Row:
    """Draw the `num` mistakes of the largest loss, those of the most frequent confusion first, and list all mistakes in a table.

    Each comes with the training images nearest to it in the penultimate layer and a saliency map. A label is doubted where all NUM_NEAREST
    nearest training images are of the predicted class, and the network is surer of that than of half its right answers. Of 125 labels
    that were changed among MNIST's 6,000, a network right on 92 % doubted 76, of which 62 were changed ones; one right on 99.8 %
    doubted 17 of 30, all changed ones.
    pair: one confusion alone, such as `4,9` for images of class 4 that are taken for 9; saliency: `smooth` or `gradient`.
    """
    if not 1 <= num <= MOST_SHOWN:
        raise ConfigError(f"--num is {num}, allowed are 1..{MOST_SHOWN}; the table has all mistakes, so leave it out for {NUM_SHOWN}")
    if saliency not in ("smooth", "gradient"):
        raise ConfigError(f"--saliency is {saliency!r}, allowed are smooth and gradient; correct it")
    with opened(run, "mistakes", split=split, **places) as o:
        wanted = None if pair is None else _parse_pair(pair, o.dataset.class_names)
        answers = answers_of(o)
        worst = _worst_first(answers)
        pairs = confused_pairs(answers)
        shown = _grouped(answers, [index for index in worst if wanted in (None, _pair_of(answers, index))][:num], pairs)
        looked_at = list(dict.fromkeys([*shown, *worst[:MOST_LOOKED_AT]]))
        training = o.training_images() if worst else o.dataset
        rows = {row["index"]: row for row in _with_neighbours(o, answers, looked_at, training)}
        says = _says(o, answers, pairs, rows, pair)
        drawn = [rows[index] for index in shown]
        files = write_pictures(o.stem, _draw(o, drawn, training, says, pair, smooth=saliency == "smooth"))
        files.append(_write_table(o.stem, (rows[index] if index in rows else answers.row(index) for index in worst)))
        figures = {
            "says": says,
            "num_mistakes": len(worst),
            "class_names": list(o.dataset.class_names),
            "pairs": pairs,
            "mistakes": drawn,
            "possible_label_errors": [row["index"] for row in rows.values() if row["possible_label_error"]],
            "looked_at": len(looked_at),
        }
        return o.keep(figures, files)


def confused_pairs(answers: Answers) -> list[Row]:
    """Return a row for each pair of classes that are taken for each other, most frequent first, with its share of the true class."""
    num_classes = len(answers.class_names)
    cells = np.bincount(answers.labels * num_classes + answers.predicted, minlength=num_classes**2)
    counts = cells.reshape(num_classes, num_classes)
    off = counts * ~np.eye(num_classes, dtype=bool)
    order = np.argsort(-off, axis=None, kind="stable")[: int((off > 0).sum())]
    return [
        {
            "label": answers.class_names[label],
            "predicted": answers.class_names[guess],
            "images": int(off[label, guess]),
            "share": float(off[label, guess] / counts[label].sum()),
        }
        for label, guess in (divmod(int(cell), num_classes) for cell in order)
    ]


def describe_pair(row: Row) -> str:
    """Return `4 taken for 9 (18 images)`."""
    return f"{row['label']} taken for {row['predicted']} ({row['images']:,} image{'s' * (row['images'] > 1)})"


def _parse_pair(text: str, class_names: tuple[str, ...]) -> tuple[str, str]:
    labels = parse_classes(text, class_names, option="--pair")
    if len(labels) != 2 or labels[0] == labels[1]:
        raise ConfigError(f"--pair is {text}; name two classes, the true one first, such as --pair {','.join(class_names[:2])}")
    return class_names[labels[0]], class_names[labels[1]]


def _pair_of(answers: Answers, index: int) -> tuple[str, str]:
    return answers.class_names[answers.labels[index]], answers.class_names[answers.predicted[index]]


def _worst_first(answers: Answers) -> list[int]:
    """Return the places of all mistakes by falling loss."""
    wrong = np.flatnonzero(~answers.correct)
    return wrong[np.argsort(-answers.figures["loss"][wrong], kind="stable")].tolist()  # type: ignore[no-any-return]


def _grouped(answers: Answers, chosen: list[int], pairs: list[Row]) -> list[int]:
    """Return mistakes with those of one confusion together, the most frequent confusion first; within it the order stays."""
    rank = {(row["label"], row["predicted"]): place for place, row in enumerate(pairs)}
    return sorted(chosen, key=lambda index: rank[_pair_of(answers, index)])


def _with_neighbours(o: Opened, answers: Answers, indices: list[int], training: Dataset) -> list[Row]:
    """Return what is known of each mistake with its nearest training images, and whether its label is doubted."""
    if not indices:
        return []
    places = torch.tensor(indices)
    assert training.labels is not None
    queries = features_of(o.model, o.loader(o.dataset.subset(places)), o.arithmetic)
    blocks = ((features, batch.indices) for features, _, batch in feature_batches(o.model, o.loader(training), o.arithmetic))
    near = nearest(queries, blocks, num=NUM_NEAREST, left_out=places if o.split == "train" else None)
    labels = training.labels[near.indices]
    sure = float(np.median(answers.figures["probability"][answers.correct])) if answers.correct.any() else 1.0
    return [_row(answers, index, near, labels, place, sure) for place, index in enumerate(indices)]


def _row(answers: Answers, index: int, near: Neighbours, labels: torch.Tensor, place: int, sure: float) -> Row:
    row, names = answers.row(index), answers.class_names
    columns = (near.indices[place].tolist(), labels[place].tolist(), near.similarity[place].tolist())
    neighbours = [
        {"index": other, "label": names[label], "similarity": similarity} for other, label, similarity in zip(*columns, strict=True)
    ]
    agree = bool(neighbours) and all(other["label"] == row["predicted"] for other in neighbours)
    return {**row, "neighbours": neighbours, "possible_label_error": agree and row["probability"] >= sure}


def _draw(o: Opened, rows: list[Row], training: Dataset, says: str, pair: str | None, *, smooth: bool) -> Any:
    if not rows:
        return plot_nothing(f"no {o.split} image is wrong" if pair is None else f"no mistake of the kind {pair}", title=says)
    shown = o.dataset.subset(torch.tensor([row["index"] for row in rows]))
    maps = saliency_of(o.model, o.loader(shown), smooth=smooth).numpy()
    mistakes = [_picture(row, shown.pixels(place), maps[place], training) for place, row in enumerate(rows)]
    first = f"; the {len(rows)} of the largest loss, by confusion" if len(rows) > 1 else ""
    return plot_mistakes(mistakes, title=f"{says}{first}")


def _picture(row: Row, image: Any, saliency: NDArray[np.float32], training: Dataset) -> Row:
    drawn = row["neighbours"][:NUM_DRAWN]
    return {
        **row,
        "image": image,
        "neighbours": [training.pixels(other["index"]) for other in drawn],
        "neighbour_labels": [other["label"] for other in drawn],
        "neighbour_similarity": [other["similarity"] for other in drawn],
        "saliency": saliency,
        "suspect": row["possible_label_error"],
    }


def _says(o: Opened, answers: Answers, pairs: list[Row], rows: dict[int, Row], pair: str | None) -> str:
    num = int((~answers.correct).sum())
    if num == 0:
        return f"{o.run.name}: all {len(answers):,} {o.split} images are right"
    says = f"{o.run.name}: {num:,} of {len(answers):,} {o.split} images wrong ({num / len(answers):.2%})"
    says += f", most often {describe_pair(pairs[0])}"
    if pair is not None:
        label, guess = _parse_pair(pair, answers.class_names)
        found = next((row["images"] for row in pairs if (row["label"], row["predicted"]) == (label, guess)), 0)
        says += f"; {label} taken for {guess}: {found:,}"
    suspects = sum(row["possible_label_error"] for row in rows.values())
    return f"{says}; {suspects:,} label{'s' * (suspects > 1)} worth checking" if suspects else says


def _write_table(stem: Path, rows: Iterator[Row]) -> Path:
    """Write all mistakes, worst first, as `stem`.csv; a row is made when it is written."""
    path = stem.with_name(f"{stem.name}.csv")
    write_stream(path, csv_chunks(_cells(rows)))
    return path


def _cells(rows: Iterator[Row]) -> Iterator[list[Any]]:
    keys = ("index", "label", "predicted", "probability", "label_probability", "loss", "margin", "entropy")
    near = [f"nearest{place}_{what}" for place in range(1, NUM_NEAREST + 1) for what in ("index", "label", "similarity")]
    yield [*keys, "possible_label_error", *near]
    for row in rows:
        others = [value for other in row.get("neighbours", ()) for value in (other["index"], other["label"], other["similarity"])]
        yield [*(row[key] for key in keys), row.get("possible_label_error"), *others]


def print_mistakes(result: Row) -> None:
    """Print the most frequent confusions, the mistakes that were drawn, and advice."""
    if result["pairs"]:
        print_table(result["pairs"][:SHOWN_PAIRS], ("label", "predicted", "images", "share"))
        if len(result["pairs"]) > SHOWN_PAIRS:
            print(f"{len(result['pairs']) - SHOWN_PAIRS:,} more kinds of confusion in {result['files'][-1]}")
        print()
        shown = [row | {"nearest": ", ".join(other["label"] for other in row["neighbours"])} for row in result["mistakes"]]
        print_table(shown, ("index", "label", "predicted", "probability", "label_probability", "loss", "nearest"))
        print()
    if suspects := result["possible_label_errors"]:
        listed = ", ".join(f"{index:,}" for index in suspects[:SHOWN_PAIRS]) + (", ..." if len(suspects) > SHOWN_PAIRS else "")
        print(f"worth checking, the label of image {listed}:")
        print("the network is very sure of another class, and all nearest training images are of that one; the label may be wrong, or the")
        print("image unlike those that it was trained on")
    print_found(result)
