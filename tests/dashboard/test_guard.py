"""Who gets through to the pages: SPEC F5, faults 50, 51 and 52, over real sockets and a real server."""

import asyncio
import itertools
import json
import os
import random
import re
import shutil
import socket
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from firstlight.dashboard.guard import MAX_BODY, Guard
from tests.dashboard.folders import write_run
from tests.dashboard.served import Served

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "{{ 7 * 7 }}", "{% for x in y %}", "${7*7}",
    "a&b", "a'b", 'a"b', "=1+1", "+1", "@SUM(1)", "javascript:alert(1)", "..", "%2e%2e", "a%00b", "name with blanks", "日本語", "עברית",
    "\u202egnp.exe", "e\u0301", "emoji 🎉", "a" * 200, "'; DROP TABLE runs; --", "%", "_", "#top", "?q=1", "a=b", "a>b", "CON", "nul.txt",
    "~",
    "*", "[a-z]", "$(id)", "`id`", "|ls", "&&", "a,b", "a;b", "<!--", "]]>", "</style>", "</title>", "<base href=//evil>", "&lt;script&gt;",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over one plain run and a hundred with hostile names and notes; a secret lies beside their folder."""
    home = tmp_path_factory.mktemp("served")
    (home / "secret.txt").write_text("SECRET")
    write_run(home / "runs" / "plain")
    (home / "runs" / "plain" / "report.html").write_text("<html>a report</html>")
    names = [name for name in HOSTILE if name != ".."]
    names += [f"{name[:150]} {number}" for number, name in zip(range(100 - len(names)), itertools.cycle(names), strict=False)]
    for name in names:
        run = home / "runs" / name.replace("/", "_")  # a name that `firstlight train` would refuse
        shutil.copytree(home / "runs" / "plain", run, ignore=lambda *_: ["report.html"])
        info = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**info, "notes": [name], "tags": [name]}))
    with Served(home / "runs", home) as server:
        yield server


def test_every_cell_of_hosts_origins_and_methods(served: Served) -> None:
    """Fault 51: of 12 Hosts x 6 Origins x 4 methods only our own get through, and only to read."""
    port = served.port
    ours = [f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"]
    foreign = [
        "evil.example", f"evil.example:{port}", f"127.0.0.1:{port + 1}", "127.0.0.1", f"localhost.evil.example:{port}", f"0.0.0.0:{port}",
        f"127.0.0.1:{port}@evil.example", "", f"2130706433:{port}",
    ]  # fmt: skip
    origins = [None, f"http://127.0.0.1:{port}", f"http://localhost:{port}", "null", "http://evil.example", f"https://127.0.0.1:{port}"]
    passed = []
    for host, origin, method in itertools.product([*ours, *foreign], origins, ("GET", "HEAD", "POST", "OPTIONS")):
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        found = served.raw(b"/api/version", method=method.encode(), headers=headers)
        status = int(found.split(b" ", 2)[1])
        assert b"access-control" not in found.lower()
        assert status != 500 and b"SECRET" not in found
        if status == 200:
            passed.append((host, origin, method))
        else:
            assert status in (400, 403, 405, 421), (host, origin, method, status)
    assert passed == list(itertools.product(ours, origins[:3], ("GET", "HEAD")))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "whatever"])
def test_a_page_of_another_site_gets_nothing(served: Served, site: str) -> None:
    """Fault 51: Sec-Fetch-Site, on pages, data and streams alike."""
    for path in ("/", "/api/version", "/static/page.css", f"/api/run/{'0' * 16}/events"):
        assert served.ask("GET", path, Sec_Fetch_Site=site).status == 403


def test_two_hosts_or_a_websocket_are_refused(served: Served) -> None:
    """Fault 51."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nHost: evil.example\r\n\r\n".encode()
    with socket.create_connection((served.host, served.port), 20) as connection:
        connection.sendall(request)
        assert int(connection.recv(65536).split(b" ", 2)[1]) in (400, 421)
    upgrade = {"Connection": "Upgrade, close", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 22 + "=="}
    assert b" 101 " not in served.raw(b"/", headers=upgrade)


