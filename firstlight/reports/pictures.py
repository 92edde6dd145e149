"""Pictures that lie in a page: drawn for it, or read from a folder. They are images, so no script or link within one does anything."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firstlight.files import figure_bytes
from firstlight.reports.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SVG = 150_000
"""Bytes from which on a picture of lines and letters is taken as points, where both are there."""
MAX_BYTES = 2_000_000
"""Largest picture that goes into a page."""
HEADS = {"png": (b"\x89PNG\r\n\x1a\n",), "svg": (b"<?xml", b"<svg")}
TYPES = {"png": "image/png", "svg": "image/svg+xml"}


def drawn(figure: "Figure", about: str) -> Picture:
    """Return a matplotlib figure as a picture of a page: lines and letters, or points where those take less."""
    content, kind = figure_bytes(figure, "svg"), "svg"
    if len(content) > MAX_SVG:
        content, kind = min((content, kind), (figure_bytes(figure, "png"), "png"), key=lambda one: len(one[0]))
    return _picture(content, kind, about)


def read_pictures(paths: Sequence[Path], about: str) -> tuple[list[Picture], list[str]]:
    """Return the pictures among some files, each once though it be there as PNG and as SVG, and remarks about what cannot be shown."""
    found, remarks = [], []
    for stem in dict.fromkeys(path.with_suffix("") for path in paths if path.suffix[1:].lower() in TYPES):
        contents = {kind: _content(stem.with_name(f"{stem.name}.{kind}"), kind) for kind in TYPES}
        there = {kind: content for kind, content in contents.items() if content is not None}
        if not there:
            remarks.append(f"{stem.name} is missing, damaged, or larger than {MAX_BYTES // 10**6} MB, and is not shown")
            continue
        kind = "svg" if "svg" in there and (len(there["svg"]) <= MAX_SVG or "png" not in there) else "png"
        found.append(_picture(there[kind], kind, about))
    return found, remarks


def _content(path: Path, kind: str) -> bytes | None:
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    except (OSError, ValueError):
        return None
    return content if content.startswith(HEADS[kind]) else None


def _picture(content: bytes, kind: str, about: str) -> Picture:
    return Picture(source=f"data:{TYPES[kind]};base64,{base64.b64encode(content).decode()}", about=about)
