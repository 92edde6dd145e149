"""The answers to a question, batch by batch: in memory, or into a table that a killed process goes on with. Needs no torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from firstlight.engine.answers import Predictions, append_rows, as_predictions, as_rows, remove_parts, row_type, rows_so_far, write_answers
from firstlight.errors import ConfigError, RunBusyError
from firstlight.files import Lock, make_dir, remove
from firstlight.tracking.console import Bar, Console


class Question(Protocol):
    """A network, and the images that it is asked about."""

    def __len__(self) -> int:
        """Return how many images there are."""

    @property
    def class_names(self) -> Sequence[str]:
        """The classes, in the order of the probabilities."""

    @property
    def batch_size(self) -> int:
        """Images in a batch, the last one apart."""

    def name(self, index: int) -> str:
        """Return what an image is called."""

    def probabilities(self, start: int = 0) -> Iterable[Any]:
        """Yield arrays or CPU tensors float32 [B, num_classes] from batch number `start` on, the same wherever one starts."""


def check_top(top: int | None, num_classes: int) -> None:
    """Raise ConfigError where more of the most probable classes are wanted than there are."""
    if top is not None and not 1 <= top <= num_classes:
        raise ConfigError(f"--top is {top}; allowed: 1 to {num_classes}, the classes of the run")


def give_answers(
    question: Question, what: Callable[[], dict[str, Any]], *, out: Path | None, top: int | None, console: Console
) -> Predictions:
    """Return the answers, and write them as the table `out`.

    what: returns what tells one question from another, for whoever goes on behind a kill; it is asked once the first image was read.
    """
    return _in_memory(question, top, console) if out is None else _on_disk(question, what, out, top, console)


def _in_memory(question: Question, top: int | None, console: Console) -> Predictions:
    """Return the answers, of which no more is held than what is asked for."""
    rows = np.empty(len(question), row_type(len(question.class_names), top))
    done = 0
    with console.progress("predict", len(question)) as bar:
        for batch in question.probabilities():
            rows[done : done + len(batch)] = as_rows(np.asarray(batch), top)
            done += len(batch)
            bar.update(done)
    return as_predictions(rows, top, question.name, question.class_names)


def _on_disk(question: Question, what: Callable[[], dict[str, Any]], out: Path, top: int | None, console: Console) -> Predictions:
    """Write the table `out` by way of a file beside it, to which each batch is appended, and return the answers as they were read."""
    num, kind = len(question), row_type(len(question.class_names), top)
    size = question.batch_size
    with _alone(out):
        so_far = rows_so_far(out, what(), kind, len(question.class_names))
        done = num if so_far >= num else so_far // size * size
        if done:
            console.line(f"going on behind {done:,} of {num:,} images, which {out.name}.part has")
        with console.progress("predict", num, done=done) as bar:
            rows = append_rows(out, done, kind, _batches(question, -(-done // size), top, bar))
        found = as_predictions(rows, top, question.name, question.class_names)
        write_answers(out, found)
        remove_parts(out)
    return found


def _batches(question: Question, start: int, top: int | None, bar: Bar) -> Iterator[NDArray[Any]]:
    done = start * question.batch_size
    for batch in question.probabilities(start) if done < len(question) else ():
        done += len(batch)
        bar.update(done)
        yield as_rows(np.asarray(batch), top)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from the same table while the block runs."""
    path = make_dir(out.parent) / f"{out.name}.lock"
    try:
        with Lock(path, str(out)):
            yield
    except RunBusyError:
        raise RunBusyError(f"{out} is being written by another process; wait for it, stop it, or choose another --out") from None
    except BaseException:
        remove(path)
        raise
    remove(path)
