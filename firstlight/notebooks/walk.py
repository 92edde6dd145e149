"""Walk through a lesson's source in this process: each exercise first without its solution, when its check must fail, then with it.

`python -m firstlight.notebooks.walk FILE` does it for CI, and prints one JSON object; run it in a folder of its own.
"""

import argparse
import code
import io
import json
import linecache
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from firstlight.errors import FirstlightError
from firstlight.notebooks.source import Cell, Source, read_source
from firstlight.notebooks.student import blank


@dataclass(kw_only=True)
class Walked:
    """What became of a lesson. numbers: those it measured, and bounds: what it says of them.

    exercises: by name, how its check failed without the solution. failures: one line each, with the cell; empty where all is well.
    """

    lesson: str
    data: str = ""
    size: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    exercises: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    output: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def walk(source: Source, *, guesses: bool = True) -> Walked:
    """Run a lesson from the first cell to the last, or to the first that fails.

    guesses: run the predictions with their solution, and otherwise as a student who guesses nothing. A check may take nothing for granted
    that an unfilled exercise would not give: it is run once without the solution, in a copy of the names, and must fail.
    """
    walked = Walked(lesson=source.name)
    started, cpu_started = time.perf_counter(), time.process_time()
    with _main_module() as names:
        console = _Console(names, source)
        for cell in source.cells:
            if cell.type != "code" or walked.failures:
                continue
            if cell.kind == "exercise":
                _try_unfilled(cell, source, console, walked)
            error = console.run(cell, blank(cell) if cell.kind == "predict" and not guesses else cell.source)
            if error is not None:
                walked.failures.append(f"{cell.label}: {error}")
        _read_lesson(names, walked)
    walked.output = console.output.getvalue()
    walked.seconds, walked.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return walked


def _try_unfilled(exercise: Cell, source: Source, console: "_Console", walked: Walked) -> None:
    """Run from a blank exercise to its check, and put everything back: the names, the numbers, what is drawn next."""
    check = next(cell for cell in source.cells if cell.kind == "check" and cell.name == exercise.name)
    with console.rehearsal():
        error = unfilled = console.run(exercise, blank(exercise))
        for cell in source.cells[exercise.number : check.number]:
            if cell.type == "code":
                error = console.run(cell, cell.source)
    if error is None:
        walked.failures.append(f"{check.label}: passes although the exercise is not filled in")
    elif unfilled is not None and unfilled.startswith("SyntaxError"):
        walked.failures.append(f"{exercise.label}: no Python without its solution ({unfilled})")
    walked.exercises[exercise.name] = str(error)


class _Console(code.InteractiveInterpreter):
    """Runs the cells in one set of names, keeps what they print, and returns what they raise as one line."""

    def __init__(self, names: dict[str, Any], source: Source) -> None:
        super().__init__(names)
        self.names, self.source, self.output = names, source, io.StringIO()
        self.error: str | None = None

    def run(self, cell: Cell, text: str) -> str | None:
        """Run a cell and return the error that it ends with, as one line, or None."""
        filename = f"{self.source.path.name}[{cell.label}]"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)  # for tracebacks and inspect.getsource
        self.error = None
        try:
            compiled = compile(text, filename, "exec")
        except SyntaxError as error:
            return f"SyntaxError: {error.msg} (line {error.lineno})"
        with redirect_stdout(self.output):
            try:
                self.runcode(compiled)
            except SystemExit as error:
                self.error = f"SystemExit: {error.code}"
        return self.error

    def showtraceback(self) -> None:
        """Keep the error that the cell raised, with the line of the cell."""
        error = sys.exception()
        assert error is not None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(self.source.path.name)]
        what = " ".join(str(error).split())
        self.error = f"{type(error).__name__}: {what}" + (f" (line {lines[0]} of the cell)" if lines else "")

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Put back names, measured numbers, printed text and random states behind the block."""
        import random

        import numpy as np
        import torch

        names, written = dict(self.names), self.output.tell()
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        numbers = [(lesson, dict(lesson.numbers), dict(lesson.bounds)) for lesson in _lessons(names)]
        try:
            yield
        finally:
            self.names.clear()
            self.names.update(names)
            self.output.seek(written)
            self.output.truncate()
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            for lesson, values, bounds in numbers:
                lesson.numbers.clear()
                lesson.numbers.update(values)
                lesson.bounds.clear()
                lesson.bounds.update(bounds)


@contextmanager
def _main_module() -> Iterator[dict[str, Any]]:
    """Yield the names of a fresh `__main__`, as a notebook has it: what cells define finds itself there."""
    before, module = sys.modules["__main__"], ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        yield vars(module)
    finally:
        sys.modules["__main__"] = before


def _lessons(names: dict[str, Any]) -> list[Any]:
    from firstlight.notebooks.lesson import Lesson

    return [value for value in names.values() if isinstance(value, Lesson)]


def _read_lesson(names: dict[str, Any], walked: Walked) -> None:
    for lesson in _lessons(names):
        walked.data, walked.size = lesson.data, lesson.size
        walked.numbers, walked.bounds = dict(lesson.numbers), dict(lesson.bounds)


def main(words: list[str] | None = None) -> None:
    """Walk through one lesson, print what became of it as JSON, and exit with 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m firstlight.notebooks.walk", description="Run a lesson's source, exercises both ways.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--no-guesses", action="store_true", help="leave the predictions blank, as a student may")
    parser.add_argument("--output", action="store_true", help="print what the cells print, in place of the JSON object")
    given = parser.parse_args(words)
    try:
        walked = walk(read_source(given.file), guesses=not given.no_guesses)
    except FirstlightError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(walked.output if given.output else json.dumps(asdict(walked), ensure_ascii=False))
    for failure in walked.failures:
        print(f"{given.file.name}: {failure}", file=sys.stderr)
    sys.exit(1 if walked.failures else 0)


if __name__ == "__main__":
    main()
