"""The reports that were made of runs and studies, to download."""

import re
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from firstlight.dashboard.folders import read_plain, written
from firstlight.dashboard.index import Index
from firstlight.dashboard.render import page

MOST = 300
"""Reports on the page."""
MAX_REPORT = 2**28
"""Bytes of a report."""


async def show_reports(request: Request) -> Response:
    """Show the reports there are, the youngest first."""
    index: Index = request.app.state.index
    found = [("run", run, when) for run, when in index.reports(MOST)]
    found += [("study", study, when) for study in index.studies.values() if (when := written(study.path / "report.html")) is not None]
    rows = []
    for kind, one, when in sorted(found, key=lambda entry: -entry[2])[:MOST]:
        try:
            size = (one.path / "report.html").stat().st_size
        except OSError:  # removed since
            continue
        rows.append({"kind": kind, "id": one.id, "name": one.name, "when": when, "size": size})
    return page(request, "reports.html", rows=rows, most=MOST, version=index.version)


async def send_report(request: Request) -> Response:
    """Answer with a report as a file to save: its scripts do not run here."""
    index: Index = request.app.state.index
    found = index.find(request.path_params["id"]) or index.studies.get(request.path_params["id"])
    if found is None:
        raise HTTPException(404, "no run and no study has this address; it may have been removed or renamed")
    try:
        content = read_plain(found.path / "report.html", most=MAX_REPORT)
    except OSError:
        raise HTTPException(404, f"{found.name} has no report; `firstlight report RUN` makes one") from None
    name = f"report-{found.name.replace('/', '-')}.html"
    ascii_name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    disposition = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, media_type="text/html", headers={"content-disposition": disposition})
