"""The pages of studies: all of them in a table, and one with its answer, which is asked for again each second while it runs."""

import asyncio
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from firstlight.dashboard.index import Found, Index
from firstlight.dashboard.render import answer, page

MAX_STUDIES = 50
"""Studies on one page, those that changed last."""


async def show_studies(request: Request) -> Response:
    """Show all studies with their best settings."""
    index: Index = request.app.state.index
    studies = sorted(index.studies.values(), key=lambda study: -_changed(study.path))
    rows = await asyncio.to_thread(lambda: [_row(study) for study in studies[:MAX_STUDIES]])
    return page(request, "studies.html", rows=rows, more=len(studies) - len(rows), runs_dir=index.runs_dir)


async def show_study(request: Request) -> Response:
    """Show one study; the figures come from study_json."""
    study = _find(request)
    return page(request, "study.html", id=study.id, name=study.name)


async def study_json(request: Request) -> Response:
    """Answer with the data of a study; with nothing (204) where they are still those of the stamp in `since`."""
    from firstlight.dashboard.study import study_data

    found = await asyncio.to_thread(study_data, _find(request).path)
    return Response(status_code=204) if request.query_params.get("since") == found["stamp"] else answer(found)


def _find(request: Request) -> Found:
    index: Index = request.app.state.index
    study = index.studies.get(request.path_params["id"])
    if study is None or not (study.path / "study.json").is_file():
        raise HTTPException(404, "there is no such study; it may have been deleted")
    return study


def _row(study: Found) -> dict[str, Any]:
    from firstlight.dashboard.study import study_data

    found = study_data(study.path)
    if "damage" in found:
        return {"id": study.id, "name": study.name, "damage": found["damage"]}
    verdict, progress = found["verdict"], found["progress"]
    return {
        "id": study.id,
        "name": study.name,
        "damage": None,
        "state": found["state"],
        "done": progress["done"],
        "planned": progress["planned"],
        "varied": ", ".join(parameter["key"] for parameter in found["parameters"]),
        "setting": verdict.get("setting"),
        "mean": verdict.get("mean"),
        "sure": verdict["sure"],
        "sure_word": verdict["word"],
    }


def _changed(path: Path) -> float:
    for name in ("trials.jsonl", "study.json"):
        try:
            return (path / name).stat().st_mtime
        except OSError:
            continue
    return 0.0
