"""The images behind a confusion matrix, as the picture that `inspect confusion` keeps of them."""

import gzip
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from firstlight.inspection import cells
from firstlight.inspection.answers import Answers, answers_of
from firstlight.inspection.confusion import inspect_confusion
from firstlight.inspection.opened import opened

Pixels = np.ndarray[Any, Any]


def tile(sheet: Pixels, kept: dict[str, Any], place: int) -> Pixels:
    """Cut one thumbnail out, as a page does."""
    height, width = kept["tile_height"], kept["tile_width"]
    row, column = divmod(place, kept["columns"])
    return sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]


def test_each_thumbnail_is_its_image(trained_run: Callable[[str], Path]) -> None:
    """F5: pixel for pixel, in the cell that the matrix counts it in; of few mistakes every one is kept."""
    run = trained_run("plain")
    found = inspect_confusion(run)
    kept = found["cells"]
    with Image.open(run / "inspection" / kept["picture"]) as image:
        sheet = np.asarray(image)
    with opened(run, "test") as o:
        for place, index in enumerate(kept["index"]):
            np.testing.assert_array_equal(tile(sheet, kept, place), o.dataset.pixels(index))
        predicted, labels = answers_of(o).predicted, answers_of(o).labels
    assert kept["predicted"] == predicted[kept["index"]].tolist() and kept["label"] == labels[kept["index"]].tolist()
    counted = Counter(zip(kept["label"], kept["predicted"], strict=True))
    for label, row in enumerate(found["confusion"]):
        for guess, count in enumerate(row):
            assert counted[label, guess] == (min(count, cells.RIGHT_A_CLASS) if label == guess else count)
    assert kept["picture"] not in {Path(file).name for file in found["files"]}


def confused(pairs: list[tuple[int, int]]) -> Answers:
    """Answers with these labels and predictions, each surer than the one before."""
    logits = np.zeros((len(pairs), 3), np.float32)
    for place, (_, guess) in enumerate(pairs):
        logits[place, guess] = 1 + place / 100
    return Answers(logits, np.array([label for label, _ in pairs]), ("a", "b", "c"))


def test_where_not_all_fit_every_cell_has_its_worst() -> None:
    """A rare confusion is not crowded out by a frequent one, and half of the room at most is for right answers."""
    answers = confused([(0, 1)] * 50 + [(2, 0)] * 2 + [(1, 1)] * 20)
    chosen = cells._chosen(answers, 12)
    told = [(int(answers.labels[index]), int(answers.predicted[index])) for index in chosen]
    assert Counter(told) == {(0, 1): 4, (2, 0): 2, (1, 1): 6}
    assert [index for index in chosen if answers.labels[index] == 0] == [49, 48, 47, 46]  # the surest are the worst mistakes
    assert [index for index in chosen if answers.labels[index] == 1] == [52, 53, 54, 55, 56, 57]  # the least sure right answers


@pytest.mark.parametrize("shape", [(90, 50), (300, 300, 3), (5, 9)])
def test_large_and_long_images_become_thumbnails(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 77, np.uint8)
    sheet = cells._sheet([pixels, pixels], (64, 36))
    assert sheet.shape[:2] == (64, 36 * cells.COLUMNS)
    assert (sheet[:, :72] == 77).all() and not sheet[:, 72:].any()


def test_a_full_sheet_of_mnist_is_below_a_megabyte(shared_data: Path) -> None:
    """The most that is kept of MNIST's test images, 1,275 of them."""
    content = gzip.decompress((shared_data / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    most = cells.MAX_PIXELS // (28 * 28)
    assert most == 1275
    png = cells._png(cells._sheet(list(images[:most]), (28, 28)))
    assert len(png) < 1_000_000
    with Image.open(BytesIO(png)) as image:
        assert image.mode == "L"
