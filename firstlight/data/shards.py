"""Images in many shards, each encoded in it: decoded by threads when they are asked for, in the order that any streamed data have.

Reading order: Reader, ShardFacts, ShardFile.read.
"""

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from firstlight.data import tar_shards
from firstlight.data.decode import decode_image, is_grey
from firstlight.data.parquet_shards import Block, blocks_of_groups, read_parquets
from firstlight.data.shard_index import Contents, ShardIndex
from firstlight.data.stored import Facts, Pixels, Rows
from firstlight.errors import DataError

SLICE = 16
"""Images that one thread decodes at a time."""
PIECES_AHEAD = 2
"""Pieces that are being decoded while one is used."""


class Reader:
    """Encoded images by row, of one kind of shard.

    shards: what is in each; starts: the first row of each, and the end.
    """

    def __init__(self, shards: Sequence[ShardIndex]) -> None:
        self.shards = shards
        self.starts: Rows = np.cumsum([0, *map(len, shards)])

    how: Any = None
    """What decides which images these are, beside the shards."""
    largest_block = 0
    """Rows that can only be read together."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def contents(self, rows: Rows, most: int, kept: dict[int, Any], keep: int | None) -> Generator[Contents]:
        """Yield the bytes of the images in `rows` (sorted), at most `most` at a time; kept, keep: as ImageSource.read has them."""
        raise NotImplementedError

    def blocks_of(self, rows: Rows) -> Rows | None:
        """Return the block of each row where blocks are read as a whole, else None."""
        return None

    def name(self, shard: int, row: int) -> str:
        """Return what a person calls an image."""
        return f"row {row:,}"

    def where(self, row: int) -> str:
        """Return shard and name of the image in a row of all shards."""
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.shards[shard].path}: {self.name(shard, row - int(self.starts[shard]))}"


class TarReader(Reader):
    """Images in tars."""

    def __init__(self, shards: Sequence[ShardIndex], keys: tar_shards.Keys) -> None:
        super().__init__(shards)
        self.keys = keys
        self.how = [keys.image]
        self.places: Rows = np.concatenate([shard.places for shard in shards])

    def contents(self, rows: Rows, most: int, kept: dict[int, Any], keep: int | None) -> Generator[Contents]:
        """Yield bytes by their places; none is kept."""
        return tar_shards.read_tars(self.shards, self.places, self.starts, rows, most)

    def name(self, shard: int, row: int) -> str:
        """Return the name of the file in the tar."""
        return tar_shards.name_of(self.shards[shard].path, row, self.keys)


class ParquetReader(Reader):
    """Images in Parquet files. most: rows of the row groups that are read at once, if there are several."""

    def __init__(self, shards: Sequence[ShardIndex], most: int) -> None:
        super().__init__(shards)
        self.blocks: list[Block] = blocks_of_groups(shards, most)
        self.how = shards[0].about["images"]
        self.largest_block = max(block.last - block.first for block in self.blocks)
        self._firsts: Rows = np.array([block.first for block in self.blocks])

    def contents(self, rows: Rows, most: int, kept: dict[int, Any], keep: int | None) -> Generator[Contents]:
        """Yield bytes of whole blocks, of which columns are kept."""
        return read_parquets(self.shards, self.blocks, self.blocks_of(rows), rows, most, kept, keep)

    def blocks_of(self, rows: Rows) -> Rows:
        """Return the block of each row."""
        return np.searchsorted(self._firsts, rows, side="right") - 1


@dataclass(frozen=True, eq=False)
class ShardFacts(Facts):
    """What is known of images in shards. reader: where they are."""

    reader: Reader = field(default_factory=lambda: Reader(()))

    @property
    def can_cut(self) -> bool:
        """Whether images can be read one by one."""
        return self.reader.blocks_of(np.zeros(0, np.int64)) is None

    def blocks_of(self, rows: Rows) -> Rows:
        """Return the block of each row: those of the reader, where it has any."""
        blocks = self.reader.blocks_of(rows)
        return super().blocks_of(rows) if blocks is None else blocks


class ShardFile:
    """The images of all shards of a part, read by row. Nothing is open between two reads, so that processes may fork.

    image_size: cut out the middle square and resize it; None wants images of one size. num_threads: of each read.
    """

    def __init__(self, facts: ShardFacts, image_size: int | None) -> None:
        self.facts = facts
        self.image_size = image_size
        self.num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def read(self, rows: Rows, kept: dict[int, Any] | None = None, keep: int | None = None) -> Generator[tuple[int, Pixels]]:
        """Yield pixels as ImageSource says; the next pieces are read and decoded while one is used."""
        contents = self.facts.reader.contents(rows, self.facts.rows_per_block, {} if kept is None else kept, keep)
        coming: deque[tuple[int, Pixels, list[Future[None]]]] = deque()
        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode") as pool:
            try:
                for piece in contents:
                    coming.append(self._begun(pool, *piece))
                    if len(coming) > PIECES_AHEAD:
                        yield _ended(*coming.popleft())
                while coming:
                    yield _ended(*coming.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                contents.close()

    def _begun(
        self, pool: ThreadPoolExecutor, first: int, shard: int, rows: Rows, images: list[Any]
    ) -> tuple[int, Pixels, list[Future[None]]]:
        """Have images decoded by a pool, and return the pixels that they will be."""
        pixels = np.empty((len(images), *self.facts.shape[1:]), np.uint8)
        cuts = [slice(begin, begin + SLICE) for begin in range(0, len(images), SLICE)]
        return first, pixels, [pool.submit(self._decode, shard, rows[cut], images[cut], pixels[cut]) for cut in cuts]

    def _decode(self, shard: int, rows: Rows, images: list[Any], target: Pixels) -> None:
        reader, grey = self.facts.reader, self.facts.order == "nhw"
        for row, content, pixels in zip(rows.tolist(), images, target, strict=True):
            try:
                made = decoded(bytes(content), grey=grey, image_size=self.image_size)
            except DataError as error:
                raise bad_image(reader, shard, row, str(error)) from error
            if made.shape != pixels.shape:
                sizes = f"{made.shape[1]} x {made.shape[0]} pixels, others {pixels.shape[1]} x {pixels.shape[0]}"
                raise DataError(f"{reader.shards[shard].path}: {reader.name(shard, row)} has {sizes}; resize all with data.image_size=64")
            pixels[...] = made


def decoded(content: bytes, *, grey: bool, image_size: int | None) -> Pixels:
    """Return pixels as decode_image does. Raises DataError for an image with colour where `grey`."""
    if grey and not is_grey(content):
        raise DataError("it has colour, and others are grey; set data.channels=3")
    return decode_image(content, grey=grey, image_size=image_size)


def bad_image(reader: Reader, shard: int, row: int, why: str) -> DataError:
    """Return the error for an image that does not decode."""
    remedy = "" if ";" in why else "; repair it or leave it out; `firstlight data check` with --full names every such image"
    return DataError(f"{reader.shards[shard].path}: {reader.name(shard, row)}: {why}{remedy}")


def _ended(first: int, pixels: Pixels, futures: list[Future[None]]) -> tuple[int, Pixels]:
    for future in futures:
        future.result()
    return first, pixels
