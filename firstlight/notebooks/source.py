"""How a lesson's file is written: jupytext's percent format, cells with a kind, and marks around what a student writes.

`# %% kind="exercise" name="x"` and its `kind="check"`, `kind="predict"`, `# %% [markdown] kind="answer"`; `points=2`; `varies=true`.
"""

import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError, did_you_mean
from firstlight.files import sha256

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
KINDS = {"code": ("code", "predict", "exercise", "check"), "markdown": ("text", "answer")}
"""Kinds of cells by their type in a notebook; the first is that of a cell without a kind."""
MARKED = ("predict", "exercise", "answer")
"""Kinds that hold marks, and that a student changes."""
SETTINGS = ("kind", "name", "points", "varies")
NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a lesson. number: its place, from 1. line: where it begins in the file. varies: its output may differ from run to run."""

    number: int
    line: int
    type: str
    kind: str
    source: str
    name: str = ""
    points: int = 0
    varies: bool = False

    @property
    def label(self) -> str:
        """How people find it."""
        return f"cell {self.number} ({self.kind} {self.name})" if self.name else f"cell {self.number} ({self.kind})"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A lesson as it is written. shows: numbers of the specification that it covers. digest: of what all see of it, by version."""

    path: Path
    title: str
    minutes: float
    shows: tuple[str, ...]
    kernelspec: dict[str, str]
    cells: tuple[Cell, ...]
    digest: str

    @property
    def name(self) -> str:
        """The name of the file without its ending, such as 04_training_loop."""
        return self.path.stem

    def of_kind(self, *kinds: str) -> list[Cell]:
        """Return the cells of these kinds."""
        return [cell for cell in self.cells if cell.kind in kinds]


def lessons_dir() -> Path:
    """Return the folder of the lessons: beside the package in a clone, else where pip put them."""
    beside = Path(__file__).parents[2]
    user = sysconfig.get_path("data", sysconfig.get_preferred_scheme("user"))
    installed = [Path(base) / "share" / "firstlight" / "lessons" for base in (sysconfig.get_path("data"), user, beside)]
    places = [beside / "lessons", *installed]
    return next((place for place in places if any(place.glob("[0-9]*.py"))), places[1])


def find_lessons(names: tuple[str, ...] = ()) -> list[Path]:
    """Return the files of these lessons, or of all: a name may be `04_training_loop`, `04`, `4`, or a path. Raises ConfigError."""
    known = {path.stem: path for path in sorted(lessons_dir().glob("[0-9]*.py"))}
    if not known and not names:
        raise ConfigError(f"no lessons in {lessons_dir()}; install firstlight again, or work in a clone of it")
    return [_find(name, known) for name in names] if names else list(known.values())


def _find(name: str, known: dict[str, Path]) -> Path:
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise ConfigError(f"no lesson at {name}; `firstlight lessons list` names those that are there")
    numbered = {str(int(stem[: len(stem) - len(stem.lstrip("0123456789"))])): path for stem, path in known.items()}
    found = known.get(name) or numbered.get(name.lstrip("0"))
    if found is None:
        raise ConfigError(f"no lesson {name!r}{did_you_mean(name, known)}; `firstlight lessons list` shows them")
    return found


def read_source(path: Path) -> Source:
    """Return the lesson in a file, checked. Raises ConfigError, which names the file and the line."""
    jupytext = load_library("jupytext")
    try:
        text = path.read_text(encoding="utf-8")
        notebook = jupytext.reads(text, fmt="py:percent")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be read as a lesson ({_first_line(error)}); write it in jupytext's percent format") from None
    except Exception as error:  # jupytext hands on whatever its YAML reader meets
        raise ConfigError(f"{path}: the header is no YAML ({_first_line(error)}); write it as in the other lessons") from None
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("# %%")]
    if len(lines) != len(notebook.cells) or not lines:
        raise ConfigError(f"{path}: {len(notebook.cells)} cells, and {len(lines)} lines that begin with `# %%`; begin each cell with one")
    cells = tuple(_cell(path, number, line, cell) for number, (line, cell) in enumerate(zip(lines, notebook.cells, strict=True), 1))
    _check_names(path, cells)
    _check_leaks(path, cells)
    header = _header(path, notebook.metadata.get("firstlight"))
    seen = "\n".join(line for cell in cells for line, is_solution in marked_lines(cell.source) if not is_solution)
    kernelspec = dict(notebook.metadata.get("kernelspec") or {})
    return Source(path=path, kernelspec=kernelspec, cells=cells, digest=sha256(seen.encode())[:16], **header)


def load_library(name: str) -> Any:
    """Return a module of the extra `lessons`. Raises ConfigError where it is not installed."""
    from importlib import import_module

    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # else jupyter_core warns of folders that it is about to move
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f'lessons need {name.partition(".")[0]}, which is not installed; pip install "firstlight[lessons]"') from None


