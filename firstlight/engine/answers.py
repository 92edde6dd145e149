"""What a run answered, image by image, as it is kept on the disk while it grows and as the table that comes of it.

Reading order: Predictions, kept_answers, write_answers.
"""

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ConfigError
from firstlight.files import append_chunks, remove, write_json, write_stream
from firstlight.tracking.csv_table import harmless

Row = dict[str, Any]
SUFFIXES = (".csv", ".csv.gz", ".json", ".npy", ".parquet")
BLOCK = 8192
"""Rows that are turned into text at once."""


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Row]):
    """The answers to N images: rows with `image`, `label`, `probability` and all `probabilities`, each made when it is asked for.

    name: what an image is called. probabilities: float32 [N, num_classes]; of the most probable classes alone it is [N, top], by falling
    probability, and `classes` int32 [N, top] says which those are.
    """

    name: Callable[[int], str]
    class_names: Sequence[str]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        values = self.probabilities[place].tolist()
        names = self.class_names if self.classes is None else [self.class_names[label] for label in self.classes[place]]
        best = max(range(len(values)), key=values.__getitem__)
        row = {"image": self.name(place), "label": names[best], "probability": values[best]}
        return row if len(values) == 1 and self.classes is not None else row | {"probabilities": dict(zip(names, values, strict=True))}

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, Predictions) else other)

    __hash__ = None  # type: ignore[assignment]

    def labels(self) -> NDArray[np.int64]:
        """Return the most probable class of each image, int64 [N]."""
        return (self.probabilities.argmax(1) if self.classes is None else self.classes[:, 0]).astype(np.int64)


def row_type(num_classes: int, top: int | None) -> np.dtype[Any]:
    """Return how the answers to one image lie on the disk."""
    if top is None:
        return np.dtype(("<f4", (num_classes,)))
    return np.dtype([("classes", "<i4", (top,)), ("probabilities", "<f4", (top,))])


def as_rows(probabilities: NDArray[np.float32], top: int | None) -> NDArray[Any]:
    """Return a batch of probabilities float32 [B, num_classes] as it is kept: all of them, or the `top` greatest with their classes."""
    if top is None:
        return probabilities.astype("<f4", copy=False)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    rows = np.empty(len(probabilities), row_type(probabilities.shape[1], top))
    rows["classes"], rows["probabilities"] = order, np.take_along_axis(probabilities, order, 1)
    return rows


def as_predictions(rows: NDArray[Any], top: int | None, name: Callable[[int], str], class_names: Sequence[str]) -> Predictions:
    """Return rows of `as_rows` as predictions."""
    if top is None:
        return Predictions(name, class_names, rows)
    return Predictions(name, class_names, rows["probabilities"], rows["classes"])


# The answers so far


def parts_of(out: Path) -> tuple[Path, Path]:
    """Return the two files beside a table that hold what a killed prediction had: its rows, and what they are of."""
    return out.with_name(out.name + ".part"), out.with_name(out.name + ".part.json")


def rows_so_far(out: Path, what: dict[str, Any], kind: np.dtype[Any], num_classes: int) -> int:
    """Return how many whole rows of the same question a killed prediction left; 0 where it was another one, or they are damaged.

    Where there is nothing to go on with, the question is written down.
    """
    path, about = parts_of(out)
    try:
        num = path.stat().st_size // kind.itemsize if json.loads(about.read_text(encoding="utf-8")) == what else 0
    except (OSError, ValueError):
        num = 0
    if num and _are_sound(np.memmap(path, kind.base, "r", shape=(num, *kind.shape)), num_classes):
        return num
    write_json(about, what)
    return 0


