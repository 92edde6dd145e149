"""The answers of a finished run on images without labels, however many: batch by batch, and on to where a killed process stopped."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.engine.answers import (
    Predictions,
    append_rows,
    as_predictions,
    as_rows,
    check_suffix,
    remove_parts,
    row_type,
    rows_so_far,
    write_answers,
)
from firstlight.engine.asked import Asked, asked
from firstlight.engine.checkpoint import find_checkpoint
from firstlight.engine.finished import spread
from firstlight.errors import ConfigError, RunBusyError
from firstlight.files import Lock, make_dir, remove, sha256, sha256_of_file, write_figure
from firstlight.tracking.console import Bar, Console

SAMPLED = 64
"""Images of a part of the data whose pixels say whether a prediction that was begun is of the same ones."""


def predict(
    run: str | Path,
    images: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    top: int | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> Predictions:
    """Return, for each image, its most probable class and the probability of every class.

    images: files or folders, converted to the channels and the size that the run was trained on, or one .csv of pixels; none means the
    unlabelled test part of the run's data (a competition's), of which 20 predictions are drawn into the run as predictions-test.png.
    out: also write a table, .csv, .csv.gz, .json, .npy or .parquet; a killed prediction goes on from the rows that stand beside it.
    top: keep only so many of the most probable classes.
    """
    console = console or Console(quiet=True)
    if out is not None:
        check_suffix(Path(out))
    with asked(run, images, runs_dir=runs_dir, data_dir=data_dir) as question:
        num_classes = len(question.class_names)
        if top is not None and not 1 <= top <= num_classes:
            raise ConfigError(f"--top is {top}; allowed: 1 to {num_classes}, the classes of the run")
        found = _in_memory(question, top, console) if out is None else _on_disk(question, Path(out), top, console)
        if not images:
            title = f"{question.run.name}: 20 predictions of {len(question):,} images without labels"
            write_figure(question.run.path / "predictions-test.png", question.sheet(title))
    return found


def _in_memory(question: Asked, top: int | None, console: Console) -> Predictions:
    """Return the answers, of which no more is held than what is asked for."""
    rows = np.empty(len(question), row_type(len(question.class_names), top))
    done = 0
    with console.progress("predict", len(question)) as bar:
        for batch in question.probabilities():
            rows[done : done + len(batch)] = as_rows(batch.numpy(), top)
            done += len(batch)
            bar.update(done)
    return as_predictions(rows, top, question.name, question.class_names)


def _on_disk(question: Asked, out: Path, top: int | None, console: Console) -> Predictions:
    """Write the table `out` by way of a file beside it, to which each batch is appended, and return the answers as they were read."""
    num, kind = len(question), row_type(len(question.class_names), top)
    size = question.batch_size
    with _alone(out):
        so_far = rows_so_far(out, _what(question, top), kind, len(question.class_names))
        done = num if so_far >= num else so_far // size * size
        if done:
            console.line(f"going on behind {done:,} of {num:,} images, which {out.name}.part has")
        with console.progress("predict", num, done=done) as bar:
            rows = append_rows(out, done, kind, _batches(question, -(-done // size), top, bar))
        found = as_predictions(rows, top, question.name, question.class_names)
        write_answers(out, found)
        remove_parts(out)
    return found


def _batches(question: Asked, start: int, top: int | None, bar: Bar) -> Iterator[NDArray[Any]]:
    done = start * question.batch_size
    for batch in question.probabilities(start) if done < len(question) else ():
        done += len(batch)
        bar.update(done)
        yield as_rows(batch.numpy(), top)


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


def _what(question: Asked, top: int | None) -> dict[str, Any]:
    """Return what tells one question from another: the weights, the settings, the images, and how much is kept of an answer."""
    run = question.run.path
    weights = sorted(find_checkpoint(run / "checkpoints", "best").glob("*.safetensors"))
    if question.dataset is None:
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in question.paths]
        images = sha256(*(f"{stat}\n".encode() for stat in stats))
    else:
        sample = question.dataset.subset(spread(len(question), SAMPLED)).images.contiguous()
        images = sha256(question.what.encode(), sample.numpy().tobytes())
    settings = (run / "config.yaml").read_bytes()
    return {
        "weights": [sha256_of_file(path) for path in weights if not path.name.startswith("optim")],
        "settings": sha256(settings, json.dumps(question.run.info["arithmetic"], sort_keys=True).encode()),
        "images": images,
        "num_images": len(question),
        "top": top,
    }
