"""Downloads that are pinned by a digest: mirrors in order, resumed where they broke off, and local files for offline machines."""

import gzip
import hashlib
import http.client
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from firstlight.data.places import waiting_lock
from firstlight.errors import DataError
from firstlight.files import append_chunks, make_dir, move, remove, write_stream

CHUNK = 1 << 18
TIMEOUT_SECONDS = 30
NETWORK_ERRORS = (OSError, http.client.HTTPException)  # urllib's errors are OSErrors

Progress = Callable[[str, int, int], None]
"""Called with the name of a file, the bytes that are here, and the bytes that it has (0: the server does not say)."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set that can be fetched.

    name: where it belongs below the data folder. urls: the same file at several places, the best first.
    digest: "sha256:..." or "md5:..." of its content; size: bytes of that content.
    unzipped: digest and size are those of what the gzipped file holds, because its copies differ in their compression.
    """

    name: str
    urls: tuple[str, ...]
    digest: str
    size: int
    unzipped: bool = False


def fetch(files: Sequence[RemoteFile], folder: Path, progress: Progress | None = None) -> list[Path]:
    """Download what is not in the data folder yet, and return the paths of all files.

    Raises DataError that names each mirror with its reason, and keeps what has come for the next try.
    """
    return [_fetch_one(file, folder / file.name, progress or (lambda name, done, total: None)) for file in files]


def install_local(files: Sequence[RemoteFile], local_path: Path, folder: Path) -> list[Path]:
    """Copy a file that came by other means, or all files of a folder, into the data folder once their digests are checked.

    Returns the paths of what was copied. Raises DataError where a file is not one of `files`, or a folder lacks one.
    """
    if local_path.is_dir():
        sources = {file: _in_folder(local_path, PurePosixPath(file.name).name) for file in files}
    elif local_path.is_file():
        sources = {_recognise(local_path, files): local_path}
    else:
        raise DataError(f"{local_path} does not exist; give a file, or a folder with {', '.join(_base_names(files))}")
    for file, source in sources.items():
        problem = _problem(source, file)
        if problem:
            raise DataError(f"{source} is not the {PurePosixPath(file.name).name} that is wanted: {problem}; fetch it again")
    return [_copy(source, folder / file.name) for file, source in sources.items()]


def _base_names(files: Sequence[RemoteFile]) -> list[str]:
    return [PurePosixPath(file.name).name for file in files]


def _in_folder(folder: Path, name: str) -> Path:
    found = next((path for path in sorted(folder.rglob(name)) if path.is_file()), None)
    if found is None:
        raise DataError(f"{folder} holds no {name}; put it there, or give one file at a time")
    return found


def _recognise(path: Path, files: Sequence[RemoteFile]) -> RemoteFile:
    same_name = [file for file in files if PurePosixPath(file.name).name == path.name]
    match = next((file for file in [*same_name, *files] if _problem(path, file) is None), None)
    if match is None and not same_name:
        raise DataError(
            f"{path} is none of the files that are wanted ({', '.join(_base_names(files))}), by name or by content; give one of them"
        )
    return match or same_name[0]


def _copy(source: Path, target: Path) -> Path:
    make_dir(target.parent)
    if not (target.exists() and target.samefile(source)):
        with source.open("rb") as handle:
            write_stream(target, iter(lambda: handle.read(CHUNK), b""))
    return target


def _fetch_one(file: RemoteFile, target: Path, progress: Progress) -> Path:
    if _problem(target, file) is None:
        return target
    reasons = []
    with waiting_lock(target.parent, target.name):  # a second process waits, then finds the file here
        if _problem(target, file) is None:
            return target
        part = target.with_name(target.name + ".part")
        for url in file.urls:
            reason = _bring(url, part, file, progress)
            if reason is None:
                move(part, target)
                return target
            reasons.append(f"{url}: {reason}")
    kept = part.stat().st_size if part.exists() else 0
    goes_on = f"; {kept:,} bytes are kept in {part}, and the same command goes on from there" if kept else ""
    raise DataError(
        f"cannot fetch {target.name}: {'; '.join(reasons)}{goes_on}; where this machine is offline, download it on another one"
        " and run `firstlight data fetch NAME --from FILE`"
    )


def _bring(url: str, part: Path, file: RemoteFile, progress: Progress) -> str | None:
    """Bring `part` up to the whole file and check it; return the reason where that failed. What cannot be gone on from is removed."""
    went_on = part.exists()
    reason = _download(url, part, file, progress)
    if reason is not None:
        return reason
    problem = _problem(part, file)
    if problem is None:
        return None
    remove(part)
    return _bring(url, part, file, progress) if went_on else problem  # the fault may lie in what was there before


def _download(url: str, part: Path, file: RemoteFile, progress: Progress) -> str | None:
    """Bring `part` up to the whole file; return the reason where that failed, with `part` as far as it came."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "firstlight", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as reply:
            have = have if _resumes(reply, have) else 0
            if "html" in reply.headers.get_content_type():
                return "the server sent a web page in place of the file"
            length = int(reply.headers.get("Content-Length") or 0)
            if have + length > file.size:
                return f"the server offers {have + length:,} bytes, expected {'at most ' * file.unzipped}{file.size:,}"
            total = have + length if length else 0
            reason = _receive(reply, part, file, have, lambda done: progress(part.stem, done, total))
            done = part.stat().st_size
            return reason or (f"the connection broke after {done:,} of {total:,} bytes" if done < total else None)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond the end of `part`: it is whole, or of another file
            return None
        return f"the server answered {error.code} {error.reason}"
    except (*NETWORK_ERRORS, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _resumes(reply: http.client.HTTPResponse, have: int) -> bool:
    return reply.status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _receive(reply: http.client.HTTPResponse, part: Path, file: RemoteFile, have: int, progress: Callable[[int], None]) -> str | None:
    """Append what the server sends to the first `have` bytes of `part`; whatever ends it, what has come is kept."""
    broken: list[Exception] = []

    def chunks() -> Iterator[bytes]:
        done = have
        try:
            while (chunk := reply.read1(CHUNK)) and done <= file.size:
                yield chunk
                done += len(chunk)
                progress(done)
        except NETWORK_ERRORS as error:
            broken.append(error)

    append_chunks(part, have, chunks())
    return f"the connection broke ({broken[0]})" if broken else None


def _problem(path: Path, file: RemoteFile) -> str | None:
    """Return what is wrong with the content at `path`, or None where it is the file."""
    if not path.is_file():
        return "nothing came"
    algorithm, _, expected = file.digest.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size = 0
    try:
        with gzip.open(path) if file.unzipped else path.open("rb") as handle:
            while (chunk := handle.read(CHUNK)) and size <= file.size:
                digest.update(chunk)
                size += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        return f"it is damaged or incomplete ({error})"
    if size != file.size:
        return f"it has {'more than ' * (size > file.size)}{min(size, file.size):,} bytes, expected {file.size:,}"
    return None if digest.hexdigest() == expected else f"its {algorithm} is {digest.hexdigest()}, expected {expected}"
