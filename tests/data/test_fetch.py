"""Faults 41 and 43: downloads from a real server on this machine."""

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from firstlight.data.fetch import RemoteFile, fetch, install_local
from firstlight.errors import DataError

ROOT = Path(__file__).parents[2]
CONTENT = os.urandom(1_000_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /good, half of it with the whole length at /broken, half of it and then silence at /slow, and other things."""

    requests: list[tuple[str, str | None]]
    may_go_on: threading.Event


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/no-ranges" else 0
        if self.path == "/gone":
            return self.send_error(404)
        if start >= len(CONTENT):
            return self.send_error(416)
        content, kind = CONTENT[start:], "application/octet-stream"
        if self.path == "/page":
            content, kind = b"<html>please log in</html>", "text/html"
        if self.path == "/other":
            content = bytes(len(CONTENT))
        if self.path == "/long":
            content = bytes(2 * len(CONTENT) - start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path in ("/broken", "/slow") else content)
        if self.path == "/slow":
            self.wfile.flush()
            self.server.may_go_on.wait()
            self.wfile.write(content[len(content) // 2 :])
        return None

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server(("127.0.0.1", 0), Handler)
    running.requests, running.may_go_on = [], threading.Event()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.may_go_on.set()
    running.shutdown()
    thread.join()
    running.server_close()


def remote(server: Server, *paths: str, digest: str = SHA256) -> RemoteFile:
    urls = tuple(f"http://127.0.0.1:{server.server_address[1]}{path}" for path in paths)
    return RemoteFile("sub/file.bin", urls, digest, len(CONTENT))


def test_download_once(server: Server, tmp_path: Path):
    """A9: a second run downloads nothing."""
    seen: list[tuple[str, int, int]] = []
    for _ in range(2):
        (path,) = fetch([remote(server, "/good")], tmp_path, lambda *progress: seen.append(progress))
        assert (path, path.read_bytes()) == (tmp_path / "sub/file.bin", CONTENT)
    assert server.requests == [("/good", None)]
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path):
    """Fault 41: the message names the address, what was kept and where, and the way without a network."""
    kept = rf"500,000 bytes are kept in {tmp_path}/sub/file.bin.part, and the same command goes on from there"
    with pytest.raises(DataError, match=rf"/broken: the connection broke after 500,000 of 1,000,000 bytes; {kept};.*--from FILE"):
        fetch([remote(server, "/broken")], tmp_path)
    assert (tmp_path / "sub/file.bin.part").read_bytes() == CONTENT[:500_000]
    (path,) = fetch([remote(server, "/good")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/good", "bytes=500000-")
    assert not (tmp_path / "sub/file.bin.part").exists()


FETCH = """
import sys
from pathlib import Path
from firstlight.data.fetch import RemoteFile, fetch
url, digest, size, folder = sys.argv[1:]
file = RemoteFile("sub/file.bin", (url,), digest, int(size))
print(*fetch([file], Path(folder), lambda name, done, total: print(done, flush=True)))
"""


def fetching(server: Server, path: str, folder: Path) -> "subprocess.Popen[str]":
    """Start a process that fetches and prints how many bytes it has, whenever more have come."""
    url = remote(server, path).urls[0]
    command = [sys.executable, "-c", FETCH, url, SHA256, str(len(CONTENT)), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def wait_for_half(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    while int(process.stdout.readline()) < len(CONTENT) // 2:
        pass


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_download_goes_on_from_its_last_byte(server: Server, tmp_path: Path, kill: signal.Signals):
    """Fault 41: what came before kill -9 lies on the disk, and is not asked for again."""
    with fetching(server, "/slow", tmp_path) as process:
        wait_for_half(process)
        process.send_signal(kill)
        assert process.wait() == -kill
    assert (tmp_path / "sub/file.bin.part").read_bytes() == CONTENT[:500_000]
    assert not (tmp_path / "sub/file.bin").exists()
    assert fetch([remote(server, "/good")], tmp_path)[0].read_bytes() == CONTENT
    assert server.requests == [("/slow", None), ("/good", "bytes=500000-")]
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == [".file.bin.lock", "file.bin"]


def test_a_second_process_waits_for_the_download_and_takes_it(server: Server, tmp_path: Path):
    """Fault 43: one request between the two."""
    with fetching(server, "/slow", tmp_path) as first:
        wait_for_half(first)
        with fetching(server, "/good", tmp_path) as second:
            server.may_go_on.set()
            assert second.communicate()[0] == f"{tmp_path}/sub/file.bin\n"
        assert first.communicate()[0].endswith(f"{tmp_path}/sub/file.bin\n")
    assert server.requests == [("/slow", None)]
    assert (tmp_path / "sub/file.bin").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_begins_anew(server: Server, tmp_path: Path):
    with pytest.raises(DataError):
        fetch([remote(server, "/broken")], tmp_path)
    assert fetch([remote(server, "/no-ranges")], tmp_path)[0].read_bytes() == CONTENT


def test_ctrl_c_keeps_what_has_come(server: Server, tmp_path: Path):
    def interrupt(name: str, done: int, total: int) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([remote(server, "/good")], tmp_path, interrupt)
    part = (tmp_path / "sub/file.bin.part").read_bytes()
    assert len(part) > 500_000
    assert part == CONTENT[: len(part)]


def test_mirrors_in_order(server: Server, tmp_path: Path):
    (path,) = fetch([remote(server, "/gone", "/page", "/other", "/long", "/broken", "/good")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/good", "bytes=500000-")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone", "answered 404"),
        ("/page", "a web page in place of the file"),
        ("/other", "its sha256 is [0-9a-f]{64}, expected"),
        ("/long", "offers 2,000,000 bytes, expected 1,000,000"),
    ],
)
def test_wrong_content_is_never_installed(server: Server, tmp_path: Path, path: str, reason: str):
    with pytest.raises(DataError, match=reason):
        fetch([remote(server, path)], tmp_path)
    assert not (tmp_path / "sub/file.bin").exists()
    assert not (tmp_path / "sub/file.bin.part").exists()


def test_a_whole_part_is_taken_and_a_wrong_one_dropped(server: Server, tmp_path: Path):
    """Fault 41: a part of another file, as a power loss can leave one, costs a second request and not a second command."""
    part = tmp_path / "sub/file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert fetch([remote(server, "/good")], tmp_path)[0].read_bytes() == CONTENT
    for size in (1000, len(CONTENT)):
        (tmp_path / "sub/file.bin").unlink()
        part.write_bytes(bytes(size))
        assert fetch([remote(server, "/good")], tmp_path)[0].read_bytes() == CONTENT
        assert server.requests[-2:] == [("/good", f"bytes={size}-"), ("/good", None)]


def test_a_mirror_with_another_file_costs_nothing_that_has_come(server: Server, tmp_path: Path):
    """Fault 41."""
    with pytest.raises(DataError, match=r"offers 2,000,000 bytes.*web page.*500,000 bytes are kept"):
        fetch([remote(server, "/broken", "/long", "/page")], tmp_path)


def test_offline(server: Server, tmp_path: Path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"cannot fetch file.bin: .*refused.*where this machine is offline.*--from FILE"):
        fetch([remote(server, "/good")], tmp_path)


def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file.bin").write_bytes(CONTENT[:-1])
    assert fetch([remote(server, "/good")], tmp_path)[0].read_bytes() == CONTENT


PLAIN = bytes(range(256)) * 100
FILES = (
    RemoteFile("raw/a.gz", (), "md5:" + hashlib.md5(PLAIN).hexdigest(), len(PLAIN), unzipped=True),
    RemoteFile("raw/b.bin", (), SHA256, len(CONTENT)),
)


def test_local_files_by_name_by_content_and_by_folder(tmp_path: Path):
    """The digest is that of the unzipped content, so that any compression will do."""
    source, data = tmp_path / "stick", tmp_path / "data"
    source.mkdir()
    (source / "a.gz").write_bytes(gzip.compress(PLAIN, 1))
    (source / "renamed").write_bytes(CONTENT)
    assert install_local(FILES, source / "a.gz", data) == [data / "raw/a.gz"]
    assert install_local(FILES, source / "renamed", data) == [data / "raw/b.bin"]
    (source / "renamed").rename(source / "b.bin")
    assert install_local(FILES, source, tmp_path / "again") == [tmp_path / "again/raw/a.gz", tmp_path / "again/raw/b.bin"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gz", gzip.compress(PLAIN[:-1]), "it has 25,599 bytes, expected 25,600"),
        ("a.gz", gzip.compress(PLAIN + bytes(1 << 20)), "it has more than 25,600 bytes"),
        ("a.gz", gzip.compress(PLAIN)[:-9], "damaged or incomplete"),
        ("b.bin", bytes(len(CONTENT)), "its sha256 is"),
        ("c.bin", b"", r"none of the files that are wanted \(a.gz, b.bin\)"),
    ],
)
def test_wrong_local_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        install_local(FILES, tmp_path / name, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_lacks_a_file_and_a_path_that_is_not_there(tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(PLAIN))
    with pytest.raises(DataError, match=r"holds no b.bin"):
        install_local(FILES, tmp_path, tmp_path / "data")
    with pytest.raises(DataError, match="does not exist"):
        install_local(FILES, tmp_path / "nowhere", tmp_path / "data")
