"""The images behind a confusion matrix as one small picture, so that a page shows them without the data set.

Reading order: write_cells.
"""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.files import write_bytes

if TYPE_CHECKING:
    from firstlight.inspection.answers import Answers
    from firstlight.inspection.opened import Opened

LARGEST_TILE = 64
"""Pixels along the longer side of a thumbnail; larger images are made smaller."""
MAX_PIXELS = 1_000_000
"""Pixels of all thumbnails together: 1,275 images of MNIST, 976 of CIFAR-10."""
RIGHT_A_CLASS = 12
"""Right answers that are kept of each class, the least sure ones."""
COLUMNS = 32

Row = dict[str, Any]


def write_cells(o: "Opened", answers: "Answers") -> Row:
    """Write thumbnails of the images in the cells of the matrix as `stem`-cells.png; return how they lie in it.

    Row by row, `columns` in a row; `index` is the place of each image in the split, `label` and `predicted` count classes.
    Every cell gets its worst mistakes, in turn until MAX_PIXELS are used up; of right answers, RIGHT_A_CLASS of each class.
    """
    height, width = o.dataset.image_shape[1:]
    scale = min(1.0, LARGEST_TILE / max(height, width))
    tile = (max(1, round(height * scale)), max(1, round(width * scale)))
    chosen = _chosen(answers, MAX_PIXELS // (tile[0] * tile[1]))
    sheet = _sheet([o.dataset.pixels(index) for index in chosen], tile)
    path = o.stem.with_name(f"{o.stem.name}-cells.png")
    write_bytes(path, _png(sheet))
    places = np.array(chosen, dtype=np.int64)
    return {
        "picture": path.name,
        "columns": COLUMNS,
        "tile_height": tile[0],
        "tile_width": tile[1],
        "index": chosen,
        "label": answers.labels[places].tolist(),
        "predicted": answers.predicted[places].tolist(),
        "probability": answers.figures["probability"][places].round(4).tolist(),
    }


def _chosen(answers: "Answers", most: int) -> list[int]:
    """Return the places of the images to keep: the worst mistakes of each cell in turn, then the least sure right answers."""
    order = np.argsort(-answers.figures["loss"], kind="stable")
    wrong: dict[tuple[int, int], list[int]] = {}
    right: dict[int, list[int]] = {}
    for index in order.tolist():
        label, guess = int(answers.labels[index]), int(answers.predicted[index])
        if label != guess:
            wrong.setdefault((label, guess), []).append(index)
        elif len(right.setdefault(label, [])) < RIGHT_A_CLASS:
            right[label].append(index)
    kept_right = list(_in_turn(list(right.values())))[: most // 2]
    kept_wrong = list(_in_turn(list(wrong.values())))[: most - len(kept_right)]
    return kept_wrong + kept_right


def _in_turn(groups: Sequence[Sequence[int]]) -> Iterator[int]:
    """Yield the first of each group, then the second of each, and so on."""
    for place in range(max(map(len, groups), default=0)):
        yield from (group[place] for group in groups if place < len(group))


def _sheet(images: Sequence[NDArray[np.uint8]], tile: tuple[int, int]) -> NDArray[np.uint8]:
    """Return images as tiles of one picture, row by row, COLUMNS in a row; uint8 [H, W] or [H, W, 3]."""
    from PIL import Image

    height, width = tile
    channels = images[0].shape[2:] if images else ()
    sheet = np.zeros((max(-(-len(images) // COLUMNS), 1) * height, COLUMNS * width, *channels), np.uint8)
    for place, pixels in enumerate(images):
        row, column = divmod(place, COLUMNS)
        if pixels.shape[:2] != tile:
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = pixels
    return sheet


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
