"""The pages of what was looked at in a run, and of what it says of an image that is dropped on the page."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from firstlight.dashboard.index import Found, Index
from firstlight.dashboard.inspection import inspections_of, missing_looks, picture_path
from firstlight.dashboard.predict import Predictor
from firstlight.dashboard.render import answer, page
from firstlight.errors import DataError, FirstlightError
from firstlight.tracking.run import Run

TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".csv": "text/csv", ".parquet": "application/octet-stream"}
DRAWING = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
"""For a picture: opened on its own, an SVG runs no script and loads nothing."""


async def show_inspection(request: Request) -> Response:
    """Show what inspections and profiles left in a run; the figures come from inspection_json."""
    run = _find(request)
    return page(request, "inspection.html", id=run.id, name=run.name, folder=run.path)


async def inspection_json(request: Request) -> Response:
    """Answer with the sections of the page."""
    run = _find(request)
    sections = await asyncio.to_thread(inspections_of, run.path)
    return answer({"name": run.name, "path": str(run.path), "sections": sections, "missing": missing_looks(run.path)})


async def inspection_file(request: Request) -> Response:
    """Answer with a picture or a table that an inspection left, found by its name among those that are there."""
    path = picture_path(_find(request).path, request.path_params["name"])
    if path is None:
        raise HTTPException(404, "no inspection left such a file")
    kind = TYPES[path.suffix]
    return FileResponse(path, media_type=kind, headers=DRAWING, filename=None if kind.startswith("image/") else path.name)


async def show_predict(request: Request) -> Response:
    """Show where an image can be dropped."""
    run = _find(request)
    return page(request, "predict.html", id=run.id, name=run.name, shape=_shape(run))


async def predict_json(request: Request) -> Response:
    """Answer with what a run says of the image in the body: PNG or JPEG, looked at in another process."""
    run, predictor = _find(request), request.app.state.predictor
    assert isinstance(predictor, Predictor)
    content = await request.body()
    if not content:
        raise HTTPException(400, "no image came; choose a file")
    try:
        return answer(await predictor.ask(run.path, content))
    except DataError as error:
        raise HTTPException(422, str(error)) from error
    except FirstlightError as error:
        raise HTTPException(409, str(error)) from error


def _find(request: Request) -> Found:
    index: Index = request.app.state.index
    run = index.find(request.path_params["id"])
    if run is None or not run.path.is_dir():
        raise HTTPException(404, "there is no such run; it may have been deleted")
    return run


def _shape(run: Found) -> str:
    """Return the images that a run was trained on in words; nothing where it does not say."""
    shape = Run(run.path).info.get("data", {})
    sizes = shape.get("image_shape") if isinstance(shape, dict) else None
    if not isinstance(sizes, list) or len(sizes) != 3 or not all(isinstance(size, int) for size in sizes):
        return ""
    return f"{'grey' if sizes[0] == 1 else 'colour'} images of {sizes[2]} x {sizes[1]} pixels"
