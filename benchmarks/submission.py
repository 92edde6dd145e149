"""What it costs to check and write a submission of the course's size, and tables of predictions. No network takes part.

`python -m benchmarks.submission [--force]`. Seconds, median of 7 turns: read a sample of 190,841 ids, compare it with the images, write the
submission, and check that file against the sample; write 100,000 predictions of 10 classes as each kind of table, to the disk with fsync.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.record import Row, machine, refuse_when_busy, write_result
from firstlight.engine.answers import Predictions, write_answers
from firstlight.export.form import check_count, count_from, first_disorder, numbered_form, read_form
from firstlight.export.submission import check_submission
from firstlight.files import write_text

NUM_IDS, NUM_ROWS, TURNS = 190_841, 100_000, 7
TABLES: dict[str, Row] = {".csv": {"most": 2.0}, ".csv.gz": {"most": 2.0}, ".npy": {}, ".parquet": {}, ".json": {}}


def main() -> None:
    """Measure, print, and write results/submission.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--force", action="store_true", help="measure on a busy machine too; the record says so")
    arguments = words.parse_args()
    refuse_when_busy(arguments.force)
    here = machine() | {"forced": arguments.force}
    with tempfile.TemporaryDirectory() as name:
        rows = [*submission_rows(Path(name)), *table_rows(Path(name))]
    for row in rows:
        print(f"{row['what']}: {row['value']:.3g} {row['unit']}")
    write_result("submission", "Submissions and tables of predictions", "python -m benchmarks.submission", rows, here)


def submission_rows(folder: Path) -> list[Row]:
    """Return the seconds of a submission of 190,841 rows."""
    sample, out = folder / "sample.csv", folder / "submission.csv"
    write_text(sample, numbered_form(NUM_IDS, "Id", "Category", 1).with_labels(["0"] * NUM_IDS))
    labels = [str(label) for label in np.random.default_rng(0).integers(0, 200, NUM_IDS)]

    def write() -> None:
        form = read_form(sample)
        check_count(form, NUM_IDS, "images")
        counted = count_from(form)
        assert counted is not None and first_disorder(counted[1]) is None
        write_text(out, form.with_labels(labels))

    what = f"submission of {NUM_IDS:,} rows"
    return [
        timed(f"{what}: read the sample, check, write", write, most=3.0),
        timed(f"{what}: check the file against the sample", lambda: check_submission(out, sample), most=3.0),
    ]


def table_rows(folder: Path) -> list[Row]:
    """Return the seconds of each kind of table."""
    values = np.random.default_rng(0).dirichlet(np.ones(10), NUM_ROWS).astype(np.float32)
    found = Predictions(lambda index: f"test[{index}]", [str(digit) for digit in range(10)], values)
    what = f"{NUM_ROWS:,} predictions of 10 classes as"
    return [timed(f"{what} {suffix}", partial(write_answers, folder / f"a{suffix}", found), **needed) for suffix, needed in TABLES.items()]


def timed(what: str, action: Callable[[], object], **needed: float) -> Row:
    """Return the median seconds of an action, after one turn that is left out."""
    seconds = []
    for _ in range(TURNS + 1):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return {
        "what": what,
        "value": median(seconds[1:]),
        "unit": "s",
        "n": TURNS,
        "note": f"{min(seconds[1:]):.3g} to {max(seconds[1:]):.3g}",
        **needed,
    }


if __name__ == "__main__":
    main()