def test_a_token_lets_one_browser_in(served: Served) -> None:
    """Fault 51: the printed token works once; the cookie is HttpOnly and SameSite=Strict; without either nothing is shown."""
    for path in ("/", "/api/version", "/reports", "/static/page.css", "/favicon.ico", "/nothing"):
        assert served.ask("GET", path, cookie=None).status == 401
        assert served.ask("GET", path, cookie="firstlight-1=x; other=y").status == 401
        assert served.ask("GET", path, cookie='"; ;=,\\').status == 401
    assert served.enter(served.token).status == 401  # used when the server was started
    fresh = re.findall(r"token=([\w-]{43})", served.errors.read_text())[-1]
    assert served.enter(fresh, Sec_Purpose="prefetch;prerender").status == 401
    entry = served.enter(fresh)
    assert (entry.status, entry.headers["location"]) == (303, "/")
    assert entry.headers["set-cookie"].endswith("; HttpOnly; SameSite=Strict; Path=/")
    assert served.enter(fresh).status == 401
    assert served.get(f"/?token={fresh}").status == 303  # whoever is in already loses nothing by an old address


def test_headers_of_every_answer(served: Served) -> None:
    """Fault 50: the policy has no exception for inline scripts or styles; data are not kept by the browser."""
    for path in ("/", "/api/version", "/nothing", "/static/page.css", "/run/0"):
        headers = served.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';") and "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


def traversals() -> list[bytes]:
    """200 addresses that try to leave the folder."""
    ups = [
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%252f",
        "%252e%252e%252f",
        "..\\",
        "..%5c",
        "..;/",
        "%c0%ae%c0%ae/",
        "..%00/",
        "....//",
        "../\x0b",
    ]
    targets = ["secret.txt", "etc/passwd", "plain/run.json", "runs/plain/config.yaml"]
    places = ["/", "/static/", "/run/", "/report/", "/api/run/"]
    found = [f"{place}{up * depth}{target}" for place, up, target, depth in itertools.product(places, ups, targets, (1, 6))]
    found += ["/report/plain", "/run/plain%00", "//etc/passwd", "/static//etc/passwd", "file:///etc/passwd", "/static/uplot/../../index.py"]
    random.Random(0).shuffle(found)
    return [one.encode("latin-1") for one in found[:200]]


def test_no_address_leaves_the_folder(served: Served) -> None:
    """Fault 50: 200 traversal strings over raw sockets."""
    for target in traversals():
        found = served.raw(target)
        status = int(found.split(b" ", 2)[1])
        assert status in (400, 401, 404, 405), (target, status)
        assert b"SECRET" not in found and b"root:" not in found and b"best_epoch" not in found
    assert served.get("/").status == 200


