"""A headless Chromium, driven over a pipe in its own protocol: what a page says, how it looks, how soon it stands. No further package.

FIRSTLIGHT_CHROMIUM names the program; else it is looked for on the PATH.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MOST_SECONDS = 60
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run")


def find_chromium() -> str | None:
    """Return the path of the program, None where there is none."""
    chosen = os.environ.get("FIRSTLIGHT_CHROMIUM")
    return chosen or next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A browser with one tab; use it in a `with` block. messages: what pages wrote to the console, errors and refused loads included."""

    def __init__(self, downloads: Path | None = None) -> None:
        self.downloads = downloads
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._number = 0
        self._rest = b""

    def __enter__(self) -> "Chromium":
        program = find_chromium()
        assert program is not None, "no chromium on the PATH; apt-get install chromium, or set FIRSTLIGHT_CHROMIUM"
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        words = [program, *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={self._home.name}"]
        shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'  # Chromium reads its orders from 3 and answers on 4
        self._process = subprocess.Popen(
            ["bash", "-c", shell, *words],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        if self.downloads is not None:
            session, self._session = self._session, None
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)
            self._session = session
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._home.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Carry out one method of the protocol, and return its result."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._out, json.dumps(order).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]  # type: ignore[no-any-return]
            self._events.append(answer)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait until the browser tells of an event, such as Page.loadEventFired, and return what it says."""
        while True:
            for index, one in enumerate(self._events):
                if one.get("method") == event:
                    del self._events[: index + 1]
                    return one["params"]  # type: ignore[no-any-return]
            self._events.append(self._read())

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of so many pixels, and wait until all of it stands."""
        self.messages, self.requests, self._events = [], [], []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def run(self, expression: str) -> Any:
        """Return what a line of JavaScript evaluates to in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def type(self, selector: str, text: str) -> None:
        """Click an element and type into it."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def screenshot(self, *, whole: bool = False, clip: Mapping[str, float] | None = None) -> bytes:
        """Return the window, or the whole page, as PNG."""
        more = {"clip": {**clip, "scale": 1}} if clip else {}
        return base64.b64decode(
            self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole or bool(clip), **more)["data"]
        )

    def pdf(self) -> bytes:
        """Return the page as it prints on A4."""
        return base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=False)["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._in, 2**20)
            assert chunk, "the browser is gone"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        self._note(answer.get("method"), answer.get("params", {}))
        return answer

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(word.get("value", word.get("description"))) for word in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
