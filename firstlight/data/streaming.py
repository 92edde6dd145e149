"""Batches from images that stay in their file: random blocks of it, shuffled again inside a window of memory, read one window ahead.

An epoch's order is a plain permutation, made in two steps. The blocks of the file (4 MiB, or whole chunks) come in a random order; cut
into windows of as many whole batches as half the buffer holds, their images come in a random order in each window. So a batch is a
function of (seed, epoch, number), it costs one window to begin anywhere, and every image comes once an epoch. The first windows of an
epoch are shorter (an eighth, a quarter, a half), so that it begins soon.
Reading order: StreamLoader.batches, _window, _fill.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstlight.data.dataset import Dataset
from firstlight.data.draws import Stream, integers, permutation
from firstlight.data.loader import Batch, Loader
from firstlight.data.pixel_store import PixelStore
from firstlight.data.stored import Rows, StoredImages

_PIECE_VALUES = 400_000
"""Values that are gathered and normalised at once, 1.6 MB of them, which stay in the cache of a core."""

FIRST_SHARE = 8
"""The first window of an epoch is this part of the others."""
SORTED_SHARE = 0.9
"""A file counts as sorted where so many of its images have the class of the one before."""
SORTED_CUT = 8
"""Blocks are cut into so many in a sorted file. Of 200 classes 128 blocks of 4 MiB hold half, and 1,024 of 512 KiB all."""


class StreamLoader(Loader):
    """Batches of a data set whose images are a StoredImages; for the rest a Loader, with the same batches for the same order of images.

    Memory: two windows of pixels, which together take the `buffer_bytes` of the images (one batch each at least), and a block or two.
    """

    images: StoredImages
    _by_row: Rows
    """The places in the data set, in the order of the file."""
    _firsts: Rows
    """Where each block of the file begins among these, and the end."""

    def _stored(self, dataset: Dataset, **settings: Any) -> PixelStore:
        """Return the store of no images, of which each window has one of its own."""
        images = dataset.images
        assert isinstance(images, StoredImages)
        self.images = images
        rows = images.rows
        self._by_row = np.argsort(rows, kind="stable") if np.any(np.diff(rows) < 0) else np.arange(len(rows))
        blocks = self._blocks_of(dataset, rows[self._by_row])
        self._firsts = np.append(np.flatnonzero(np.diff(blocks, prepend=-1)), len(rows))
        return PixelStore(torch.empty(0, *images.shape[1:], dtype=torch.uint8), **settings)

    def _blocks_of(self, dataset: Dataset, rows: Rows) -> Rows:
        """Return a number for each row, one for those that stay together: fewer where they lie by class, so that a window has all."""
        facts = self.images.file.facts
        if dataset.labels is None or not facts.can_cut or len(dataset) < 2:
            return facts.blocks_of(rows)
        labels = dataset.labels.cpu().numpy()[self._by_row]
        is_sorted = float(np.mean(labels[1:] == labels[:-1])) > SORTED_SHARE and len(np.unique(labels)) > 1
        return rows // max(1, facts.rows_per_block // SORTED_CUT) if is_sorted else facts.blocks_of(rows)

    @property
    def window_size(self) -> int:
        """Images in a window: whole batches."""
        batch_bytes = self.batch_size * self._store.image_bytes
        return max(1, self.images.buffer_bytes // 2 // batch_bytes) * self.batch_size

    def batches(self, epoch: int, start: int = 0, *, reuse_buffers: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on, at the cost of at most one window more than they take.

        reuse_buffers: hand out the same memory again; a batch is then valid until the next one is asked for.
        Raises DataError where the file is damaged, or was changed since it was looked at.
        """
        first, starts = start * self.batch_size, self._window_starts()
        if first >= self.num_images:
            return
        windows = range(bisect_right(starts, first) - 1, len(starts))
        stores = [self._store.with_room(min(self.window_size, self.num_images)) for _ in windows[:2]]
        rows = self._empty(self.batch_size) if reuse_buffers else None
        kept: dict[int, Any] = {}
        left = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="read ahead") as reader:
            try:
                coming = reader.submit(self._fill, stores[0], epoch, windows[0], kept, left)
                for window in windows:
                    store = stores[(window - windows[0]) % 2]
                    order, places = coming.result()
                    if window + 1 < windows.stop:
                        coming = reader.submit(self._fill, stores[(window + 1 - windows[0]) % 2], epoch, window + 1, kept, left)
                    for begin in range(max(first - starts[window], 0), len(order), self.batch_size):
                        chosen = slice(begin, begin + self.batch_size)
                        ours = self.shard.part(len(order[chosen]))
                        yield self._batch(store, epoch, order[chosen][ours], places[chosen][ours], rows)
            finally:
                left.set()

    def indices(self, epoch: int, number: int) -> Tensor:
        """Return the places in the data set, int64 [B], of the images in a batch of an epoch."""
        starts, first = self._window_starts(), number * self.batch_size
        window = bisect_right(starts, first) - 1
        return self._window(epoch, window)[first - starts[window] :][: self.batch_size].to(self.labels.device)

    def order(self, epoch: int) -> Tensor:
        """Return the places in the data set of all images of an epoch, int64 [num_images], in the order in which they come."""
        return torch.cat([self._window(epoch, window) for window in range(len(self._window_starts()))])

    def _batch(self, store: PixelStore, epoch: int, order: Tensor, places: Tensor, rows: Tensor | None) -> Batch:
        rows = self._empty(len(order)) if rows is None else rows[: len(order)]
        drawn = self.drawn(epoch, order)
        step = max(1, _PIECE_VALUES // math.prod(self._store.row_shape))
        for first in range(0, len(order), step):
            piece = slice(first, first + step)
            self._made(store, places[piece], drawn.part(piece), rows[piece])
        return Batch(store.as_images(rows), self.labels[drawn.indices], drawn.indices)

    def _window_starts(self) -> list[int]:
        """Return how many images come before each window of an epoch: whole batches."""
        starts, size = [0], max(1, self.window_size // self.batch_size // FIRST_SHARE) * self.batch_size
        while starts[-1] + size < self.num_images:
            starts.append(starts[-1] + size)
            size = min(2 * size, self.window_size)
        return starts

    def _window(self, epoch: int, window: int) -> Tensor:
        """Return the places in the data set of the images of a window, in the order in which they come, int64 on the CPU."""
        begin, end = [*self._window_starts(), self.num_images][window : window + 2]
        if not self.shuffle:
            return torch.arange(begin, end)
        blocks, starts = self._blocks(epoch)
        inside = range(int(np.searchsorted(starts, begin, side="right")) - 1, int(np.searchsorted(starts, end, side="left")))
        whole = [self._by_row[self._firsts[blocks[at]] : self._firsts[blocks[at] + 1]] for at in inside]
        offset = begin - int(starts[inside[0]])
        images = torch.from_numpy(np.concatenate(whole)[offset : offset + end - begin])
        return images[integers(self.seed, epoch, images, Stream.IN_WINDOW, 2**31).argsort(stable=True)]

    def _blocks(self, epoch: int) -> tuple[Any, Any]:
        """Return the blocks of the file in the order of an epoch, and how many images come before each, and in all."""
        return _ordered_blocks(self._firsts.tobytes(), self.seed, epoch)

    def _fill(self, store: PixelStore, epoch: int, window: int, kept: dict[int, Any], left: threading.Event) -> tuple[Tensor, Tensor]:
        """Read a window into a store, in the order of the file; return the order of its images, and the place of each in the store."""
        images, order = self.images, self._window(epoch, window)
        rows = images.rows[order.numpy()]
        by_row = np.argsort(rows, kind="stable")
        keep = self._begun(epoch, window + 1)
        for first, pixels in images.file.read(rows[by_row], kept, keep):
            if left.is_set():
                break
            store.put(first, images.as_seen(torch.from_numpy(pixels).to(store.pixels.device)))
        for block in [block for block in kept if block != keep]:
            del kept[block]
        places = torch.empty(len(order), dtype=torch.int64)
        places[torch.from_numpy(by_row)] = torch.arange(len(order))
        return order.to(self.labels.device), places.to(self.labels.device)

    def _begun(self, epoch: int, window: int) -> int | None:
        """Return the block of the file in whose midst a window begins, which the one before has read."""
        windows = self._window_starts()
        if not self.shuffle or window == len(windows):
            return None
        begin, (blocks, starts) = windows[window], self._blocks(epoch)
        at = int(np.searchsorted(starts, begin, side="right")) - 1
        row = self.images.rows[self._by_row[self._firsts[blocks[at]]]]  # none is kept of those that were cut
        return None if starts[at] == begin else int(self.images.file.facts.blocks_of(row))


@lru_cache(maxsize=4)
def _ordered_blocks(firsts: bytes, seed: int, epoch: int) -> tuple[Any, Any]:
    bounds = np.frombuffer(firsts, np.int64)
    blocks = permutation(len(bounds) - 1, seed, epoch).numpy()
    return blocks, np.concatenate([[0], np.cumsum(np.diff(bounds)[blocks])])
