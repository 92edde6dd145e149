"""A dashboard in a process of its own, and what is sent to it over plain sockets."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

MOST_SECONDS = 60


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """`firstlight dashboard` over a folder of runs; use it in a `with` block. address: as it was printed, with the token."""

    def __init__(self, runs_dir: Path, cache: Path, *words: str) -> None:
        self.words = [sys.executable, "-m", "firstlight", "dashboard", "--port", "0", "--runs-dir", str(runs_dir), *words]
        self.environment = {**os.environ, "FIRSTLIGHT_CACHE": str(cache)}
        self.errors = cache / "stderr.txt"

    def __enter__(self) -> "Served":
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        found = re.fullmatch(r"http://([^:]+):(\d+)/\?token=([\w-]{43})", self.address)
        assert found, self.errors.read_text()
        self.host, self.port, self.token = found[1], int(found[2]), found[3]
        self.cookie = self.enter(self.token).headers["set-cookie"].partition(";")[0]
        self.wait_until_scanned()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(MOST_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def enter(self, token: str, **headers: str) -> Answer:
        return self.ask("GET", f"/?token={token}", cookie=None, **headers)

    def ask(self, method: str, path: str, *, cookie: str | None = "", body: bytes | None = None, **headers: str) -> Answer:
        """Send one request. cookie: "" sends the one we were given, None sends none."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie is not None:
            sent["Cookie"] = cookie or self.cookie
        connection = HTTPConnection(self.host, self.port, timeout=MOST_SECONDS)
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        found = Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def raw(self, target: bytes, *, method: bytes = b"GET", headers: Mapping[str, str] | None = None) -> bytes:
        """Send a request whose address is these very bytes, and return all that comes back."""
        lines = {"Host": f"{self.host}:{self.port}", "Cookie": self.cookie, "Connection": "close", **(headers or {})}
        head = b"".join(f"{name}: {value}\r\n".encode() for name, value in lines.items())
        with socket.create_connection((self.host, self.port), MOST_SECONDS) as connection:
            connection.sendall(method + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n")
            found = b""
            while piece := connection.recv(65536):
                found += piece
        return found

    def wait_until_scanned(self) -> None:
        self.wait_for(lambda: self.get("/api/version").json["scanned"])

    def wait_for(self, fact: Any) -> None:
        """Ask again and again until something holds."""
        ends = time.monotonic() + MOST_SECONDS
        while not fact():
            assert time.monotonic() < ends, "it did not come"
            time.sleep(0.02)
