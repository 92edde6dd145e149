"""The dashboard as one Starlette application: its routes stand in one list."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from firstlight.dashboard import compare_page, inspection_page, lock_page, reports, run, runs, study_page
from firstlight.dashboard.index import Index
from firstlight.dashboard.lock import Lock
from firstlight.dashboard.lock_page import Door
from firstlight.dashboard.predict import Predictor
from firstlight.dashboard.render import answer, show_error
from firstlight.errors import FirstlightError

STATIC = Path(__file__).parent / "static"
REST = 20.0
"""Times the length of a scan that passes until the next: a folder of 100,000 runs takes 5 % of a core."""
LEAST_REST = 1.0
"""Seconds between two scans at least."""
ASLEEP_SECONDS = 30.0
"""Without a request for so long, nothing is scanned."""


async def version(request: Request) -> Response:
    """Answer how often the index changed, so that a page knows when to ask again."""
    index: Index = request.app.state.index
    request.app.state.asked = time.monotonic()
    return answer({"version": index.version, "scanned": index.scanned})


async def icon(request: Request) -> Response:
    """Answer with the icon, wherever a browser looks for one."""
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


ROUTES = [
    Route("/", runs.show_runs, name="runs"),
    Route("/compare", compare_page.show_compare, name="compare"),
    Route("/api/compare", compare_page.compare_json),
    Route("/studies", study_page.show_studies, name="studies"),
    Route("/study/{id}", study_page.show_study, name="study"),
    Route("/api/study/{id}", study_page.study_json),
    Route("/run/{id}/inspection", inspection_page.show_inspection, name="inspection"),
    Route("/api/run/{id}/inspection", inspection_page.inspection_json),
    Route("/run/{id}/file/{name}", inspection_page.inspection_file),
    Route("/run/{id}/predict", inspection_page.show_predict, name="predict"),
    Route("/api/run/{id}/predict", inspection_page.predict_json, methods=["POST"]),
    Route("/run/{id}", run.show_run, name="run"),
    Route("/api/run/{id}/curves", run.send_curves),
    Route("/api/run/{id}/events", run.send_events),
    Route("/reports", reports.show_reports, name="reports"),
    Route("/report/{id}", reports.send_report, name="report"),
    Route("/api/version", version),
    Route("/lock", lock_page.show_lock, name="lock"),
    Route("/api/lock/open", lock_page.ask_to_open, methods=["POST"]),
    Route("/api/lock/code", lock_page.ask_for_code, methods=["POST"]),
    Route("/favicon.ico", icon),
    Mount("/static", StaticFiles(directory=STATIC), name="static"),
]


def make_app(runs_dir: Path, *, cache: Path | None = None, door: Door | None = None) -> Starlette:
    """Return the pages over a folder of runs, without the guard.

    cache: the file of the index, by default in the user's cache folder; door: of the lock, by default the user's code and our network.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        scanning = asyncio.create_task(_keep_scanning(app))
        try:
            yield
        finally:
            scanning.cancel()
            with suppress(asyncio.CancelledError):
                await scanning
            app.state.predictor.close()
            app.state.index.close()

    handlers = {HTTPException: show_error, FirstlightError: show_error, Exception: show_error}
    app = Starlette(routes=ROUTES, lifespan=lifespan, exception_handlers=handlers)
    app.state.index = Index(runs_dir, cache)
    app.state.door = door or Door(Lock())
    app.state.predictor = Predictor()
    app.state.asked = time.monotonic()
    app.state.stopping = asyncio.Event()
    app.state.followers = {}
    return app


async def _keep_scanning(app: Starlette) -> None:
    """Scan again and again while somebody looks, in small pieces between the requests."""
    while True:
        began = time.monotonic()
        for _ in app.state.index.scan():
            await asyncio.sleep(0)
        await asyncio.sleep(max(LEAST_REST, REST * (time.monotonic() - began)))
        while time.monotonic() - app.state.asked > ASLEEP_SECONDS:
            await asyncio.sleep(LEAST_REST / 2)
