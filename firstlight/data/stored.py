"""Images that stay in their file: an array of pixels which is read when it is asked for, in blocks of some megabytes.

The pixels are read at their places in the file, without the library that wrote it, where its filters allow; so nothing of a library is
open when a process forks. Reading order: Facts, ImageFile, StoredImages.
"""

import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.data.interpolation import resize_pixels
from firstlight.errors import DataError

BLOCK_BYTES = 4 << 20
"""Read at once: blocks of 4 MiB at random places come nearly as fast as from the beginning on, where the next ones are announced."""
AHEAD_BYTES = 8 << 20
"""Of what comes next, the system is told before it is read: at random places 700 MB/s in place of 450 on a virtual disk."""
GAP_BYTES = 128 << 10
"""Pixels that nobody wants are read along where they are fewer than this between two that somebody does."""
RESIDENT_SHARE = 0.25
"""Of the machine's memory: images that take no more are loaded whole where data.stream is auto."""
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]
Identity = tuple[int, ...]
Order = Literal["nhwc", "nchw", "nhw"]


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of stored images before any is read.

    path, key: where they lie. identity: of their file, or of all their files, when these were looked at. shape: [N, ...]; order: of its
    axes.
    """

    path: Path
    key: str
    identity: Identity
    shape: tuple[int, ...]
    order: Order
    sha256: str | None = None
    """Of all pixels in the order of the array, as their writer left it."""
    sums: Rows | None = None
    sum_rows: int = 0
    """CRC-32 of each block of so many rows, as their writer left them."""

    @property
    def row_bytes(self) -> int:
        """Bytes of the pixels of one image."""
        return int(np.prod(self.shape[1:]))

    @property
    def rows_per_block(self) -> int:
        """Images that are read at once: BLOCK_BYTES of pixels."""
        return max(1, BLOCK_BYTES // self.row_bytes)

    @property
    def can_cut(self) -> bool:
        """Whether a part of a block costs no more to read than that part."""
        return True

    def blocks_of(self, rows: Rows) -> Rows:
        """Return the number of the block that each row is in."""
        return rows // self.rows_per_block


@dataclass(frozen=True, eq=False)
class ArrayFacts(Facts):
    """Where the images of one array lie in a file.

    offset: of the first byte, where the array is in one piece. chunk_shape, chunks (int64 [chunks, 3]: place, length and filter mask of
    each) and filters, where it is cut up. library: only h5py can read it.
    """

    offset: int | None = None
    chunk_shape: tuple[int, ...] | None = None
    chunks: Rows | None = None
    filters: tuple[int, ...] = ()
    library: bool = False

    @property
    def rows_per_block(self) -> int:
        """Images that are read at once: BLOCK_BYTES of them, or the whole chunks that are nearest to it."""
        unit = 1 if self.chunk_shape is None else self.chunk_shape[0]
        return unit * max(1, BLOCK_BYTES // (unit * self.row_bytes))

    @property
    def can_cut(self) -> bool:
        """Whether the array is in one piece."""
        return self.chunk_shape is None


class ImageSource(Protocol):
    """Images that are read by row."""

    @property
    def facts(self) -> Facts:
        """What is known of them."""

    num_threads: int
    """Threads that may decode them."""

    def read(self, rows: Rows, kept: dict[int, Any] | None = None, keep: int | None = None) -> Iterator[tuple[int, Pixels]]:
        """Yield (number of rows before, pixels uint8 [M, ...] in the order of axes of the facts) until all `rows` (sorted) have come.

        What is yielded may be overwritten by what comes next. kept: blocks that were read before, by number, which are used and taken
        out; keep: the block that is put there. Raises DataError where the images are damaged, or were changed since they were looked at.
        """


def identity_of(path: Path) -> tuple[int, int, int]:
    """Return what tells a file from its successor: inode, bytes, time of change. Raises DataError where it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; put the file back, or correct data.path") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def check_unchanged(path: Path, then: Identity) -> None:
    """Raise DataError where another file stands at the path, or the file was written to, since it was looked at."""
    now = identity_of(path)
    if now != then:
        words = ("another file stands there", f"{now[1]:,} bytes, not {then[1]:,}", "written to")
        what = next(word for word, old, new in zip(words, then, now, strict=True) if old != new)
        raise DataError(f"{path} changed while it was read ({what}); put the old file back and resume, or train anew")


