"""The page that puts runs side by side: `/compare?runs=ID&runs=ID`."""

import asyncio
from pathlib import Path
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from firstlight.dashboard.index import Index
from firstlight.dashboard.render import answer, page

MAX_RUNS = 20
"""Runs on one page; more curves cannot be told apart."""


async def show_compare(request: Request) -> Response:
    """Show several runs on the same axes; the figures come from compare_json."""
    return page(request, "compare.html", ids=list(_chosen(request)), query=urlencode([("runs", key) for key in _chosen(request)]))


async def compare_json(request: Request) -> Response:
    """Answer with what the runs say together; with nothing (204) where that is still what the stamp in `since` stands for."""
    from firstlight.dashboard.compare import comparison_data, read_run, stamp_of

    stamps = {key: (path, stamp_of(path)) for key, path in _chosen(request).items()}
    stamp = "_".join(text for _, text in stamps.values())
    if request.query_params.get("since") == stamp:
        return Response(status_code=204)
    runs = {key: read_run(*found) for key, found in stamps.items()}
    return answer({"stamp": stamp, **await asyncio.to_thread(comparison_data, runs)})


def _chosen(request: Request) -> dict[str, Path]:
    """Return the folders of the runs that an address names, by id. Raises HTTPException for one that is not there, or for too many."""
    index: Index = request.app.state.index
    ids = list(dict.fromkeys(request.query_params.getlist("runs")))
    if len(ids) > MAX_RUNS:
        raise HTTPException(400, f"{len(ids)} runs are too many to tell apart; choose at most {MAX_RUNS}")
    found = {key: index.find(key) for key in ids}
    if any(run is None or not run.path.is_dir() for run in found.values()):
        raise HTTPException(404, "one of these runs is not there; it may have been deleted")
    return {key: run.path for key, run in found.items() if run is not None}