def solution_lines(source: str) -> list[str]:
    """Return the stripped lines between the marks of a cell; without those that give nothing away, such as a bracket or `else:`."""
    inside = [line.strip() for line, is_solution in marked_lines(source) if is_solution]
    return [line for line in inside if re.search(r"\w", line) and line not in ("else:", "try:", "pass", "break", "continue", "return")]


def guess_names(source: str) -> list[str]:
    """Return the names that a prediction gives its guesses: `guess`, or others that begin so."""
    found = (re.match(r"(guess\w*) = ", line) for line in solution_lines(source))
    return [match[1] for match in found if match]


def marked_lines(source: str) -> Iterator[tuple[str, bool]]:
    """Yield each line of a cell but the marks, and whether it stands between marks."""
    inside = False
    for line in source.split("\n"):
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
        else:
            yield line, inside


def _header(path: Path, header: Any) -> dict[str, Any]:
    if not isinstance(header, dict) or set(header) != {"title", "minutes", "shows"}:
        raise ConfigError(f"{path}: line 1: the header names `firstlight:` with title, minutes and shows; see the other lessons")
    title, minutes, shows = header["title"], header["minutes"], header["shows"]
    if not isinstance(title, str) or not isinstance(minutes, int | float) or not isinstance(shows, list) or not shows:
        raise ConfigError(f"{path}: line 1: title is a text, minutes a number, shows a list such as [B5]; mend the header")
    return {"title": title, "minutes": float(minutes), "shows": tuple(str(item) for item in shows)}


def _cell(path: Path, number: int, line: int, cell: Any) -> Cell:
    given = {key: cell.metadata[key] for key in SETTINGS if key in cell.metadata}
    unknown = [key for key in cell.metadata if key not in SETTINGS and key != "lines_to_next_cell"]
    if unknown:
        raise ConfigError(f"{path}: line {line}: unknown setting {unknown[0]!r} of a cell (allowed: {', '.join(SETTINGS)}); remove it")
    kinds = KINDS.get(cell.cell_type, ())
    kind = given.get("kind", kinds[0] if kinds else None)
    if kind not in kinds or ("kind" in given and kind == kinds[0]):
        allowed = ", ".join(kinds[1:]) or "none"
        raise ConfigError(f"{path}: line {line}: a {cell.cell_type} cell cannot be of kind {kind!r} (allowed: {allowed}); change its kind")
    if ("name" in given) != ("kind" in given) or not NAME.fullmatch(str(given.get("name", "x"))):
        raise ConfigError(f'{path}: line {line}: cells with a kind have a name of letters, digits and _; write name="..."')
    if (kind in ("check", "answer")) != ("points" in given) or not isinstance(given.get("points", 0), int):
        raise ConfigError(f"{path}: line {line}: checks and answers alone have points, a whole number; write points=2")
    _check_marks(path, line, kind, cell.source)
    return Cell(number=number, line=line, type=cell.cell_type, source=cell.source, **{"kind": kind, **given})


def _check_marks(path: Path, line: int, kind: str, source: str) -> None:
    marks = [text.strip() for text in source.split("\n") if text.strip() in (BEGIN, END)]
    if marks != [BEGIN, END] * (len(marks) // 2):
        raise ConfigError(f"{path}: line {line}: the marks of a solution are not in pairs; write `{BEGIN}` before it and `{END}` behind it")
    if bool(marks) != (kind in MARKED):
        wrong = "has no marked solution" if kind in MARKED else "has a marked solution"
        raise ConfigError(f"{path}: line {line}: a cell of kind {kind} {wrong}; marks are for {', '.join(MARKED)}")
    if kind == "predict" and not guess_names(source):
        raise ConfigError(f"{path}: line {line}: no `guess = ...` between the marks of a prediction; students write that line")


def _check_names(path: Path, cells: tuple[Cell, ...]) -> None:
    for (kind, name), times in Counter((cell.kind, cell.name) for cell in cells if cell.name).items():
        if times > 1:
            raise ConfigError(f"{path}: {times} cells of kind {kind} are named {name!r}; give each its own name")
    exercises = {cell.name: cell for cell in cells if cell.kind == "exercise"}
    checks = {cell.name: cell for cell in cells if cell.kind == "check"}
    for name, cell in {**exercises, **checks}.items():
        if name not in exercises or name not in checks or checks[name].number < exercises[name].number:
            raise ConfigError(
                f"{path}: line {cell.line}: {cell.kind} {name!r} has no partner; an exercise and behind it its check share a name"
            )


def _check_leaks(path: Path, cells: tuple[Cell, ...]) -> None:
    """Refuse a line of a solution that a student reads elsewhere in the lesson."""
    seen = {line.strip(): cell for cell in reversed(cells) for line, is_solution in marked_lines(cell.source) if not is_solution}
    for cell in cells:
        for line in solution_lines(cell.source):
            if cell.kind in MARKED and line in seen:
                where = seen[line].line
                raise ConfigError(
                    f"{path}: line {cell.line}: {line!r} of the solution is also in the cell at line {where}; write it otherwise there"
                )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