class ImageFile:
    """The images of an array in a file, read by row. One for all threads; each process opens the file for itself."""

    num_threads = 1
    """Nothing here takes more."""

    def __init__(self, facts: ArrayFacts) -> None:
        self.facts = facts
        self._opened: tuple[int, Any] = (0, None)
        """The process that opened the file, and what it got."""

    def read(self, rows: Rows, kept: dict[int, Pixels] | None = None, keep: int | None = None) -> Iterator[tuple[int, Pixels]]:
        """Yield pixels as ImageSource says; of chunks alone are blocks kept."""
        check_unchanged(self.facts.path, self.facts.identity)
        if len(rows) == 0:
            return
        blocks = self.facts.blocks_of(rows)
        firsts = np.flatnonzero(np.diff(blocks, prepend=-1))
        cuts = [*firsts.tolist(), len(rows)]
        if self.facts.chunk_shape is None and not self.facts.library:
            yield from self._read_contiguous(rows, cuts)
            return
        pieces = [(int(blocks[first]), first, last) for first, last in itertools.pairwise(cuts)]
        held = kept if kept is not None else {}
        announce = self._announcer([span for block, _, _ in pieces for span in self._spans_of(block)])
        for block, first, last in pieces:
            announce(len(self._spans_of(block)))
            pixels = held.pop(block) if block in held else self._block(block)
            if block == keep:
                held[block] = pixels
            yield first, pixels[rows[first:last] - block * self.facts.rows_per_block]

    def _read_contiguous(self, rows: Rows, cuts: list[int]) -> Iterator[tuple[int, Pixels]]:
        facts, row_bytes = self.facts, self.facts.row_bytes
        assert facts.offset is not None
        starts: list[tuple[int, int]] = []
        for first, last in itertools.pairwise(cuts):
            breaks = np.flatnonzero(np.diff(rows[first:last]) * row_bytes > GAP_BYTES + row_bytes) + first + 1
            starts += itertools.pairwise([first, *breaks.tolist(), last])
        buffer = np.empty(max(int(rows[last - 1] - rows[first]) + 1 for first, last in starts) * row_bytes, np.uint8)
        spans = [(facts.offset + int(rows[first]) * row_bytes, int(rows[last - 1] - rows[first] + 1) * row_bytes) for first, last in starts]
        announce = self._announcer(spans)
        for (first, last), (place, size) in zip(starts, spans, strict=True):
            announce(1)
            self._pread(place, buffer[:size])
            pixels = buffer[:size].reshape(-1, *facts.shape[1:])
            wanted = rows[first:last] - rows[first]
            yield first, pixels if len(wanted) == len(pixels) and bool((wanted == np.arange(len(pixels))).all()) else pixels[wanted]

    def _block(self, block: int) -> Pixels:
        """Return all rows of a block of whole chunks."""
        facts = self.facts
        first = block * facts.rows_per_block
        last = min(first + facts.rows_per_block, facts.shape[0])
        if facts.library:
            return self._through_library(first, last)
        assert facts.chunk_shape is not None and facts.chunks is not None
        pixels = np.empty((last - first, *facts.shape[1:]), np.uint8)
        for number, corner in self._chunks_of(block):
            place, size, mask = (int(value) for value in facts.chunks[number])
            raw = np.empty(size, np.uint8)
            self._pread(place, raw)
            chunk = self._unfiltered(raw, mask, first).reshape(facts.chunk_shape)
            where = tuple(
                slice(start - before, min(start - before + length, total))
                for start, before, length, total in zip(corner, (first, 0, 0, 0), facts.chunk_shape, pixels.shape, strict=False)
            )
            pixels[where] = chunk[tuple(slice(0, place.stop - place.start) for place in where)]
        return pixels

    def _chunks_of(self, block: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield number and first corner of each chunk of a block."""
        facts = self.facts
        assert facts.chunk_shape is not None
        grid = [-(-total // length) for total, length in zip(facts.shape, facts.chunk_shape, strict=True)]
        bands = facts.rows_per_block // facts.chunk_shape[0]
        for place in itertools.product(range(block * bands, min((block + 1) * bands, grid[0])), *map(range, grid[1:])):
            yield int(np.ravel_multi_index(place, grid)), tuple(at * length for at, length in zip(place, facts.chunk_shape, strict=True))

    def _unfiltered(self, raw: Pixels, mask: int, row: int) -> Pixels:
        """Undo a chunk's filters, the last one first; a bit of the mask says that its filter was left out."""
        facts = self.facts
        assert facts.chunk_shape is not None
        wanted = int(np.prod(facts.chunk_shape))
        for number, code in reversed(list(enumerate(facts.filters))):
            if mask >> number & 1 or code == SHUFFLE:  # which leaves single bytes where they are
                continue
            if code == FLETCHER32:
                if fletcher32(raw[:-4]) != int.from_bytes(raw[-4:].tobytes(), "little"):
                    raise self._damaged(row, "its checksum does not match")
                raw = raw[:-4]
            else:
                raw = self._inflated(raw, wanted, row)
        if raw.size != wanted:
            raise self._damaged(row, f"{raw.size:,} bytes, expected {wanted:,}")
        return raw

    def _inflated(self, raw: Pixels, wanted: int, row: int) -> Pixels:
        try:
            stream = zlib.decompressobj()
            return np.frombuffer(stream.decompress(raw.tobytes(), wanted + 4), np.uint8)  # a checksum may lie inside
        except zlib.error as error:
            raise self._damaged(row, str(error)) from error

    def _damaged(self, row: int, why: str) -> DataError:
        return DataError(f"{self.facts.path}: {self.facts.key} is damaged in the chunk at row {row:,} ({why}); get the file again")

    def _through_library(self, first: int, last: int) -> Pixels:
        import h5py

        pid, file = self._opened
        if pid != os.getpid():
            file = h5py.File(self.facts.path, "r")
            self._opened = (os.getpid(), file)
        try:
            pixels: Pixels = file[self.facts.key][first:last]
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise DataError(
                f"{self.facts.path}: rows {first:,} to {last - 1:,} of {self.facts.key} cannot be read ({why}); get the file again"
            ) from error
        return pixels

    def _descriptor(self) -> int:
        pid, descriptor = self._opened
        if pid != os.getpid():
            try:
                descriptor = os.open(self.facts.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except OSError as error:
                raise DataError(f"cannot read {self.facts.path}: {error.strerror}; put the file back, or correct data.path") from error
            self._opened = (os.getpid(), descriptor)
        return int(descriptor)

    def __del__(self) -> None:
        pid, opened = self._opened
        if pid == os.getpid():
            if self.facts.library:
                opened.close()
            else:
                os.close(opened)

    def _pread(self, place: int, target: Pixels) -> None:
        view, descriptor = memoryview(target.data), self._descriptor()
        while view:
            try:
                got = os.preadv(descriptor, [view], place)
            except OSError as error:
                raise DataError(f"cannot read {self.facts.path}: {error.strerror}; check the disk") from error
            if got == 0:
                raise DataError(f"{self.facts.path} ended at byte {place:,} while it was read; get the file again")
            view, place = view[got:], place + got

    def _announcer(self, spans: list[tuple[int, int]]) -> Callable[[int], None]:
        """Return what is called with the number of spans (place, size) that are read now: it tells the system of those behind them."""
        told = now = ahead = 0

        def announce(num: int) -> None:
            nonlocal told, now, ahead
            now += num
            ahead -= sum(size for _, size in spans[now - num : min(now, told)])
            told = max(told, now)
            while told < len(spans) and ahead < AHEAD_BYTES:
                os.posix_fadvise(self._descriptor(), *spans[told], os.POSIX_FADV_WILLNEED)
                ahead += spans[told][1]
                told += 1

        return announce if hasattr(os, "posix_fadvise") and not self.facts.library else lambda num: None

    def _spans_of(self, block: int) -> list[tuple[int, int]]:
        """Return place and size of the chunks of a block."""
        if self.facts.library or self.facts.chunks is None:
            return []
        return [(int(self.facts.chunks[number, 0]), int(self.facts.chunks[number, 1])) for number, _ in self._chunks_of(block)]


def fletcher32(content: Pixels) -> int:
    """Return HDF5's checksum of a chunk (H5checksum.c: words of 16 bits, the high byte first; sums modulo 65535 that are never 0 again)."""
    even = content[: content.size // 2 * 2].view(">u2").astype(np.uint64)
    if content.size % 2:
        even = np.append(even, np.uint64(int(content[-1]) << 8))
    low = high = 0
    for start in range(0, len(even), 1 << 20):  # so that the weighted sum stays below 2^64
        words = even[start : start + (1 << 20)]
        high += low * len(words) + int(words @ np.arange(len(words), 0, -1, dtype=np.uint64))
        low += int(words.sum())
    return _folded(high) << 16 | _folded(low)


def _folded(total: int) -> int:
    return (total - 1) % 65535 + 1 if total else 0


class StoredImages:
    """Images in a file, seen as uint8 [N, C, H, W]: `len`, `shape`, `[...]` and `split` as of a tensor, and read when they are asked for.

    rows: int64 [N], which images of the file these are, in their order. size: pixels square to which they are resized when they are
    read (bilinear, antialiased; as data/resize.py does it), None to leave them. policy: `auto`, `on` or `off`, when to stay in the file.
    buffer_bytes: memory for what is read ahead and shuffled.
    """

    dtype = torch.uint8
    ndim = 4
    device = torch.device("cpu")

    def __init__(
        self, file: ImageSource, rows: Rows | None = None, *, size: int | None = None, policy: str = "auto", buffer_bytes: int = 1 << 30
    ) -> None:
        self.file = file
        self.rows: Rows = np.arange(file.facts.shape[0]) if rows is None else rows
        self.size = size
        self.policy = policy
        self.buffer_bytes = buffer_bytes

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image as it lies in the file."""
        shape = self.file.facts.shape[1:]
        if self.file.facts.order == "nhw":
            return 1, shape[0], shape[1]
        return (shape[2], shape[0], shape[1]) if self.file.facts.order == "nhwc" else (shape[0], shape[1], shape[2])

    @property
    def shape(self) -> torch.Size:
        """[N, C, H, W] as it is seen, resized."""
        channels, height, width = self.raw_shape
        return torch.Size((len(self.rows), channels, self.size or height, self.size or width))

    @property
    def num_bytes(self) -> int:
        """Bytes that all pixels take in memory, resized."""
        return self.numel()

    def __len__(self) -> int:
        return len(self.rows)

    def numel(self) -> int:
        """Return the number of values."""
        return int(np.prod(self.shape, dtype=object))

    def element_size(self) -> int:
        """Return the bytes of a value."""
        return 1

    def is_floating_point(self) -> bool:
        """Tell that pixels are whole numbers."""
        return False

    def at(self, indices: Tensor) -> "StoredImages":
        """Return the images at `indices` (int64 [M]), in that order, without reading any."""
        return StoredImages(self.file, self.rows[indices.cpu().numpy()], size=self.size, policy=self.policy, buffer_bytes=self.buffer_bytes)

    def resized(self, size: int) -> "StoredImages":
        """Return the images at another size, without reading any."""
        _, height, width = self.raw_shape
        wanted = None if (height, width) == (size, size) else size
        return StoredImages(self.file, self.rows, size=wanted, policy=self.policy, buffer_bytes=self.buffer_bytes)

    def settled(self) -> "Tensor | StoredImages":
        """Return the images whole in memory where the policy says so, else these."""
        return self if self.stays else self.whole()

    @property
    def stays(self) -> bool:
        """Whether the policy leaves the images where they are."""
        return self.policy == "on" or (self.policy == "auto" and self.num_bytes > RESIDENT_SHARE * total_memory())

    def whole(self) -> Tensor:
        """Return all images as a tensor."""
        return self._read(self.rows)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in order, `size` at a time, uint8 [size, C, H, W]."""
        step = max(1, 4 * BLOCK_BYTES // self.file.facts.row_bytes // size) * size
        for first in range(0, len(self), step):
            yield from self._read(self.rows[first : first + step]).split(size)

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, Tensor):
            index = index.cpu().numpy()
        chosen = self.rows[index]
        read = self._read(np.atleast_1d(chosen))
        return read[0] if np.ndim(chosen) == 0 else read

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        facts = self.file.facts
        raise DataError(
            f"{facts.path}: the {len(self):,} images of {facts.key} are streamed, and this looks at all of them at once; "
            "train with data.stream=off, or on fewer with split.num_train"
        )

    def _read(self, rows: Rows) -> Tensor:
        order = np.argsort(rows, kind="stable")
        images = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        for first, pixels in self.file.read(rows[order]):
            images[torch.from_numpy(order[first : first + len(pixels)])] = self.as_seen(torch.from_numpy(pixels))
        return images

    def as_seen(self, pixels: Tensor) -> Tensor:
        """Return pixels in the file's order of axes as uint8 [M, C, H, W] at the size that is wanted, a view where that is no other."""
        order = self.file.facts.order
        images = pixels.unsqueeze(1) if order == "nhw" else pixels.permute(0, 3, 1, 2) if order == "nhwc" else pixels
        if self.size is None:
            return images
        return resize_pixels(images.contiguous(), self.size)


def total_memory(root: Path = Path("/")) -> float:
    """Return the bytes of memory of this machine, or of the control group that this process is in, where that is less."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 8.0 * 2**30]
    with suppress(OSError, ValueError):  # no such group, or `max`
        found.append(float((root / "sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found)
