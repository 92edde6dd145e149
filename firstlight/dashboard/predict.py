"""Predictions on an image that a browser sent, made in one child process under limits; the server itself imports no torch."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from firstlight import errors
from firstlight.engine.children import Child
from firstlight.errors import FirstlightError

CHILD = "firstlight.dashboard.predict_child"
SECONDS = 60.0
"""Time in which a prediction must be there, the start of the process included; importing torch takes most of it."""
IDLE_SECONDS = 120.0
"""Time without a question after which the process is ended: it holds some 400 MB."""
MAX_WAITING = 4
"""Questions that may wait for the one before them."""


class Predictor:
    """The child process that looks at images; started when it is first asked, ended when it idles."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._ends: asyncio.TimerHandle | None = None

    async def ask(self, run: Path, content: bytes) -> dict[str, Any]:
        """Return what predict_child.look returns. Raises FirstlightError as it does, HTTPException where it was too slow or too busy."""
        if self._waiting >= MAX_WAITING:
            raise HTTPException(503, "too many images at once; try again in a moment")
        self._waiting += 1
        try:
            async with self._lock:
                if self._ends is not None:
                    self._ends.cancel()
                try:
                    return await self._ask(run, content)
                finally:
                    self._ends = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.close)
        finally:
            self._waiting -= 1

    async def _ask(self, run: Path, content: bytes) -> dict[str, Any]:
        thinking = asyncio.ensure_future(asyncio.to_thread(self._tell, run, content))
        try:
            found = await asyncio.wait_for(asyncio.shield(thinking), SECONDS)
        except TimeoutError:
            self.close()  # which ends the thread too: what it reads from has gone
            with suppress(Exception):
                await thinking
            raise HTTPException(503, f"no answer within {SECONDS:g} seconds; the machine may be busy, so try again") from None
        if found is None:
            self.close()
            raise HTTPException(
                503, "the process that looks at images died, perhaps for want of memory; try again, or take a smaller network"
            )
        if "error" in found:
            kind, what = found["error"]
            raise getattr(errors, kind, FirstlightError)(what)
        return found

    def _tell(self, run: Path, content: bytes) -> dict[str, Any] | None:
        if self._child is None or not self._child.alive:
            self._child = Child(CHILD, {})
        return self._child.tell(json.dumps({"run": str(run), "num_bytes": len(content)}).encode() + b"\n", content)

    def close(self) -> None:
        """End the process, if there is one."""
        child, self._child = self._child, None
        if self._ends is not None:
            self._ends.cancel()
        if child is not None:
            child.close()
