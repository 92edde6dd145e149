"""The answers of an exported file on images, as `engine.predict` gives those of a run; an ONNX file needs no torch for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.data.image_files import find_images, read_pixels
from firstlight.engine.answering import check_top, give_answers
from firstlight.engine.answers import Predictions, check_suffix
from firstlight.errors import CheckpointError, ConfigError, DataError
from firstlight.export.reader import BATCH_SIZE, Exported, Reader
from firstlight.export.suffixes import SUFFIXES
from firstlight.files import sha256, sha256_of_file
from firstlight.tracking.console import Console


def open_exported(path: str | Path, *, trust_code: bool = False) -> Exported:
    """Return an exported file, ready to be asked. Raises CheckpointError, and ConfigError for one that is code and is not trusted."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path} ends in none of {', '.join(SUFFIXES)}; name a run, or a file that `firstlight export` wrote")
    if not path.is_file():
        raise CheckpointError(f"{path} is not there, or is no file; name a run, or a file that `firstlight export` wrote")
    if suffix == ".onnx":
        return Reader(path)
    if suffix == ".safetensors":
        from firstlight.export.weights_file import WeightsReader

        return WeightsReader(path)
    from firstlight.export.torch_files import Pt2Reader, TorchScriptReader, check_trusted, is_torchscript

    if suffix == ".pt" and not is_torchscript(path):
        raise CheckpointError(
            f"{path} is no TorchScript file; where it holds weights, start a training from them with train.init_from={path}"
        )
    check_trusted(path, trust_code=trust_code)
    return Pt2Reader(path) if suffix == ".pt2" else TorchScriptReader(path)


def predict_with_file(
    path: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    top: int | None = None,
    trust_code: bool = False,
    console: Console | None = None,
) -> Predictions:
    """Return, for each image, its most probable class and the probability of every class, by an exported file.

    images: files or folders, converted to the channels and the size that the file takes, or one .csv of pixels.
    out: also write a table; a killed prediction goes on from the rows that stand beside it. top: keep so many classes of an image.
    """
    if out is not None:
        check_suffix(Path(out))
    if not images:
        raise ConfigError("no image was named; give image files or folders, or one .csv of pixels")
    exported = open_exported(path, trust_code=trust_code)
    check_top(top, len(exported.class_names))
    question = _Question(exported, *_images([Path(image) for image in images]))
    what = partial(question.identity, top)
    return give_answers(question, what, out=None if out is None else Path(out), top=top, console=console or Console(quiet=True))


@dataclass(frozen=True)
class _Question:
    """An exported file, and image files or the CSV of pixels that it is asked about."""

    exported: Exported
    paths: Sequence[Path]
    table: Path | None

    batch_size = BATCH_SIZE

    def __len__(self) -> int:
        return self._num_images

    @cached_property
    def _num_images(self) -> int:
        if self.table is None:
            return len(self.paths)
        from firstlight.data.kaggle_digits import count_rows

        if not (num := count_rows(self.table)):
            raise DataError(f"{self.table} has no rows below its header; download it again")
        return num

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.exported.class_names

    def name(self, index: int) -> str:
        return str(self.paths[index]) if self.table is None else f"{self.table}[{index}]"

    def probabilities(self, start: int = 0) -> Iterator[NDArray[np.float32]]:
        for images in self._batches(start):
            yield self.exported.probabilities(images)

    def identity(self, top: int | None) -> dict[str, Any]:
        """Return what tells this question from another."""
        files = [self.table] if self.table else self.paths
        stats = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()
        ]  # what is missing is told by name below
        images = sha256(*(f"{stat}\n".encode(errors="backslashreplace") for stat in stats))
        return {"file": sha256_of_file(self.exported.path), "images": images, "num_images": len(self), "top": top}

    def _batches(self, start: int) -> Iterator[NDArray[np.uint8]]:
        if self.table is None:
            for first in range(start * BATCH_SIZE, len(self.paths), BATCH_SIZE):
                yield read_pixels(self.paths[first : first + BATCH_SIZE], self.exported.image_shape)
            return
        for number, rows in enumerate(_regrouped(self._rows())):
            if number >= start:
                yield rows

    def _rows(self) -> Iterator[NDArray[np.uint8]]:
        from firstlight.data.kaggle_digits import read_pixels as read_table

        assert self.table is not None
        for block in read_table(self.table):
            rows = block.numpy()
            if rows.shape[1:] != self.exported.image_shape:
                sizes = [" x ".join(map(str, shape)) for shape in (rows.shape[1:], self.exported.image_shape)]
                raise DataError(f"{self.table}: its images are {sizes[0]}, and {self.exported.path} takes {sizes[1]}; name image files")
            yield rows


def _regrouped(blocks: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of the blocks anew, a batch at a time."""
    rest: NDArray[np.uint8] | None = None
    for block in blocks:
        rows = block if rest is None else np.concatenate([rest, block])
        whole = len(rows) // BATCH_SIZE * BATCH_SIZE
        yield from (rows[first : first + BATCH_SIZE] for first in range(0, whole, BATCH_SIZE))
        rest = rows[whole:]
    if rest is not None and len(rest):
        yield rest


def _images(paths: Sequence[Path]) -> tuple[Sequence[Path], Path | None]:
    """Return the image files that are named, or the CSV."""
    tables = [path for path in paths if path.suffix.lower() == ".csv" and not path.is_dir()]
    if tables and len(paths) > 1:
        raise ConfigError(f"{tables[0]} is a CSV of pixels and stands beside other images; name it alone, and predict the others apart")
    return (paths, tables[0]) if tables else (find_images(paths), None)
