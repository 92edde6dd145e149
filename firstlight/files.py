"""The only module that writes files: atomic replacement, step folders, append-only logs, locks, checksums.

A file is written beside its target, flushed to the disk and renamed over it, so that a reader sees the old content or
the new, never a half. Reading order: write_bytes, write_folder, Appender, Lock.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from firstlight.errors import CheckpointError, RunBusyError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

TEMPORARY = ".tmp-"
"""Prefix of what is being written; such a name is never read and may be deleted."""


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
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstlight"


def make_dir(path: Path) -> Path:
    """Create the folder with its parents where it is missing, and return it."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path` in one step by `content`; the parent folder must exist."""
    _replace(path, lambda handle: handle.write(content))


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` in one step by `text` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace the file at `path` in one step by `value` as JSON; NaN and infinities become null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_stream(path: Path, chunks: Iterator[bytes]) -> None:
    """Replace the file at `path` in one step by what `chunks` yields; nothing changes if the iterator raises."""

    def write(handle: IO[bytes]) -> None:
        for chunk in chunks:
            handle.write(chunk)

    _replace(path, write)


def write_figure(path: Path, figure: "Figure") -> Path:
    """Save a matplotlib figure as PNG (or by the suffix of `path`), and return the path."""
    _replace(path, lambda handle: figure.savefig(handle, format=path.suffix[1:] or "png", dpi=150))
    return path


def tensors_to_bytes(tensors: "dict[str, Tensor]") -> bytes:
    """Return tensors by name in the safetensors format."""
    from safetensors.torch import save

    return save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file by name, on the CPU. Raises CheckpointError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); use another checkpoint") from error


def write_folder(path: Path, contents: dict[str, bytes]) -> None:
    """Create the folder `path` with these files in one step; a folder that stands there is replaced."""
    beside = path.with_name(TEMPORARY + path.name)
    with storage_errors(path):
        remove(beside)
        beside.mkdir(parents=True)
        for name, content in contents.items():
            _write_durably(beside / name, lambda handle, content=content: handle.write(content))  # type: ignore[misc]
        _sync_folder(beside)
        remove(path)
        beside.replace(path)
        _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete a file or a whole folder; nothing happens where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Put a file that is whole in the place of `target`, in one step; both lie on the same file system."""
    with storage_errors(target):
        source.replace(target)
        _sync_folder(target.parent)


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of the content."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Appender:
    """An append-only text file; every call writes whole lines and hands them to the operating system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            self._handle = path.open("a", encoding="utf-8")

    def write_lines(self, lines: list[str]) -> None:
        """Append the lines in one write."""
        with storage_errors(self.path):
            self._handle.write("".join(line + "\n" for line in lines))
            self._handle.flush()

    def close(self) -> None:
        """Close the file."""
        with storage_errors(self.path):
            self._handle.close()


_held: set[Path] = set()
"""Locks of this process. The kernel keeps one lock a process and file, and drops it when any handle of that file is closed."""


class Lock:
    """An exclusive lock on a file, freed by the kernel when the process ends, however it ends.

    `lockf` and not `flock`: a lock taken by flock lives on in forked children.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path.absolute()
        self.what = what
        self._handle: IO[str] | None = None

    def __enter__(self) -> "Lock":
        if self.path in _held:
            raise RunBusyError(f"{self.what} is being written by this very process; choose another --name")
        with storage_errors(self.path):
            handle = self.path.open("a+", encoding="utf-8")
        if not _lock_handle(handle):
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise RunBusyError(f"{self.what} is being written by {holder}; wait for it, stop it, or choose another --name")
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        handle.flush()
        self._handle = handle
        _held.add(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._handle is not None
        _held.discard(self.path)
        self._handle.close()


def is_locked(path: Path) -> bool:
    """Tell whether a live process holds the lock file."""
    if path.absolute() in _held:
        return True
    try:
        with path.open("a+", encoding="utf-8") as handle:
            return not _lock_handle(handle)
    except OSError:  # no such file, or not ours to write: then nobody we know of writes there
        return False


def _lock_handle(handle: IO[str]) -> bool:
    """Try to take the lock; return whether it is ours now."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_on_windows(handle)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_on_windows(handle: IO[str]) -> bool:
    import msvcrt

    try:
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True


def _replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    beside = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}"[:250])
    with storage_errors(path):
        try:
            _write_durably(beside, write)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _write_durably(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    with path.open("wb") as handle:
        write(handle)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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
