"""What a command says while it works: to stderr, and to the run's log. A progress bar on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from firstlight.errors import StorageError
from firstlight.files import Appender

if TYPE_CHECKING:
    from rich.progress import Progress


def is_only_process() -> bool:
    """Tell whether this process is alone, and not one of several that torchrun started."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def is_first_process() -> bool:
    """Tell whether this process speaks: it is alone, or rank 0 of several."""
    return is_only_process() or os.environ.get("RANK", "0") == "0"


class Console:
    """Lines for people. All goes to stderr, so that stdout holds nothing but a command's result."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.log: Appender | None = None
        self._progress: Progress | None = None

    def line(self, text: str, *, style: str | None = None) -> None:
        """Print one line, and append it to the log with the time of day."""
        if self.log is not None:
            with suppress(StorageError):  # on a full disk the line waits for the next one
                self.log.write_lines([f"{time.strftime('%H:%M:%S')} {part}" for part in text.splitlines()])
        if self.quiet:
            return
        try:
            if sys.stderr.isatty():
                self._rich().print(text, style=style, markup=False, highlight=False)
            else:
                print(text, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # the terminal is gone, or the disk that stderr goes to is full: the log has it all
            self.quiet = True

    @contextmanager
    def logging_to(self, log: Appender) -> Iterator[None]:
        """Append all lines to a log, too, while the block runs."""
        self.log = log
        try:
            yield
        finally:
            self.log = None

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.line(f"warning: {text}", style="yellow")

    @contextmanager
    def progress(self, what: str, total: int, *, done: int = 0) -> Iterator["Bar"]:
        """Show a bar over `total` steps while the block runs; nothing off a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield Bar(None, None)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._rich(), transient=True) as progress:
            self._progress = progress
            try:
                yield Bar(progress, progress.add_task(what, total=total, completed=done, now=""))
            finally:
                self._progress = None

    def _rich(self) -> Any:
        if self._progress is not None:  # lines go above a bar that is being drawn
            return self._progress.console
        from rich.console import Console as RichConsole

        return RichConsole(stderr=True)


class Bar:
    """A progress bar, or nothing where there is no terminal."""

    def __init__(self, progress: "Progress | None", task: Any) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: int, now: str = "") -> None:
        """Move the bar to `done` and show `now` beside it."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, now=now)