def test_a_link_in_a_run_folder_is_not_followed(served: Served, tmp_path: Path) -> None:
    """Fault 50: log.txt and report.html that are links to a file elsewhere."""
    runs = Path(served.words[served.words.index("--runs-dir") + 1])
    run = write_run(runs / "linked")
    for name in ("log.txt", "report.html"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(runs.parent / "secret.txt")
    served.wait_for(lambda: "linked" in served.get("/?q=linked").text.partition("<tbody>")[2])
    run_id = served.get("/?q=linked").text.partition("/run/")[2][:16]
    assert "SECRET" not in served.get(f"/run/{run_id}").text
    assert served.get(f"/report/{run_id}").status == 404


def test_a_hundred_hostile_names_are_text(served: Served) -> None:
    """Fault 50: names, notes and tags stand escaped on the list, on their pages, in groups and reports."""
    page = served.get("/?show=note&show=tag&sort=name&order=asc").text + served.get("/?show=note&show=tag&sort=name&order=asc&page=2").text
    for name in HOSTILE:
        assert name == ".." or name[:200] in unescape(page)
    assert "onerror=alert(1)>" not in page and "<script>alert" not in page and "<svg onload" not in page
    for run_id in re.findall(r'href="/run/([0-9a-f]{16})"', page):
        found = served.get(f"/run/{run_id}")
        assert found.status == 200
        assert not re.search(r"<(script>alert|img src=x|svg onload|base href)", found.text)
    for group in ("tag", "note", "name", "state", "study"):
        found = served.get(f"/?group={group}")
        assert found.status == 200 and "<script>alert" not in found.text
        for link in re.findall(r'<th scope="row"><a href="([^"]+)"', found.text):
            assert served.get(unescape(link)).status == 200


def test_queries_of_any_bytes_are_answered(served: Served) -> None:
    """Fault 52: 300 drawn queries, none an error 500."""
    draw = random.Random(0)
    pieces = [
        "q=",
        "sort=",
        "group=",
        "page=",
        "order=",
        "show=",
        "&",
        "=",
        ">",
        "<",
        "!",
        "%00",
        "%ff",
        "%F0%9F%8E%89",
        "val_accuracy",
        "name",
        "'",
        '"',
    ]
    pieces += [
        "optim.lr>",
        "1e9",
        "-1",
        "9" * 30,
        "*",
        "[",
        "\\",
        "%27",
        "%22",
        "id",
        "f0",
        "path",
        "started>",
        "tag",
        "tag=",
        " ".replace(" ", "+"),
        "damage",
    ]
    for _ in range(300):
        query = "".join(draw.choices(pieces, k=draw.randint(1, 12)))
        assert served.get(f"/?{query}").status == 200, query


def test_malformed_requests_leave_the_server_alive(served: Served) -> None:
    """Fault 52: broken bytes, unfinished requests, bodies where none belong."""
    port = served.port
    head = f"Host: 127.0.0.1:{port}\r\nCookie: {served.cookie}\r\n".encode()
    requests = [
        b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + head + b"Content-Length: -5\r\n\r\n", b"GET / HTTP/1.1\r\n" + head + b"Content-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\n" + head + b"Content-Length: 99999999999\r\n\r\n",
        b"GET /?" + b"a" * 20_000 + b" HTTP/1.1\r\n" + head + b"\r\n", os.urandom(5000), b"GET / HTTP/1.1\r\n" + head,
    ]  # fmt: skip
    for request in requests:
        with socket.create_connection((served.host, port), 20) as connection:
            connection.settimeout(2)
            found = b""
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                found = connection.recv(65536)
            except OSError:
                pass
            assert not found or 400 <= int(found.split(b" ", 2)[1]) < 500, request[:60]
    idle = [socket.create_connection((served.host, port), 20) for _ in range(500)]
    assert served.get("/").status == 200
    for one in idle:
        one.close()
    assert served.process.poll() is None
    assert "Traceback" not in served.errors.read_text()


def test_what_is_not_offered_says_so(served: Served) -> None:
    """Reading only: nothing answers to POST, PUT or DELETE; an unknown run is 404 as a page and as JSON."""
    origin = f"http://127.0.0.1:{served.port}"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert served.ask(method, "/", Origin=origin).status == 405
        assert served.ask(method, "/").status == 403
    assert "text/html" in served.get("/run/0").headers["content-type"]
    assert served.get("/api/run/0/curves").json == {"error": "no run has this address; it may have been removed or renamed"}


def ask_guard(body: list[dict[str, Any]], headers: dict[str, str], *, seconds: float = 5.0, stall: bool = False) -> tuple[int, bytes]:
    """Send a body to a route that reads it, straight through the guard; return status and answer."""

    async def echo(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    guard = Guard(Starlette(routes=[Route("/echo", echo, methods=["POST"])]), hosts={"h:1"}, cookie="c", body_seconds=seconds)
    sent: list[dict[str, Any]] = []
    messages = iter(body)

    async def receive() -> Any:
        if stall or (message := next(messages, None)) is None:
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        entry = {
            "path": "/",
            "raw_path": b"/",
            "method": "GET",
            "query_string": f"token={guard.token}".encode(),
            "headers": [(b"host", b"h:1")],
        }
        await guard({"type": "http", **entry}, receive, send)
        cookie = dict(sent[0]["headers"])[b"set-cookie"].split(b";")[0]
        sent.clear()
        pairs = [
            (b"host", b"h:1"),
            (b"origin", b"http://h:1"),
            (b"cookie", cookie),
            *((k.encode(), v.encode()) for k, v in headers.items()),
        ]
        scope = {"type": "http", "path": "/echo", "raw_path": b"/echo", "method": "POST", "query_string": b"", "headers": pairs}
        await guard(scope, receive, send)

    asyncio.run(run())
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def chunk(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


def test_a_body_has_a_bound_and_a_time(tmp_path: Path) -> None:
    """Fault 52: oversized as it says or as it comes, slow, and without a length."""
    assert ask_guard([chunk(b"x" * MAX_BODY)], {}) == (200, str(MAX_BODY).encode())
    assert ask_guard([chunk(b"x" * MAX_BODY, more=True), chunk(b"x")], {})[0] == 413
    assert ask_guard([], {"content-length": str(MAX_BODY + 1)})[0] == 413
    assert ask_guard([], {"content-length": "many"})[0] == 400
    assert ask_guard([], {}, seconds=0.05, stall=True)[0] == 408
    assert ask_guard([chunk(b"x", more=True)], {}, seconds=0.05)[0] == 408
