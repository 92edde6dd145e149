"""The server of the pages: on this machine alone unless told otherwise, gone at Ctrl-C whatever browsers still hold open."""

import errno
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from firstlight.dashboard.app import make_app
from firstlight.dashboard.guard import Guard
from firstlight.dashboard.lock_page import Door
from firstlight.errors import ConfigError
from firstlight.files import may_open

PORT = 8765
"""Where the pages are unless --port says otherwise; 0 takes any that is free."""
LOCAL = ("127.0.0.1", "localhost", "[::1]")
GRACE_SECONDS = 2
"""Time that open answers have at the end."""
MAX_CONNECTIONS = 2000


def serve(
    runs_dir: Path, *, host: str = "127.0.0.1", port: int | None = None, opened: bool = False, door: Door | None = None, entry: str = ""
) -> None:
    """Serve the pages until Ctrl-C or SIGTERM.

    port: None takes 8765, or a free one where that is in use; opened: open a browser; door: of the lock; entry: the page of the address.

    Raises ConfigError where the address cannot be had.
    """
    listening = bind(host, port)
    port = listening.getsockname()[1]
    guard = Guard(make_app(runs_dir, door=door), hosts=hosts_of(host, port), cookie=f"firstlight-{port}")
    address = f"http://{shown_host(host)}:{port}/{entry}"
    guard.on_entry = lambda: say(f"opened; for another browser: {address}?token={guard.token}")
    may_open(2 * MAX_CONNECTIONS)
    config = uvicorn.Config(
        guard, log_level="error", access_log=False, ws="none", http="h11", loop="asyncio", lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS, limit_concurrency=MAX_CONNECTIONS, server_header=False, date_header=False,
        timeout_keep_alive=30, proxy_headers=False, h11_max_incomplete_event_size=2**16,
    )  # fmt: skip
    server = _Server(config, guard)
    say(f"runs in {runs_dir}")
    if host not in ("127.0.0.1", "::1", "localhost"):
        say(f"warning: reachable from other machines ({host}), without encryption; whoever sees this address gets in")
    print(f"{address}?token={guard.token}", flush=True)
    say("Ctrl-C ends it; trainings do not depend on it")
    if opened:
        import webbrowser

        webbrowser.open(f"{address}?token={guard.token}")
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Tells open streams to end as soon as a signal comes; uvicorn would wait for them."""

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self._stopping = guard.app.state.stopping  # type: ignore[attr-defined]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; a second Ctrl-C ends at once. (uvicorn's own would raise the signal again when all is closed.)"""
        self._stopping.set()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens. port: None takes PORT, or a free one where that is in use. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (PORT, 0) if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sends at once only where that is named
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(128)
        except (OSError, OverflowError) as error:
            listening.close()
            if port is None and number and isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                continue
            raise _problem(error, host, number) from None
        return listening
    raise AssertionError


def _problem(error: Exception, host: str, port: int) -> ConfigError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return ConfigError(f"port {port} is in use; choose another --port, or leave it out to take a free one")
    if number == errno.EACCES:
        return ConfigError(f"port {port} is not ours to take; choose a --port of 1024 or more")
    if isinstance(error, OverflowError):
        return ConfigError(f"--port {port} is no port; choose one from 1024 to 65535, or 0 for any that is free")
    reason = getattr(error, "strerror", None) or error
    return ConfigError(f"cannot listen at {host}:{port} ({reason}); leave --host out, or name an address of this machine")


def hosts_of(host: str, port: int) -> set[str]:
    """Return the values of the Host header that this server answers to."""
    names = {*LOCAL}
    if host in ("0.0.0.0", "::"):
        names |= {socket.gethostname().lower(), shown_host(host)}
    elif host not in ("127.0.0.1", "::1", "localhost"):
        names.add(shown_host(host))
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


def shown_host(host: str) -> str:
    """Return a host as an address names it; for one that means every interface, the address of this machine in its network."""
    if host in ("0.0.0.0", "::"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect(("192.0.2.1", 9))  # sends nothing; it asks which of our addresses would be used
                return str(asking.getsockname()[0])
            except OSError:
                return "127.0.0.1"
    return f"[{host}]" if ":" in host else host.lower()


def say(text: str) -> None:
    """Print a line for people."""
    print(text, file=sys.stderr, flush=True)
