"""Parquet shards with encoded images in a column. A row group is what can be read by itself; several small ones are read at once.

Shards are looked into by a child process (parquet_probe.py); images are read by pyarrow, on no thread of its own.
Reading order: look_into_parquets, blocks_of_groups, read_parquets.
"""

import importlib.util
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.data.probe import ask_child
from firstlight.data.shard_index import Contents, ShardIndex
from firstlight.data.stored import Rows, check_unchanged
from firstlight.errors import DataError

SHARDS_A_LOOK = 64
"""Shards that one child looks into: its start takes longer than they do."""


@dataclass(frozen=True)
class Block:
    """Row groups of one shard that are read at once; first, last: the rows of all shards that they hold."""

    shard: int
    groups: tuple[int, ...]
    first: int
    last: int


def look_into_parquets(
    paths: Sequence[Path], images_key: str | None, labels_key: str | None
) -> Iterator[tuple[Rows, Rows, dict[str, Any]]]:
    """Yield the labels int64 [N], and number and rows of each row group int64 [G, 2], of Parquet shards, and what their columns are.

    Raises DataError that names the shard, and where pyarrow is not installed.
    """
    require_pyarrow()
    for first in range(0, len(paths), SHARDS_A_LOOK):
        some = paths[first : first + SHARDS_A_LOOK]
        request = {"paths": [str(path) for path in some], "images_key": images_key, "labels_key": labels_key}
        found, arrays = ask_child("firstlight.data.parquet_probe", request, f"{some[0]} and {len(some) - 1} shards beside it")
        for number, (path, shard) in enumerate(zip(some, found["shards"], strict=False)):
            if "error" in shard:
                raise DataError(f"{path}: {shard['error']}")
            yield arrays[2 * number], arrays[2 * number + 1], shard


def require_pyarrow() -> None:
    """Raise DataError where pyarrow is not installed; nothing is imported."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError('Parquet files need pyarrow, which is not installed; pip install "firstlight[parquet]"')


def blocks_of_groups(shards: Sequence[ShardIndex], most: int) -> list[Block]:
    """Return the blocks of all shards: row groups, and where these are small as many as have `most` rows at most."""
    blocks, row = [], 0
    for shard, index in enumerate(shards):
        groups: list[int] = []
        first = row
        for group, num in index.places.tolist():
            if groups and row + num - first > most:
                blocks.append(Block(shard, tuple(groups), first, row))
                groups, first = [], row
            groups.append(group)
            row += num
        blocks.append(Block(shard, tuple(groups), first, row))
    return blocks


def read_parquets(
    shards: Sequence[ShardIndex], blocks: Sequence[Block], numbers: Rows, rows: Rows, most: int, kept: dict[int, Any], keep: int | None
) -> Generator[Contents]:
    """Yield the bytes of the images in `rows` (sorted) of all shards, at most `most` at a time.

    numbers: the block of each row. kept, keep: columns by the number of their block, as ImageSource.read has them.
    """
    starts = np.cumsum([0, *map(len, shards)])
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for begin, end in zip(firsts.tolist(), [*firsts[1:].tolist(), len(rows)], strict=True):
        number = int(numbers[begin])
        block = blocks[number]
        column = kept.pop(number) if number in kept else _column(shards[block.shard], block)
        if number == keep:
            kept[number] = column
        for first in range(begin, end, most):
            chosen = rows[first : min(first + most, end)]
            images = _images(shards[block.shard], column, chosen - block.first, chosen - starts[block.shard])
            yield first, block.shard, chosen - starts[block.shard], images


def _column(index: ShardIndex, block: Block) -> Any:
    """Return the encoded images of a block."""
    from pyarrow import ArrowException
    from pyarrow.compute import struct_field
    from pyarrow.parquet import ParquetFile

    check_unchanged(index.path, index.identity)
    name = index.about["images"]
    try:
        with ParquetFile(index.path) as file:
            wanted = [f"{name}.bytes" if index.about["struct"] else name]
            column = file.read_row_groups(list(block.groups), columns=wanted, use_threads=False).column(0)
            column = struct_field(column, "bytes") if index.about["struct"] else column
    except (ArrowException, OSError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{index.path}: row group {block.groups[0]} of {name!r} cannot be read ({why}); get the file again") from error
    if len(column) != block.last - block.first:
        raise DataError(f"{index.path}: {len(column):,} rows of {name!r}, expected {block.last - block.first:,}; get the file again")
    return column


def _images(index: ShardIndex, column: Any, rows: Rows, in_shard: Rows) -> list[Any]:
    """Return the bytes of some rows of a column. Raises DataError for a row without."""
    images = []
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    chunks = np.searchsorted(ends, rows, side="right")
    for row, chunk, place in zip(rows.tolist(), chunks.tolist(), in_shard.tolist(), strict=True):
        value = column.chunk(chunk)[row - (int(ends[chunk - 1]) if chunk else 0)]
        if not value.is_valid:
            name = index.about["images"]
            raise DataError(f"{index.path}: row {place:,} of {name!r} is null, or a path without bytes; write the images into the shards")
        images.append(memoryview(value.as_buffer()))
    return images
