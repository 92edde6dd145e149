"""The only module that writes files: atomic replacement, step folders, append-only logs, locks, checksums.

A file is written beside its target, flushed to the disk and renamed over it, so that a reader sees the old content or
the new, never a half. Each operation passes `_operate`, where a test can make it fail or kill the process.
Reading order: write_bytes, WriteBatch, together, remove, Appender, Lock, Failpoint.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO, FileIO, RawIOBase
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar

from firstlight.errors import CheckpointError, FirstlightError, RunBusyError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

T = TypeVar("T")

TEMPORARY = ".tmp-"
"""Prefix of what is being written; such a name is never read and may be deleted."""
SPARE_BYTES = 2**20
"""Free space that stays when a folder is written, for the small files that follow it."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names the path and the remedy."""
    remedies = {
        errno.ENOSPC: "the disk is full; free some space",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EFBIG: "the file size limit is reached; raise `ulimit -f` or free some space",
        errno.EACCES: "no permission; choose another folder",
        errno.EPERM: "no permission; choose another folder",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOENT: "a folder above it is missing or cannot be made; choose another folder",
        errno.EEXIST: "something else stands there; choose another name",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
        errno.EISDIR: "a folder stands where a file is needed; choose another name",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot write {path}: {remedy}") from error


def cache_dir() -> Path:
    """Return the folder for what can be made again: FIRSTLIGHT_CACHE, or firstlight/ in the user's cache folder."""
    chosen = os.environ.get("FIRSTLIGHT_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstlight"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        raise StorageError("there is no home folder to keep a cache in; set FIRSTLIGHT_CACHE to a folder") from None


def settings_dir() -> Path:
    """Return the folder for what a user has chosen: FIRSTLIGHT_SETTINGS, or firstlight/ in the user's folder of settings."""
    chosen = os.environ.get("FIRSTLIGHT_SETTINGS")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "firstlight"
    except RuntimeError:
        raise StorageError("there is no home folder to keep settings in; set FIRSTLIGHT_SETTINGS to a folder") from None


def make_dir(path: Path, *, private: bool = False) -> Path:
    """Create the folder with its parents where it is missing, and return it. private: nobody but its owner may look into it."""
    with WriteBatch() as batch:
        batch.make_dir(path)
        batch.commit()
    if private:
        with storage_errors(path):
            _operate("chmod", path, lambda: path.chmod(0o700))
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path` in one step by `content`; the parent folder must exist."""
    write_stream(path, [content])


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` in one step by `text` in UTF-8."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # a file name may hold bytes that are no text


def write_json(path: Path, value: Any) -> None:
    """Replace the file at `path` in one step by `value` as JSON; NaN and infinities become null."""
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    """Return plain data as the content of a file; NaN and infinities become null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")


def write_stream(path: Path, chunks: Iterable["Chunk"]) -> None:
    """Replace the file at `path` in one step by what `chunks` yields; nothing changes if the iterator raises."""
    with WriteBatch() as batch:
        batch.write(path, chunks)
        batch.commit()


def write_figure(path: Path, figure: "Figure") -> Path:
    """Save a matplotlib figure as PNG (or by the suffix of `path`), and return the path."""
    write_bytes(path, figure_bytes(figure, path.suffix[1:] or "png"))
    return path


def figure_bytes(figure: "Figure", kind: str) -> bytes:
    """Return a matplotlib figure as the content of a file of this kind, such as `png` or `svg`."""
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()


def write_pictures(stem: Path, figure: "Figure") -> list[Path]:
    """Save a matplotlib figure as `stem`.png and `stem`.svg, and return both paths, the PNG first."""
    return [write_figure(stem.with_name(f"{stem.name}.{kind}"), figure) for kind in ("png", "svg")]


Chunk = bytes | memoryview
"""A piece of a file's content; a memoryview of bytes is written from where it lies."""

_DTYPE_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def tensors_to_chunks(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None) -> list[Chunk]:
    """Return tensors by name in the safetensors format, byte for byte what the library writes, without a copy of the large ones.

    metadata: texts by name, which stand in the header. The chunks are views: write them before the tensors change. On 129 MiB the
    library's own copies take longer than the disk.
    """
    import torch

    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    names = sorted(flat, key=lambda name: (-flat[name].element_size(), name))  # the widest first, so that each lies aligned
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        begin, end = end, end + flat[name].nbytes
        dtype = _DTYPE_NAMES[str(flat[name].dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(flat[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    parts: list[Chunk] = [len(text).to_bytes(8, "little"), text]
    return _coalesced(parts + [flat[name].reshape(-1).view(torch.uint8).numpy().data for name in names])


def is_storable(tensor: "Tensor") -> bool:
    """Tell whether the numbers of a tensor are of a kind that `tensors_to_chunks` writes."""
    return str(tensor.dtype).removeprefix("torch.") in _DTYPE_NAMES


def _coalesced(chunks: list[Chunk], size: int = 2**20) -> list[Chunk]:
    """Return the same content with neighbours below `size` bytes joined."""
    joined: list[Chunk] = []
    small: list[Chunk] = []
    for chunk in [*chunks, None]:
        if chunk is not None and len(chunk) < size:
            small.append(chunk)
            continue
        if small:
            joined.append(b"".join(small))
            small = []
        if chunk is not None:
            joined.append(chunk)
    return joined


def tensors_from_bytes(content: bytes, where: Path) -> "dict[str, Tensor]":
    """Return the tensors in a safetensors file's content by name, on the CPU. Raises CheckpointError, which names `where`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where} is not a whole safetensors file ({error}); use another checkpoint") from error


def write_folder(path: Path, contents: Mapping[str, Sequence[Chunk]]) -> None:
    """Create the folder `path` with these files in one step. Nothing may stand there: what is whole is never taken away for what is new."""
    with WriteBatch() as batch:
        batch.write_folder(path, contents)
        batch.commit()


class WriteBatch:
    """Files and folders that go to the disk together: written at once under other names, flushed and put in their places by `commit`.

    They appear in any order; what has to be safe before something else is seen belongs into a batch before. Use it in a `with` block, whose
    end gives up what is not in its place. Raises StorageError.
    """

    def __init__(self) -> None:
        self._open: list[tuple[Path, FileIO]] = []
        self._new_folders: list[Path] = []
        self._moves: list[tuple[Path, Path]] = []
        self._changed: dict[Path, None] = {}

    def __enter__(self) -> "WriteBatch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give_up()

    def make_dir(self, path: Path) -> None:
        """Create a folder with its parents where it is missing; other files of the batch may lie in it."""
        with storage_errors(path):
            self._changed |= dict.fromkeys(_make_dir(path))

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Replace the file at `path` by what `chunks` yields."""
        beside = path.with_name(f"{TEMPORARY}{os.getpid()}-{sha256(path.name.encode())[:16]}")
        with storage_errors(path):
            self._moves.append((beside, path))
            self._write(beside, chunks)
            self._changed[path.parent] = None

    def write_folder(self, path: Path, contents: Mapping[str, Sequence[Chunk]]) -> None:
        """Create the folder `path`, whose parent is there, with these files in one step; nothing may stand there."""
        needed = sum(len(chunk) for chunks in contents.values() for chunk in chunks)
        beside = path.with_name(TEMPORARY + path.name)
        with storage_errors(path):
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            check_room(path, needed)
            remove(beside)
            self._moves.append((beside, path))
            _make_dir(beside)
            for name, chunks in contents.items():
                self._write(beside / name, chunks)
            self._new_folders.append(beside)
            self._changed[path.parent] = None

    def append(self, appender: "Appender") -> None:
        """Flush the lines of a file that grows."""
        self._open.append((appender.path, appender.to_flush()))

    def commit(self) -> None:
        """Wait until the disk has everything, and put it in its place."""
        [error] = commit_all([self])
        if error is not None:
            raise error

    def start_writing(self) -> None:
        """Let the disk begin with the files, without waiting for it."""
        if hasattr(os, "posix_fadvise"):
            for _, handle in self._open:
                with suppress(OSError):  # a file system that takes no advice
                    os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def flush(self) -> None:
        """Wait for the contents of all files and new folders."""
        while self._open:
            path, handle = self._open[0]
            with storage_errors(path):
                _operate("fsync", path, lambda handle=handle: os.fsync(handle.fileno()))  # type: ignore[misc]
                handle.close()
            self._open.pop(0)
        for path in self._new_folders:
            with storage_errors(path):
                _sync_folder(path)

    def place(self) -> list[Path]:
        """Put everything in its place, and return the folders that are to be flushed for it."""
        while self._moves:
            beside, path = self._moves[0]
            with storage_errors(path):
                _replace(beside, path)
            self._moves.pop(0)
        return list(self._changed)

    def _give_up(self) -> None:
        for _, handle in self._open:
            with suppress(OSError):
                handle.close()
        for beside, _ in self._moves:
            if beside.is_dir():
                shutil.rmtree(beside, ignore_errors=True)
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        self._open, self._new_folders, self._moves = [], [], []

    def _write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        handle = _operate("open", path, lambda: path.open("wb", buffering=0))
        self._open.append((path, handle))
        for chunk in chunks:
            _operate("write", path, lambda chunk=chunk: _write_all(handle, chunk), chunk)  # type: ignore[misc]


def commit_all(batches: Sequence[WriteBatch]) -> list[StorageError | None]:
    """Commit batches side by side, which takes the disk a fraction of the time; return for each what was raised."""
    errors: list[StorageError | None] = [None] * len(batches)
    changed: dict[Path, list[int]] = {}

    def flush(number: int) -> None:
        batches[number].flush()

    def place(number: int) -> None:
        for folder in batches[number].place():
            changed.setdefault(folder, []).append(number)

    for stage in (flush, place):
        for number in range(len(batches)):
            if errors[number] is None:
                try:
                    stage(number)
                except StorageError as error:
                    errors[number] = error
    for folder, numbers in changed.items():
        try:
            with storage_errors(folder):
                _sync_folder(folder)
        except StorageError as error:
            for number in numbers:
                errors[number] = errors[number] or error
    return errors


Writing = Generator[WriteBatch, None, T]
"""Work that yields batches of files and goes on when they are safe; what the disk refuses is raised at its `yield`."""


def replacing(path: Path, content: bytes) -> Writing[None]:
    """Replace the file at `path` in one step by `content`."""
    with WriteBatch() as batch:
        batch.write(path, [content])
        yield batch


SIDE_BY_SIDE = 32
"""Writings whose batches are committed at a time: more would not be faster, and each holds its files open."""


def together(writings: Sequence[Writing[T]]) -> list[T | FirstlightError]:
    """Carry out writings, which wait for the disk at the same time; return for each what came of it, or our error that ended it."""
    outcomes: list[T | FirstlightError] = []
    for first in range(0, len(writings), SIDE_BY_SIDE):
        outcomes += _side_by_side(writings[first : first + SIDE_BY_SIDE])
    return outcomes


def carry_out(writing: Writing[T]) -> T:
    """Carry out one writing, and return what came of it."""
    [outcome] = _side_by_side([writing])
    if isinstance(outcome, FirstlightError):
        raise outcome
    return outcome


def _side_by_side(writings: Sequence[Writing[T]]) -> list[T | FirstlightError]:
    outcomes: dict[int, T | FirstlightError] = {}
    going_on: dict[int, StorageError | None] = dict.fromkeys(range(len(writings)))
    try:
        while going_on:
            batches: dict[int, WriteBatch] = {}
            for number, error in going_on.items():
                try:
                    batches[number] = next(writings[number]) if error is None else writings[number].throw(error)
                    if len(writings) > 1:
                        batches[number].start_writing()
                except StopIteration as done:
                    outcomes[number] = done.value
                except FirstlightError as refused:
                    outcomes[number] = refused
            going_on = dict(zip(batches, commit_all(list(batches.values())), strict=True))
    finally:
        for writing in writings:
            writing.close()
    return [outcomes[number] for number in range(len(writings))]


def may_open(wanted: int) -> int:
    """Let this process hold `wanted` files and connections open at a time, as far as the system allows; return how many of them it may."""
    try:
        import resource
    except ImportError:  # Windows counts no handles
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with suppress(ValueError, OSError):  # macOS has a limit beside
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)


def remove(path: Path) -> None:
    """Delete a file or a whole folder; nothing happens where nothing is. A folder is renamed first: it is there whole, or not at all."""
    if not path.is_dir() or path.is_symlink():
        _operate("unlink", path, lambda: path.unlink(missing_ok=True))
        return
    if not path.name.startswith(TEMPORARY):
        doomed = path.with_name(f"{TEMPORARY}{path.name}-removed")
        remove(doomed)
        _replace(path, doomed)
        path = doomed
    _operate("rmtree", path, lambda: shutil.rmtree(path))


def clean(folder: Path) -> None:
    """Delete what a killed writer left behind in `folder`; call it under the lock that its writers hold."""
    with storage_errors(folder):
        for path in folder.glob(f"{TEMPORARY}*"):
            remove(path)


def move(source: Path, target: Path) -> None:
    """Put a file that is whole in the place of `target`, in one step; both lie on the same file system."""
    with storage_errors(target):
        _replace(source, target)
        _sync_folder(target.parent)


def make_by(path: Path, make: Callable[[Path], T]) -> T:
    """Let a library write the file `path`, and flush it to the disk. The name is one that nobody reads yet; `move` puts it in its place."""
    with storage_errors(path):
        made = _operate("make", path, lambda: make(path))
        with path.open("rb") as handle:
            _operate("fsync", path, lambda: os.fsync(handle.fileno()))
    return made


def write_at(path: Path, pieces: Iterable[tuple[int, Chunk]]) -> None:
    """Write pieces at their byte offsets into a file that is there, and flush it to the disk."""
    with storage_errors(path), _operate("open", path, lambda: path.open("r+b", buffering=0)) as handle:
        for offset, piece in pieces:
            handle.seek(offset)
            _operate("write", path, lambda piece=piece: _write_all(handle, piece), piece)  # type: ignore[misc]
        _operate("fsync", path, lambda: os.fsync(handle.fileno()))


def check_room(path: Path, needed: int) -> None:
    """Raise StorageError where the disk of a file that is to be has less than `needed` bytes left."""
    with storage_errors(path):
        free = shutil.disk_usage(path.parent).free
    if free < needed + SPARE_BYTES:
        raise StorageError(f"cannot write {path}: {free / 2**20:,.0f} MiB are free and {needed / 2**20:,.0f} MiB needed; free some space")


def append_chunks(path: Path, start: int, chunks: Iterator[bytes]) -> None:
    """Write what `chunks` yields into the file from byte `start` on, and hand each chunk to the operating system at once.

    What was written stays when the iterator raises or the process dies; a caller checks the whole before it trusts it.
    """
    with storage_errors(path), _operate("open", path, lambda: path.open("ab", buffering=0)) as handle:
        _operate("truncate", path, lambda: handle.truncate(start))
        for chunk in chunks:
            _operate("append", path, lambda chunk=chunk: _write_all(handle, chunk), chunk)  # type: ignore[misc]
        _operate("fsync", path, lambda: os.fsync(handle.fileno()))


def sha256(*chunks: Chunk) -> str:
    """Return the hexadecimal SHA-256 of a content, in one piece or several."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Appender:
    """An append-only text file of whole lines, handed to the operating system at once.

    Lines that a full disk refuses wait, and go out before the next ones; the file ends at a whole line all the while.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""
        with storage_errors(path):
            self._file = _operate("open", path, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666))

    def write_lines(self, lines: list[str]) -> None:
        """Append the lines in one write. Raises StorageError where they have to wait."""
        self._waiting += "".join(line + "\n" for line in lines).encode(errors="backslashreplace")
        with storage_errors(self.path):
            size = os.fstat(self._file).st_size  # looked up now: several processes append to the log of a study
            written = _operate("append", self.path, lambda: os.write(self._file, self._waiting), self._waiting)
            if written < len(self._waiting):
                with suppress(OSError):
                    os.ftruncate(self._file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._waiting = b""

    def sync(self) -> None:
        """Bring out the lines that wait, and flush the file to the disk."""
        with WriteBatch() as batch:
            batch.append(self)
            batch.commit()

    def to_flush(self) -> FileIO:
        """Bring out the lines that wait, and return a handle of the file that is to be flushed and closed."""
        if self._waiting:
            self.write_lines([])
        with storage_errors(self.path):
            return FileIO(os.dup(self._file), "a")

    def close(self) -> None:
        """Close the file."""
        with storage_errors(self.path):
            os.close(self._file)


_held: set[Path] = set()
"""Locks of this process. The kernel keeps one lock a process and file, and drops it when any handle of that file is closed."""


class Lock:
    """An exclusive lock on a file, freed by the kernel when the process ends, however it ends.

    `lockf` and not `flock`: a lock taken by flock lives on in forked children.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._handle: IO[str] | None = None

    def __enter__(self) -> "Lock":
        if self.path.resolve() in _held:
            raise RunBusyError(f"{self.what} is being written by this very process; choose another --name")
        with storage_errors(self.path):
            handle = self.path.open("a+", encoding="utf-8")
        if not _lock_handle(handle, exclusive=True):
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise RunBusyError(f"{self.what} is being written by {holder}; wait for it, stop it, or choose another --name")
        with suppress(OSError):  # on a full disk the lock holds all the same, without a name
            handle.seek(0)
            handle.truncate()
            handle.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            handle.flush()
        self._handle = handle
        _held.add(self.path.resolve())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._handle is not None
        _held.discard(self.path.resolve())
        with suppress(OSError):  # what a full disk did not take was the holder's name
            self._handle.close()


class Claims:
    """Exclusive claims on numbers, one byte of a file each, freed by the kernel when the process ends, however it ends.

    To claim and free costs 7 us, where a `Lock` with a file of its own costs 600 (ext4). It keeps processes apart, not the threads of one;
    open one a process and file.
    """

    def __init__(self, path: Path) -> None:
        with storage_errors(path):
            self._handle = path.open("a+b", buffering=0)

    def take(self, number: int) -> bool:
        """Claim a number, and tell whether it is ours now."""
        return _lock_handle(self._handle, exclusive=True, byte=number)

    def free(self, number: int) -> None:
        """Let a number go."""
        _unlock_byte(self._handle, number)

    @contextmanager
    def waiting_for(self, number: int) -> Iterator[None]:
        """Hold a number for the block; wait for it first, as long as it takes."""
        while not self.take(number):
            time.sleep(0.001)
        try:
            yield
        finally:
            self.free(number)

    def close(self) -> None:
        """Let all numbers go."""
        self._handle.close()


def is_locked(path: Path) -> bool:
    """Tell whether a live process holds the lock file."""
    if path.resolve() in _held:
        return True
    try:
        with path.open("rb") as handle:
            return not _lock_handle(handle, exclusive=False)
    except OSError:  # no such file, or not ours to read: then nobody we know of writes there
        return False


def _lock_handle(handle: IO[Any], *, exclusive: bool, byte: int | None = None) -> bool:
    """Try to lock the file, or one byte of it; return whether it is ours now. Two readers who look at once do not see each other."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_on_windows(handle, byte or 0)
    try:
        where = (0, 0) if byte is None else (1, byte)
        fcntl.lockf(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB, *where)
    except OSError:
        return False
    return True


def _lock_on_windows(handle: IO[Any], byte: int) -> bool:
    import msvcrt

    handle.seek(2**30 + byte)  # far behind the holder's name, which others are to read
    try:
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True


def _unlock_byte(handle: IO[Any], byte: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        handle.seek(2**30 + byte)
        msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        return
    fcntl.lockf(handle, fcntl.LOCK_UN, 1, byte)


class Failpoint:
    """A file operation that fails, so that tests can look at what survives; FIRSTLIGHT_FAILPOINT sets one in a child process.

    `kill:before:7` kills this process ahead of its seventh file operation, `kill:after:7` behind it, `kill:half:7` in the midst of
    what it writes; `ENOSPC:at:7` lets the seventh fail with that error, `ENOSPC:from:7` it and all that follow.
    A fourth part, as in `kill:before:3:checkpoints`, counts only the operations on paths that hold it.
    """

    def __init__(self, text: str) -> None:
        self.what, self.when, number, self.part = (text + ":").split(":")[:4]
        self.left = int(number)

    def __call__(self, name: str, path: Path, action: Callable[[], T], detail: Any = None) -> T:
        """Carry out one operation, or what is to happen in its stead. detail: bytes that are written, or the new name."""
        self.left -= self.part in str(path)
        due = self.part in str(path) and (self.left == 0 or (self.left < 0 and self.when == "from"))
        if due and self.what != "kill":
            number = getattr(errno, self.what)
            raise OSError(number, os.strerror(number), str(path))
        if due and self.when == "half" and name in ("write", "append"):
            with path.open("ab") as handle:
                handle.write(detail[: len(detail) // 2])
        if due and self.when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = action()
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


_failpoint: Callable[..., Any] | None = Failpoint(os.environ["FIRSTLIGHT_FAILPOINT"]) if "FIRSTLIGHT_FAILPOINT" in os.environ else None


def _operate(name: str, path: Path, action: Callable[[], T], detail: Any = None) -> T:
    """Carry out one file operation, past the failpoint where one is set."""
    if _failpoint is None:
        return action()
    result: T = _failpoint(name, path, action, detail)
    return result


def _make_dir(path: Path) -> list[Path]:
    """Create a folder with its parents where it is missing; return the folders that are to be flushed for it."""
    if path.is_dir():
        return []
    if path.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    changed = [] if path.parent.is_dir() else _make_dir(path.parent)
    _operate("mkdir", path, lambda: path.mkdir(exist_ok=True))
    return [*changed, path.parent]


def _write_all(handle: RawIOBase, content: Chunk) -> None:
    left = memoryview(content)
    while left:
        left = left[handle.write(left) or 0 :]


def _replace(source: Path, target: Path) -> None:
    _operate("replace", source, lambda: source.replace(target), target)


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _operate("fsync", path, lambda: os.fsync(descriptor))
    finally:
        os.close(descriptor)


def finite(value: Any) -> Any:
    """Return plain data with None for every NaN and infinity, which JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