def _are_sound(rows: NDArray[Any], num_classes: int) -> bool:
    """Tell whether rows are probabilities all through, and no zeros that a power cut left."""
    if rows.dtype.names is None:
        return all(bool((np.abs(block.sum(1) - 1) < 1e-2).all()) for block in np.array_split(rows, len(rows) // BLOCK + 1))
    return bool(
        ((rows["classes"] >= 0) & (rows["classes"] < num_classes)).all() and (rows["probabilities"][:, 0] >= 0.9 / num_classes).all()
    )


def append_rows(out: Path, start: int, kind: np.dtype[Any], batches: Iterator[NDArray[Any]]) -> NDArray[Any]:
    """Append batches of rows behind the first `start`, each handed to the disk at once, and return all rows, read from there."""
    path, _ = parts_of(out)
    append_chunks(path, start * kind.itemsize, (np.ascontiguousarray(batch).tobytes() for batch in batches))
    num = path.stat().st_size // kind.itemsize
    rows = np.memmap(path, kind.base, "r", shape=(num, *kind.shape))
    return np.array(rows) if os.name == "nt" else rows  # Windows deletes no file that is mapped


def remove_parts(out: Path) -> None:
    """Delete what was kept for a kill."""
    for path in parts_of(out):
        remove(path)


# Tables


def check_suffix(out: Path) -> None:
    """Raise ConfigError for a table of no kind, or one that needs a package which is not here."""
    if not out.name.endswith(SUFFIXES):
        raise ConfigError(f"--out {out} ends in none of {', '.join(SUFFIXES)}; name the table by its kind")
    if out.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(f'--out {out} needs pyarrow; pip install "firstlight[parquet]", or choose .csv') from None
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it, such as {out / 'answers.csv'}")


def write_answers(out: Path, found: Predictions) -> None:
    """Write predictions as a table of the kind that the suffix names, in one step, a block of rows at a time.

    .csv, .csv.gz and .parquet have the columns image, label, probability, and one for each class (or label_2, probability_2, ...);
    .npy has the probabilities float32 [N, num_classes], or, of the most probable classes alone, those int64 [N] or [N, top].
    """
    kinds = {".json": _json, ".npy": _npy, ".parquet": _parquet, ".gz": _compressed, ".csv": _csv}
    write_stream(out, kinds[out.suffix](found))


def _blocks(found: Predictions) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the first place, the labels [M], their probabilities [M] and all that is kept [M, K] of each block of rows."""
    for first in range(0, len(found), BLOCK):
        values = np.asarray(found.probabilities[first : first + BLOCK])
        best = values.argmax(1)
        labels = best if found.classes is None else np.asarray(found.classes[first : first + BLOCK, 0], np.int64)
        yield first, labels, values[np.arange(len(values)), best], values


def _columns(found: Predictions) -> list[str]:
    if found.classes is None:
        return ["image", "label", "probability", *found.class_names]
    others = range(2, found.classes.shape[1] + 1)
    return ["image", "label", "probability", *(f"{what}_{place}" for place in others for what in ("label", "probability"))]


def _csv(found: Predictions) -> Iterator[bytes]:
    """100,000 rows of 10 classes take half a second where csv.writer takes two: numbers need no quotes."""
    yield (",".join(map(_quoted, _columns(found))) + "\n").encode(errors="backslashreplace")
    words = [_quoted(name) for name in found.class_names]
    for first, labels, best, values in _blocks(found):
        num, width = values.shape
        pairs = enumerate(zip(labels.tolist(), best.tolist(), strict=True), first)
        heads = [f"{_quoted(found.name(place))},{words[label]},{top:.6f}" for place, (label, top) in pairs]
        if found.classes is None:
            line = "%.6f," * (width - 1) + "%.6f"
            tails = ["," + line % tuple(row) for row in values.tolist()]
        else:
            others = found.classes[first : first + num]
            more = zip(others[:, 1:].tolist(), values[:, 1:].tolist(), strict=True)
            tails = ["".join(f",{words[label]},{value:.6f}" for label, value in zip(*row, strict=True)) for row in more]
        yield ("\n".join(map(str.__add__, heads, tails)) + "\n").encode(errors="backslashreplace")


def _quoted(name: str) -> str:
    text = harmless(name)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') or text != text.strip() else text


def _compressed(found: Predictions) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed:
        for chunk in _csv(found):
            packed.write(chunk)
            yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.BytesIO) -> bytes:
    content = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return content


def _json(found: Predictions) -> Iterator[bytes]:
    for first in range(0, len(found), BLOCK):
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found[first : first + BLOCK])
        yield (("[\n" if first == 0 else ",\n") + lines).encode(errors="backslashreplace")
    yield b"\n]\n"


def _npy(found: Predictions) -> Iterator[bytes]:
    if found.classes is None:
        shape: tuple[int, ...] = found.probabilities.shape
        kind, values = "<f4", found.probabilities
    else:
        one = found.classes.shape[1] == 1
        shape, kind = (found.classes.shape[:1] if one else found.classes.shape), "<i8"
        values = found.classes  # type: ignore[assignment]
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    yield head.getvalue()
    for first in range(0, len(found), BLOCK):
        yield np.ascontiguousarray(values[first : first + BLOCK], kind).tobytes()


def _parquet(found: Predictions) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    texts = [True, True, False] + (
        [False] * len(found.class_names) if found.classes is None else [True, False] * (found.classes.shape[1] - 1)
    )
    fields = zip(_columns(found), texts, strict=True)
    schema = pa.schema([(name, pa.string() if is_text else pa.float32()) for name, is_text in fields])
    buffer = io.BytesIO()
    sink = pa.PythonFile(_Tape(buffer), mode="w")
    with ParquetWriter(sink, schema) as writer:
        for first, labels, best, values in _blocks(found):
            names = [found.name(place) for place in range(first, first + len(values))]
            arrays: list[Any] = [names, [found.class_names[label] for label in labels], best]
            if found.classes is None:
                arrays += list(np.ascontiguousarray(values.T))
            else:
                for place in range(1, values.shape[1]):
                    arrays += [[found.class_names[label] for label in found.classes[first : first + len(values), place]], values[:, place]]
            writer.write_table(pa.table([pa.array(array, field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema))
            yield _taken(buffer)
    yield _taken(buffer)


class _Tape(io.RawIOBase):
    """A stream that only grows: it knows how much went through, whoever empties the buffer behind it."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer, self._place = buffer, 0

    def writable(self) -> bool:
        """It is there to be written."""
        return True

    def tell(self) -> int:
        """Return the bytes that went through."""
        return self._place

    def write(self, content: Any) -> int:
        """Take bytes."""
        num = self._buffer.write(content)
        self._place += num
        return num
