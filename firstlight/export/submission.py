"""A run's answers to a competition's test images, checked before they are written, and what its validation says of the score to come.

Reading order: answer, submit, _rows_of_images, check_submission, judge_score.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.engine.asked import Asked, asked
from firstlight.engine.places import runs_dir_of
from firstlight.engine.restore import data_record
from firstlight.errors import ConfigError, DataError, did_you_mean
from firstlight.export.form import Form, check_count, count_from, first_disorder, is_number, numbered_form, read_form
from firstlight.files import make_dir, sha256, write_bytes, write_json
from firstlight.metrics.evaluation import wilson_interval
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run, find_run

COLUMNS = {"kaggle_digits": ("ImageId", "Label")}
"""The columns that the competition of a data set asks for, where they are not Id and Category."""
MAX_SCORED = 10_000_000
LABELS = ("index", "name")
PLACEHOLDERS = {"", "-1"}
"""What a sample may hold in the place of a label."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a submission is to look like, as far as it was said; the rest comes from the sample.

    id_base: the id of the first test image. in_order: row k of the sample is test image k, whatever its id is.
    labels: write a class as its `index` (from 0) or its `name`; encoding: of the sample.
    """

    sample: Path | None = None
    id_base: int | None = None
    id_column: str | None = None
    label_column: str | None = None
    labels: str | None = None
    in_order: bool = False
    encoding: str | None = None


def answer(
    run: str | None,
    images: Sequence[str],
    wanted: Wanted,
    *,
    out: Path,
    check: Path | None,
    score: float | None,
    scored: int | None,
    runs_dir: Path | None,
    data_dir: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Return what `firstlight submit` has to say: of a submission it makes, of one that it checks, or of a score."""
    _check_wanted(wanted)
    if check is not None:
        if run is not None or score is not None or wanted.sample is None:
            raise ConfigError(
                f"--check {check} needs --sample FILE to compare with, and neither a run nor --score; such as --sample sample.csv"
            )
        return check_submission(check, wanted.sample, wanted.encoding)
    if run is None:
        raise ConfigError("submit needs a run, or --check FILE with --sample FILE; `firstlight runs` lists the runs there are")
    if score is not None:
        return judge_score(run, score, scored=scored, runs_dir=runs_dir)
    if scored is not None:
        raise ConfigError(f"--scored {scored} speaks of a leaderboard score; add --score SHARE, such as --score 0.93")
    return submit(run, images, wanted, out=out, runs_dir=runs_dir, data_dir=data_dir, console=console)


