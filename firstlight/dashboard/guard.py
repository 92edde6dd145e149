"""What stands before every page: only this machine's browser, with the token that the terminal printed, gets through.

Fault 51: the Host must be one of ours to the letter, which ends DNS rebinding; no other site may ask, whatever the method; there are no
CORS headers at all. Fault 52: a body has at most 1 MiB and 5 seconds.
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from h11 import LocalProtocolError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2**20
"""Bytes of a request's body."""
BODY_SECONDS = 5.0
"""Time in which a body must have come."""
MAX_TARGET = 8192
"""Bytes of an address with its query."""
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer."""
UNKNOWN = "Open the address that `firstlight dashboard` printed in the terminal: its token lets this browser in."


class Guard:
    """ASGI around the pages. hosts: the values of Host that are ours, such as `127.0.0.1:8765`; on_entry: called when a token was used."""

    def __init__(self, app: ASGIApp, *, hosts: set[str], cookie: str, body_seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = {f"http://{host}" for host in hosts}
        self.cookie = cookie
        self.body_seconds = body_seconds
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self.on_entry: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # no WebSockets here
            return await send({"type": "websocket.close", "code": 1008})
        send = _with_headers(send, no_store=not scope["path"].startswith("/static/"))
        refusal = self._refusal(scope) or self._entry(scope)
        if refusal is not None:
            return await refusal(scope, receive, send)
        return await self.app(scope, _Body(receive, self.body_seconds).receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that must not get through, None for one that may."""
        headers = _Headers(scope)
        if len(scope["raw_path"] or b"") + len(scope["query_string"]) > MAX_TARGET:
            return _answer(scope, 414, "the address is too long")
        hosts = headers.all("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return _answer(scope, 421, "this server has another name")
        origins, sites = headers.all("origin"), headers.all("sec-fetch-site")
        if any(origin not in self.origins for origin in origins) or any(site not in ("same-origin", "none") for site in sites):
            return _answer(scope, 403, "another site asked for this; open the page by its own address")
        if scope["method"] not in ("GET", "HEAD") and not origins:
            return _answer(scope, 403, "a request that sends something must say where it comes from (Origin)")
        lengths = headers.all("content-length")
        if any(not length.isdigit() or len(length) > 12 for length in lengths):
            return _answer(scope, 400, "Content-Length is no number")
        if any(int(length) > MAX_BODY for length in lengths):
            return _answer(scope, 413, f"a body has at most {MAX_BODY:,} bytes")
        if scope["method"] in ("GET", "HEAD") and (any(map(int, lengths)) or headers.all("transfer-encoding")):
            return _answer(scope, 400, "a question has no body")
        return None

    def _entry(self, scope: Scope) -> Response | None:
        """Let in who has the cookie; give it to who has the token, once."""
        try:
            cookies = SimpleCookie("; ".join(_Headers(scope).all("cookie")))
        except CookieError:
            cookies = SimpleCookie()
        known = self.cookie in cookies and _same(cookies[self.cookie].value, self._session)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", []) if b"token=" in scope["query_string"] else []
        if known and not given:
            return None
        if scope["path"] == "/" and scope["method"] == "GET" and given:
            fresh = _same(given[0], self.token) and not _Headers(scope).all("sec-purpose")  # a browser that fetches ahead is not its user
            if fresh or known:
                answer = Response(status_code=303, headers={"location": "/"})
                if fresh:
                    self.token = secrets.token_urlsafe(32)
                    answer.headers["set-cookie"] = f"{self.cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"
                    self.on_entry()
                return answer
        return None if known else _answer(scope, 401, UNKNOWN)


class _Body:
    """Receives the body of a request within its bounds."""

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._size = 0
        self._ends: float | None = None
        self._whole = False

    async def receive(self) -> Message:
        """Return the next message. Raises HTTPException."""
        if self._whole:
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._ends = self._ends or loop.time() + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(self._ends - loop.time(), 0.001))
        except TimeoutError:
            raise HTTPException(408, f"the body did not come within {self._seconds:g} seconds") from None
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY:
            raise HTTPException(413, f"a body has at most {MAX_BODY:,} bytes")
        self._whole = not message.get("more_body", False)
        return message


class _Headers:
    """The headers of a request as text."""

    def __init__(self, scope: Scope) -> None:
        self._raw = scope["headers"]

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._raw if key.lower() == wanted]


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _answer(scope: Scope, status: int, message: str) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": message}, status)
    return PlainTextResponse(f"{message}\n", status)


def _with_headers(send: Send, *, no_store: bool) -> Send:
    """Return a `send` that adds HEADERS; no_store: what is shown is not kept by the browser."""
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    added.append((b"cache-control", b"no-store" if no_store else b"no-cache"))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in added}
            message["headers"] = [pair for pair in message.get("headers", []) if pair[0].lower() not in names] + added
        with suppress(LocalProtocolError):  # the request broke off in its body: there is nobody to answer
            await send(message)

    return sending
