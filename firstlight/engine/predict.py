"""The answers of a finished run on images without labels, however many: batch by batch, and on to where a killed process stopped."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from firstlight.engine.answering import check_top, give_answers
from firstlight.engine.answers import Predictions, check_suffix
from firstlight.engine.asked import Asked, asked
from firstlight.engine.checkpoint import find_checkpoint
from firstlight.engine.finished import spread
from firstlight.files import sha256, sha256_of_file, write_figure
from firstlight.tracking.console import Console

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
        check_top(top, len(question.class_names))
        what = partial(_what, question, top)
        found = give_answers(question, what, out=None if out is None else Path(out), top=top, console=console)
        if not images:
            title = f"{question.run.name}: 20 predictions of {len(question):,} images without labels"
            write_figure(question.run.path / "predictions-test.png", question.sheet(title))
    return found


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