def submit(
    run: str | Path,
    images: Sequence[str | Path] = (),
    wanted: Wanted | None = None,
    *,
    out: str | Path = "submission.csv",
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a run's labels of unlabelled images as the CSV that a competition takes, and return what was written, with the val score.

    images: files or folders; none means the unlabelled test part of the run's data. Sample, count, ids and order are checked before an
    image is predicted; the file is replaced in one step. What was handed in is kept in the run as submission.json.
    Raises DataError for a sample that does not fit the images.
    """
    wanted, began = wanted or Wanted(), time.monotonic()
    _check_wanted(wanted)
    form = None if wanted.sample is None else _with_columns(read_form(wanted.sample, wanted.encoding), wanted)
    with asked(run, images, runs_dir=runs_dir, data_dir=data_dir) as question:
        form = form or _made_up(question, wanted)
        check_count(form, len(question), question.what)
        rows = _rows_of_images(form, question, wanted)
        words = _label_words(form, question.class_names, wanted)
        _make_way(path := Path(out), wanted.sample)
        labels = question.labels(console or Console(quiet=True))
    written = [words[labels[row]] for row in rows]
    content = form.with_labels(written).encode()
    write_bytes(path, content)
    found: dict[str, Any] = {"run": str(question.run.path), "num_images": len(rows), "seconds": round(time.monotonic() - began, 3)}
    found |= {"header": form.header, "first_id": form.ids[0], "last_id": form.ids[-1], "sha256": sha256(content)}
    counts = Counter(written)
    found |= {"class_counts": {word: counts[word] for word in words}} | validation_of(question.run)
    if found["val_accuracy"] is not None:
        found["score_interval"] = list(score_interval(found["val_accuracy"], found["num_val"], len(rows)))
    found |= {"warnings": _doubts(counts), "files": [str(path)]}
    write_json(question.run.path / "submission.json", found)
    return found


def _make_way(path: Path, sample: Path | None) -> None:
    """See to it that a file can be written at `path`, before any image is predicted."""
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder; name a file in it, such as {path / 'submission.csv'}")
    if sample is not None and path.exists() and path.samefile(sample):
        raise ConfigError(f"--out {path} is the sample itself; choose another name, such as submission.csv")
    make_dir(path.parent)


def _check_wanted(wanted: Wanted) -> None:
    if wanted.labels not in (None, *LABELS):
        raise ConfigError(f"--labels {wanted.labels} is no way to write a class{did_you_mean(wanted.labels or '', LABELS)}")
    if wanted.sample is None and (wanted.encoding or wanted.in_order):
        raise ConfigError(f"{'--encoding' if wanted.encoding else '--in-order'} speaks of a sample; add --sample FILE")
    if wanted.id_base is not None and not 0 <= wanted.id_base < 10**12:
        raise ConfigError(f"--id-base is {wanted.id_base}; give a whole number from 0 on, such as 1")
    if wanted.id_base is not None and wanted.in_order:
        raise ConfigError("--id-base numbers the images by their ids, --in-order by their rows; leave one out")
    for option, name in (("--id-column", wanted.id_column), ("--label-column", wanted.label_column)):
        if name is not None and (not name.strip() or set(name) & set("\r\n\0")):
            raise ConfigError(f"{option} is {name!r}; give the name of a column, such as {'Id' if option == '--id-column' else 'Category'}")
    if wanted.id_column is not None and wanted.id_column == wanted.label_column:
        raise ConfigError(f"--id-column and --label-column are both {wanted.id_column}; give two names, such as Id and Category")


def _with_columns(form: Form, wanted: Wanted) -> Form:
    """Return the form of the sample. Raises ConfigError where other columns were asked for than it has."""
    for option, given, own in (
        ("--id-column", wanted.id_column, form.id_column),
        ("--label-column", wanted.label_column, form.label_column),
    ):
        if given not in (None, own):
            raise ConfigError(f"{option} is {given}, but {form.source} calls the column {own!r}; leave the option out")
    return form


def _made_up(question: Asked, wanted: Wanted) -> Form:
    columns = COLUMNS.get(question.config.data.name, ("Id", "Category"))
    id_column, label_column = wanted.id_column or columns[0], wanted.label_column or columns[1]
    if id_column == label_column:
        raise ConfigError(
            f"both columns would be called {id_column}; give --id-column and --label-column two names, such as Id and Category"
        )
    return numbered_form(len(question), id_column, label_column, 1 if wanted.id_base is None else wanted.id_base)


def _rows_of_images(form: Form, question: Asked, wanted: Wanted) -> Sequence[int]:
    """Return which image each id of the form names: by number, by file name, or by its row. Raises DataError where none is sure."""
    if wanted.in_order:
        return range(len(form.ids))
    if question.paths and (named := _by_name(form, question.paths)) is not None:
        return named
    counted = count_from(form)
    if counted is None:
        wrong = next(row for row, text in enumerate(form.ids) if not is_number(text))
        raise DataError(
            f"{form.line(wrong)}: id {form.ids[wrong]!r:.60} is neither a number nor the name of a test image; "
            "add --in-order if the rows are in the order of the images"
        )
    least, numbers = counted
    if wanted.id_base is not None:
        return _by_number(form, numbers, wanted.id_base)
    place = first_disorder(numbers)
    if place is None:
        return range(len(numbers))
    says = f"{form.line(place)}: id {form.ids[place]} follows {form.ids[place - 1]}"
    if max(numbers) - least + 1 != len(numbers):
        raise DataError(f"{says}, so ids are left out; take the competition's own file, or add --in-order if row k is test image k")
    raise DataError(
        f"{says}, so it is not sure which image an id names; add --id-base {least} if id {least} is the first image, "
        "--in-order if the first row is"
    )


def _by_number(form: Form, numbers: Sequence[int], base: int) -> list[int]:
    last = base + len(numbers) - 1
    row = next((row for row, number in enumerate(numbers) if not base <= number <= last), None)
    if row is not None:
        raise DataError(
            f"{form.line(row)}: id {form.ids[row]}, but {len(numbers):,} images counted from {base} have the ids {base} to {last}; "
            "correct --id-base, or leave it out"
        )
    return [number - base for number in numbers]


def _by_name(form: Form, paths: Sequence[Path]) -> list[int] | None:
    """Return the image of each id where ids are file names, with or without their suffix; None where they are not."""
    for names in ([path.name for path in paths], [path.stem for path in paths]):
        places = {name: place for place, name in enumerate(names)}
        if len(places) == len(paths) and all(text in places for text in form.ids):
            return [places[text] for text in form.ids]
    return None


def _label_words(form: Form, class_names: Sequence[str], wanted: Wanted) -> list[str]:
    """Return how each class is written: as asked, else as the sample does, else by its index."""
    indices = [str(index) for index in range(len(class_names))]
    if wanted.labels is not None:
        return indices if wanted.labels == "index" else list(class_names)
    rows = [row for row, text in enumerate(form.labels) if text not in PLACEHOLDERS]
    known, names = set(indices), set(class_names)
    odd = next((row for row in rows if form.labels[row] not in known), None)
    if odd is None:
        return indices
    if all(form.labels[row] in names for row in rows):
        return list(class_names)
    raise DataError(
        f"{form.line(odd)}: label {form.labels[odd]!r:.60} is no index 0..{len(indices) - 1}, and not all labels are classes of the run "
        f"({', '.join(islice(class_names, 3))}, ...); say --labels index or --labels name"
    )


def _doubts(counts: Counter[str]) -> list[str]:
    (word, most), num = counts.most_common(1)[0], counts.total()
    if num > 1 and most == num:
        return [f"all {num:,} rows have the label {word}"]
    return []


# A file that stands


def check_submission(path: Path, sample: Path, encoding: str | None = None) -> dict[str, Any]:
    """Return what a submission holds, once it was found to have the sample's header, ids and order, and a label in each row.

    Raises DataError with the first line that is wrong.
    """
    form, submission = read_form(sample, encoding), read_form(path, encoding)
    if submission.header != form.header:
        raise DataError(f"{path}: the header is {submission.header!r:.90}, but that of {sample} is {form.header!r:.90}; copy it from there")
    check_count(submission, len(form.ids), f"the sample {sample}", "make the submission again, or compare it with its own sample")
    for row, (text, expected) in enumerate(zip(submission.ids, form.ids, strict=True)):
        if text != expected:
            known = "which comes elsewhere in the sample" if text in set(form.ids) else "which the sample does not have"
            raise DataError(f"{submission.line(row)}: id {text!r:.60}, {known}; expected {expected!r:.60}: copy ids and order from it")
    _check_labels(submission, form)
    counts = Counter(submission.labels)
    warnings = _doubts(counts) + ([f"its labels are those of {sample}"] if submission.labels == form.labels else [])
    found = {"num_images": len(submission.ids), "header": submission.header, "first_id": submission.ids[0], "last_id": submission.ids[-1]}
    common = dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])) if len(counts) <= 1000 else counts.most_common(1000))
    return found | {"sample": str(sample), "num_classes": len(counts), "class_counts": common, "warnings": warnings, "files": [str(path)]}


def _check_labels(submission: Form, sample: Form) -> None:
    """Raise DataError for a label that is missing, no number, a fraction, or of another kind than the others and the sample's."""
    if all(is_number(text) for text in sample.labels):
        kind = "the labels of the sample are"
    else:
        kind = "the other labels are" if sum(map(is_number, submission.labels)) * 2 > len(submission.labels) else ""
    for row, text in enumerate(submission.labels):
        if text.strip().lower() in ("", "nan", "null", "none", "na", "inf", "-inf"):
            raise DataError(f"{submission.line(row)}: label {text!r:.60} is no class; each id needs one, so predict again")
        if kind and not is_number(text):
            raise DataError(f"{submission.line(row)}: label {text!r:.60}, but {kind} whole numbers from 0 on; write it as they are")


# What validation says of the score


def validation_of(run: Run) -> dict[str, Any]:
    """Return the validation accuracy of a run's best weights, how many images that is from, and its 95 % interval (Wilson 1927)."""
    accuracy, num = run.summary.get("val_accuracy"), data_record(run).get("num_val")
    if not isinstance(accuracy, float) or not isinstance(num, int) or not num:
        return {"val_accuracy": None, "num_val": 0, "val_interval": None}
    return {"val_accuracy": accuracy, "num_val": num, "val_interval": list(wilson_interval(round(accuracy * num), num))}


def score_interval(accuracy: float, num_val: int, num_scored: int) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy on `num_scored` fresh images, given that on `num_val`: both are draws from one binomial.

    It is the beta-binomial predictive distribution under Jeffreys' prior, cut off at 2.5 % on each side; unlike a normal approximation it
    holds near an accuracy of 1, too, and for few images.
    """
    right, num = round(accuracy * num_val), num_scored
    a, b = right + 0.5, num_val - right + 0.5
    k = np.arange(num, dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log((num - k) * (a + k)) - np.log((k + 1) * (b + num - k - 1)))])
    shares = np.cumsum(np.exp(logs - logs.max()))
    low, high = np.searchsorted(shares, np.array([0.025, 0.975]) * shares[-1])
    return float(low / num), float(high / num)


def judge_score(run: str | Path, score: float, *, scored: int | None = None, runs_dir: str | Path | None = None) -> dict[str, Any]:
    """Return whether a leaderboard's score is one that the run's validation makes plausible, and what it suggests where it is not.

    scored: images that the score is of (a public leaderboard often takes a part); default: all that were handed in.
    """
    if not 0 <= score <= 1:
        hint = f", such as {score / 100:g} for {score:g} %" if 1 < score <= 100 else ""
        raise ConfigError(f"--score is {score:g}; give the share of right images, 0 to 1{hint}")
    found = find_run(run, runs_dir_of(runs_dir))
    num_images = _handed_in(found) if scored is None else scored
    if not 1 <= num_images <= MAX_SCORED:
        raise ConfigError(f"--scored is {num_images}; give the number of images that the score is of, 1 to {MAX_SCORED:,}")
    result: dict[str, Any] = {"run": str(found.path), "score": score, "num_scored": num_images} | validation_of(found)
    if result["val_accuracy"] is None:
        raise DataError(f"run {found.path} has no validation accuracy to compare a score with; train it with split.val_fraction=0.1")
    low, high = score_interval(result["val_accuracy"], result["num_val"], num_images)
    rounding = 0.5 / num_images  # a score is a whole number of images, shown with a few digits
    result |= {"score_interval": [low, high], "plausible": low - rounding <= score <= high + rounding}
    return result | {"says": _says(result, 1 / len(data_record(found)["class_names"]))}


def _handed_in(run: Run) -> int:
    path = run.path / "submission.json"
    try:
        num = json.loads(path.read_text(encoding="utf-8"))["num_images"]
    except FileNotFoundError:
        raise ConfigError(f"run {run.path} has handed in nothing yet; make a submission first, or say --scored NUMBER") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); make the submission again, or say --scored NUMBER") from error
    return int(num)


def _says(result: dict[str, Any], chance: float) -> str:
    score, (low, high) = result["score"], result["score_interval"]
    expected = f"95 of 100 such runs score {low:.4f} to {high:.4f} on {result['num_scored']:,} images"
    if result["plausible"]:
        return f"a score of {score:.4f} is plausible: {expected}"
    if score > high:
        return (
            f"a score of {score:.4f} is higher than validation explains: {expected}; the test images may be easier, or be among the "
            "training images (a leak)"
        )
    if score < chance + (low - chance) / 4:
        return (
            f"a score of {score:.4f} is near chance ({chance:.4f}): {expected}; look at the ids first: their order, the "
            "first one (0 or 1), and whether classes are numbered as the competition does"
        )
    return (
        f"a score of {score:.4f} is lower than validation explains: {expected}; validation images may be near copies of training images "
        "(a leak), the test images may be of another kind (a shift), or part of the ids out of order"
    )
