"""Pages and JSON: templates that escape every text, numbers as people read them, errors in the shape that was asked for."""

import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from firstlight.errors import FirstlightError
from firstlight.files import finite

if TYPE_CHECKING:
    from jinja2 import Environment

SECTIONS = {"runs": "/", "studies": "/studies", "reports": "/reports", "lock": "/lock"}
"""The links at the top of every page, by the name of their route; those that are not routes are left out."""


class Page(HTMLResponse):
    """HTML in UTF-8; half a character, which a file name may hold, becomes a question mark."""

    def render(self, content: Any) -> bytes:
        """Return the text as bytes."""
        return str(content).encode(errors="replace")


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page made of a template in pages/."""
    request.app.state.asked = time.monotonic()
    names = [route.name for route in request.app.routes if isinstance(route, Route)]
    sections = {name: place for name, place in SECTIONS.items() if name in names}
    text = _environment().get_template(template).render(path=request.url.path, sections=sections, routes=names, **values)
    return Page(text, status_code=status)


def answer(value: Any, status: int = 200) -> JSONResponse:
    """Return plain data as JSON; NaN and infinities become null, and every character that is not ASCII is escaped."""
    return _Json(finite(value), status)


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        import json

        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


async def show_error(request: Request, error: Exception) -> Response:
    """Answer with an error: one line as JSON below /api/, a page elsewhere."""
    status, message = 500, "something went wrong in the dashboard; the terminal says more"
    headers: Mapping[str, str] | None = None
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, FirstlightError):
        status, message = 400, str(error)
    if request.url.path.startswith("/api/"):
        shown: Response = answer({"error": message}, status)
    else:
        shown = page(request, "error.html", status=status, title=TITLES.get(status, "This did not work"), message=message)
    shown.headers.update(headers or {})
    return shown


TITLES = {404: "Nothing here", 405: "Not offered", 410: "Gone"}


def show_number(value: Any, digits: int = 4) -> str:
    """Return a value as a table shows it: a dash for none, four significant digits, thousands parted."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.{digits}g}"
    return f"{value:.{digits}g}" if abs(value) < 1e3 else f"{value:,.0f}"


def show_fact(key: str, value: Any) -> str:
    """Return the value of a key as a table shows it: accuracies with four decimals, times as times."""
    if value is None:
        return "–"
    if key == "started":
        return show_time(value)
    if key == "seconds" and isinstance(value, int | float):
        return show_seconds(value)
    if key.endswith("accuracy") and isinstance(value, int | float):
        return f"{value:.4f}"
    if key.endswith("loss") and isinstance(value, float) and abs(value) < 100:
        return f"{value:.4f}"
    return str(value).strip().replace("\n", " · ") if key in ("note", "tag") else show_number(value)


def show_seconds(seconds: float) -> str:
    """Return a duration in the two largest units: `3 h 20 min`, `4 min 05 s`, `9.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def show_time(instant: float) -> str:
    """Return a time of day with its date, in this machine's time zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(instant))
    except (ValueError, OverflowError, OSError):
        return "–"


def show_size(num_bytes: float) -> str:
    """Return a size in bytes as people read it."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("firstlight.dashboard", "pages")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = {"number": show_number, "duration": show_seconds, "clock": show_time, "size": show_size}
    environment.filters |= shown
    environment.globals |= {"show_fact": show_fact}
    return environment
