"""Class folders wherever they lie: a directory, a tar or a zip, read member by member and never unpacked to disk.

Names with `..` or a leading slash, links, devices and bombs are refused before anything is decoded.
"""

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from firstlight.errors import DataError
from firstlight.files import sha256_of_file

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 256 << 20
MAX_RATIO = 500
"""Unpacked bytes a packed byte; photographs reach 1.1, drawings in BMP 50, a bomb of zeros 1,000."""
ALWAYS_ALLOWED_BYTES = 64 << 20

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
BROKEN_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Archive(Protocol):
    """Something that holds files under relative names with forward slashes."""

    path: Path

    def names(self) -> list[str]:
        """Return the names of all files, and of all folders with a slash at the end, sorted."""

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of the named files, in the order in which they lie."""

    def content_key(self) -> str:
        """Return a hexadecimal hash that changes when the content does."""


def open_archive(path: Path) -> Archive:
    """Return the reader for a directory, .tar, .tar.gz, .tgz or .zip. Raises DataError for anything else."""
    if path.is_dir():
        return DirectoryArchive(path)
    if path.name.lower().endswith(TAR_SUFFIXES):
        return TarArchive(path)
    if path.suffix.lower() == ".zip":
        return ZipArchive(path)
    raise DataError(f"{path} is neither a folder nor a .tar, .tar.gz, .tgz or .zip of class folders; pack the images so")


class DirectoryArchive:
    """A directory; links to files are followed, links to folders are not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Return the sorted names; folders end in a slash."""
        names: list[str] = []
        for folder, folders, files in os.walk(self.path):
            inside = Path(folder).relative_to(self.path)
            names += [(inside / name).as_posix() + "/" for name in folders]
            names += [(inside / name).as_posix() for name in files]
            _check_count(self.path, len(names))
        return sorted(names)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of the named files."""
        for name in sorted(names):
            path = self.path / name
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, and a device may never end
                    raise no_file(self.path, name)
                check_member(self.path, name, status.st_size)
                yield name, path.read_bytes()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}; give a file that you may read") from error

    def content_key(self) -> str:
        """Hash names, sizes and times of change, which takes 10 microseconds a file where reading all would take minutes."""
        digest = hashlib.sha256()
        for name in self.names():
            if not name.endswith("/"):
                status = (self.path / name).lstat()
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


class TarArchive:
    """A tar, gzipped or not, read as a stream from its beginning each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Return the sorted names; folders end in a slash."""
        with self._members() as members:
            return sorted({member.name.removeprefix("./") + "/" * member.isdir() for _, member in members})

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of the named files."""
        wanted = set(names)
        with self._members() as members:
            for tar, member in members:
                name = member.name.removeprefix("./")
                if name in wanted:
                    wanted.discard(name)
                    handle = tar.extractfile(member)
                    assert handle is not None
                    yield name, handle.read()
                    if not wanted:
                        return

    def content_key(self) -> str:
        """Hash the archive file."""
        return sha256_of_file(self.path)

    @contextmanager
    def _members(self) -> Iterator[Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]]:
        with _named_errors(self.path), self.path.open("rb") as packed:
            is_gzip = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            bounded = _BoundedStream(gzip.GzipFile(fileobj=packed) if is_gzip else packed, self.path)
            bounded.next_member()
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                yield self._checked(tar, bounded)

    def _checked(self, tar: tarfile.TarFile, stream: "_BoundedStream") -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        for count, member in enumerate(tar, 1):
            _check_count(self.path, count)
            if not (member.isreg() or member.isdir()) or member.issparse():  # a sparse file of 1 kB reads as GBs of zeros
                raise no_file(self.path, member.name)
            check_member(self.path, member.name, member.size)
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
            stream.next_member()
            yield tar, member


class ZipArchive:
    """A zip."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Return the sorted names; folders end in a slash."""
        with self._opened() as (_, members):
            return sorted(members)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of the named files."""
        with self._opened() as (handle, members):
            for name, member in members.items():
                if name in names:
                    yield name, handle.read(member)

    def content_key(self) -> str:
        """Hash the archive file."""
        return sha256_of_file(self.path)

    @contextmanager
    def _opened(self) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
        with _named_errors(self.path), zipfile.ZipFile(self.path) as handle:
            members = handle.infolist()
            _check_count(self.path, len(members))
            for member in members:
                if member.external_attr >> 28 not in (0, 0o4, 0o10):  # the Unix file types of nothing known, a folder and a file
                    raise no_file(self.path, member.filename)
                check_member(self.path, member.filename, member.file_size)
            _check_ratio(self.path, sum(member.file_size for member in members))
            yield handle, {member.filename: member for member in members}


class _BoundedStream(io.RawIOBase):
    """Hands out the bytes of `stream`, as many as an archive of this size can honestly hold, and not all in one header."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, path: Path) -> None:
        self.stream, self.path = stream, path
        self.total = 0
        self.limit = self.member_limit = _largest_honest(path)

    def next_member(self) -> None:
        """Allow one more member; tarfile reads the headers before it into memory, whatever their size."""
        self.member_limit = min(self.limit, self.total + 2 * MAX_MEMBER_BYTES)

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        self.total += len(content)
        if self.total > self.member_limit:
            raise _bomb(self.path)
        return content


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN_ARCHIVE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is not a whole archive: {reason}; fetch or pack it again") from error


def check_member(path: Path, name: str, num_bytes: int) -> None:
    """Raise DataError for a member whose name leads out of its archive, or that is too large for an image."""
    parts = PurePosixPath(name).parts
    if name.startswith(("/", "\\")) or ".." in parts or ":" in name[:2] or "\0" in name:
        raise DataError(f"{path}: the name {name!r} leads out of the archive; pack it with relative names")
    if num_bytes > MAX_MEMBER_BYTES:
        raise DataError(f"{path}: {name!r} has {num_bytes:,} bytes; an image may have {MAX_MEMBER_BYTES:,}")


def no_file(path: Path, name: str) -> DataError:
    """Return the error for a member that is a link or a device."""
    return DataError(f"{path}: {name!r} is a link or a device; only plain files and folders are read; leave it out")


def _check_count(path: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise DataError(f"{path} holds more than {MAX_MEMBERS:,} files; that many are not read into memory")


def _check_ratio(path: Path, num_bytes: int) -> None:
    if num_bytes > _largest_honest(path):
        raise _bomb(path)


def _largest_honest(path: Path) -> int:
    return max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * path.stat().st_size)


def _bomb(path: Path) -> DataError:
    return DataError(f"{path} unpacks to more than {MAX_RATIO} times its size; this is no archive of images")
