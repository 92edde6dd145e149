"""The commands. Each is thin: it imports its room, calls one function, and prints what came back.

stdout holds the result (one JSON object with --json), stderr everything else.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from firstlight.errors import ConfigError
from firstlight.tracking.console import Console

app = App(
    name="firstlight",
    help="An experiment bench for image classification on PyTorch.",
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # it would leave without a word
)
data = App(name="data", help="List, fetch, check and describe data sets.")
app.command(data)
tune = App(name="tune", help="Find a learning rate, or the largest batch, by trying them for a few seconds.")
app.command(tune)
inspect = App(name="inspect", help="Look at data, and at what a run learned: its mistakes, how sure it is, what is wrong with it.")
app.command(inspect)
profile = App(name="profile", help="Measure where the time and the memory of a training go.")
app.command(profile)


FLAG = Parameter(negative=(), show_default=False)
"""A switch: there or not there, without a --no- form."""


@Parameter(name="*", group=Group("Options of every command", sort_key=9))
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    runs_dir: Path | None = None
    """Folder of runs (default: FIRSTLIGHT_RUNS, or ./runs)."""
    data_dir: Path | None = None
    """Folder of data sets (default: FIRSTLIGHT_DATA, or the user's cache folder)."""
    json: Annotated[bool, FLAG] = False
    """Print one JSON object on stdout and nothing else there."""
    debug: Annotated[bool, FLAG] = False
    """Show the traceback of an error."""


COMMON = Common()


def run_command(words: list[str]) -> None:
    """Run one command line. Raises ConfigError for words that are no command, option or value."""
    try:
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(f"{' '.join(str(error).split()).rstrip('.')}; `firstlight --help` shows the commands") from None


@app.command
def train(
    *settings: str,
    name: str | None = None,
    resume: str | None = None,
    note: str | None = None,
    override: Annotated[bool, FLAG] = False,
    exact: Annotated[bool, FLAG] = False,
    dry_run: Annotated[bool, FLAG] = False,
    common: Common = COMMON,
) -> None:
    """Train an experiment into a run folder: `firstlight train [CONFIG] [key=value ...]`.

    Parameters
    ----------
    settings
        A shipped experiment's name or a YAML file (default: quickstart), and overrides such as optim.lr=0.1 or data=mnist.
    name
        Name of the run folder (default: experiment, date and a short hash).
    resume
        Go on with this interrupted run (or the `latest` one); settings beside it, such as train.epochs=20, change on the way.
    note
        A note that is kept with the run.
    override
        With --resume: allow changed settings that lead the training elsewhere.
    exact
        With --resume: refuse a machine on which the bits may differ.
    dry_run
        Print the resolved config, with the place that set each key, and stop.
    """
    source, overrides = split_settings(settings)
    check_train_options(source, name, resume, override=override, exact=exact)
    if dry_run:
        return show_config(source or config_of_run(resume, common), overrides, common)
    from firstlight.engine import train as engine

    places: dict[str, Any] = {"runs_dir": common.runs_dir, "data_dir": common.data_dir}
    if resume is None:
        run = engine.train(source or "quickstart", *overrides, name=name, note=note, **places)
    else:
        run = engine.resume(resume, *overrides, override=override, exact=exact, note=note, **places)
    result(common, {"run": str(run.path), **run.summary, "files": [str(path) for path in sorted(run.path.glob("*.png"))]})
    return None


@app.command
def sweep(
    *settings: str,
    grid: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=False)] = None,
    seeds: int | None = None,
    name: str | None = None,
    lanes: Literal["auto", "on", "off"] = "auto",
    workers: int | Literal["ray"] = 1,
    common: Common = COMMON,
) -> None:
    """Carry out a study, or go on with it: `firstlight sweep STUDY|CONFIG [key=value ...]`.

    Parameters
    ----------
    settings
        A study file, or an experiment beside --grid, and overrides: seeds=5, sampler=halving, pruning=median or budget.trials=20 change
        the study, others the experiment.
    grid
        A parameter and its values, such as optim.lr=log:1e-4:1:9 (scale, low, high, number) or model=lenet,cnn5; may come several times.
    seeds
        Trainings of each point, with the seeds 0, 1, ...
    name
        Name of the study's folder (default: that of the study or experiment).
    lanes
        Train small networks side by side as one program: where a short timing says so, wherever it is possible, or not at all.
    workers
        1: this process; more: so many processes of one thread each; ray: the Ray cluster at RAY_ADDRESS, or one on this machine.
    """
    from firstlight.inspection.tables import print_study
    from firstlight.studies.report import report
    from firstlight.studies.runner import open_study, run_study

    source, overrides = split_settings(settings)
    if source is None:
        raise ConfigError(
            "sweep needs a study file, or an experiment with --grid; such as `firstlight sweep mnist_mlp --grid optim.lr=log:1e-4:1:9`"
        )
    words = [*overrides, *([] if seeds is None else [f"seeds={seeds}"])]
    study, store = open_study(source, words, grid=grid or [], name=name, runs_dir=common.runs_dir)
    run_study(study, store, Console(quiet=common.json), data_dir=common.data_dir, workers=workers, lanes=lanes)
    result(common, report(study, store), print_study)


@app.command
def study(
    study: str,
    /,
    *,
    against: str | None = None,
    compare: Annotated[list[tuple[str, str]] | None, Parameter(negative=(), consume_multiple=False)] = None,
    beside: Path | None = None,
    interval: Literal["t", "bootstrap"] = "t",
    common: Common = COMMON,
) -> None:
    """Make the tables, pictures and answer of a study again from its folder, and ask it more; nothing is trained.

    Parameters
    ----------
    study
        Path or name of a study.
    against
        Compare all points with this one instead of the best, such as "optim.lr=0.1 model.dropout=0".
    compare
        Two settings, such as "optim.lr=0.1" "optim.lr=0.3"; may come several times.
    beside
        Another study, whose coverage is drawn beside this one's.
    interval
        How 95 % intervals are made: Student's t, or the BCa bootstrap, which is too short for few seeds.
    """
    from firstlight.inspection.tables import print_study
    from firstlight.studies.report import Questions, revisit

    asked = Questions(interval=interval, against=against, compare=compare or [], beside=beside)
    result(common, revisit(study, asked, runs_dir=common.runs_dir), print_study)


@app.command
def evaluate(
    run: str, /, *, split: Literal["val", "test"] = "val", checkpoint: Literal["best", "last"] = "best", common: Common = COMMON
) -> None:
    """Measure a run on labelled images. `--split test` opens the sealed test set, and the run records that.

    Parameters
    ----------
    run
        Path or name of a run.
    split
        Which images.
    checkpoint
        Which weights.
    """
    from firstlight.engine import finished
    from firstlight.inspection.tables import print_evaluation

    figures = finished.evaluate(run, split=split, which=checkpoint, runs_dir=common.runs_dir, data_dir=common.data_dir)
    result(common, figures, print_evaluation)


@app.command
def predict(run: str, /, *images: str, out: Path | None = None, top: int | None = None, common: Common = COMMON) -> None:
    """Name the class of images that have no label. With --out, a killed prediction goes on where it was.

    Parameters
    ----------
    run
        Path or name of a run.
    images
        Image files, folders of them, or one .csv of pixels; none means the unlabelled test part of the run's data (a competition's).
    out
        Also write the probabilities of all classes to this .csv, .csv.gz, .json, .npy or .parquet file.
    top
        Keep only so many of the most probable classes of an image.
    """
    from firstlight.engine.predict import predict as predict_images
    from firstlight.inspection.tables import SHOWN_PREDICTIONS, print_predictions
    from firstlight.tracking.run import find_run

    path = find_run(run, runs_dir(common)).path
    rows = predict_images(path, images, out=out, top=top, data_dir=common.data_dir, console=Console(quiet=common.json))
    files = ([str(out)] if out else []) + ([] if images else [str(path / "predictions-test.png")])
    found = {"run": str(path), "num_images": len(rows), "predictions": rows[:SHOWN_PREDICTIONS], "files": files}
    result(common, found, print_predictions)


@app.command
def submit(
    run: str | None = None,
    /,
    *images: str,
    sample: Path | None = None,
    out: Path = Path("submission.csv"),
    id_base: int | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    labels: Literal["index", "name"] | None = None,
    in_order: Annotated[bool, FLAG] = False,
    encoding: str | None = None,
    check: Path | None = None,
    score: float | None = None,
    scored: int | None = None,
    common: Common = COMMON,
) -> None:
    """Write a run's answers to a competition as its CSV, checked first; or check a CSV; or judge the score that came back.

    Parameters
    ----------
    run
        Path or name of a run.
    images
        The test images as files or folders; none means the unlabelled test part of the run's data.
    sample
        The competition's sample submission: columns, ids and their order are taken from it.
    out
        The file to write.
    id_base
        The id of the first test image (default: the first of the sample, else 1).
    id_column
        Name of the first column, where there is no sample.
    label_column
        Name of the second column, where there is no sample.
    labels
        Write a class as its index (from 0) or its name (default: as the sample does, else the index).
    in_order
        The rows of the sample are in the order of the test images, whatever their ids are.
    encoding
        Encoding of the sample, such as latin-1 (default: UTF-8).
    check
        Check this submission against --sample instead, without a run.
    score
        Judge this leaderboard score by the run's validation instead; nothing is written.
    scored
        Images that the score is of (default: all that were handed in).
    """
    from firstlight.export.submission import Wanted, answer
    from firstlight.export.tables import print_submission

    wanted = Wanted(
        sample=sample, id_base=id_base, id_column=id_column, label_column=label_column, labels=labels, in_order=in_order, encoding=encoding
    )
    places: dict[str, Any] = {"runs_dir": common.runs_dir, "data_dir": common.data_dir, "console": Console(quiet=common.json)}
    result(common, answer(run, images, wanted, out=out, check=check, score=score, scored=scored, **places), print_submission)


@app.command
def runs(folder: Path | None = None, /, *, sort: str = "val_accuracy", common: Common = COMMON) -> None:
    """List the runs of a folder, best first.

    Parameters
    ----------
    folder
        The folder (default: --runs-dir).
    sort
        Column to sort by.
    """
    from firstlight.inspection.tables import list_table, print_runs

    result(common, list_table(runs_dir(common, folder), sort), print_runs)


@app.command
def compare(runs: Annotated[list[str], Parameter(negative=())], /, *, out: Path | None = None, common: Common = COMMON) -> None:
    """Draw the curves of several runs on the same axes, and list the settings in which they differ.

    Parameters
    ----------
    runs
        Two or more runs.
    out
        The picture (default: compare.png beside the first run).
    """
    from firstlight.inspection.compare import compare as compare_runs
    from firstlight.inspection.tables import print_comparison

    result(common, compare_runs(runs, runs_dir=runs_dir(common), out=out), print_comparison)


@app.command
def note(run: str, text: str, /, *, common: Common = COMMON) -> None:
    """Add a note to a run.

    Parameters
    ----------
    run
        Path or name of a run.
    text
        The note.
    """
    from firstlight.inspection.tables import print_notes
    from firstlight.tracking.run import find_run, load_run
    from firstlight.tracking.writer import add_note

    path = find_run(run, runs_dir(common)).path
    add_note(load_run(path), text)
    result(common, {"run": str(path), "notes": load_run(path).info["notes"]}, print_notes)


@app.command
def doctor(*, common: Common = COMMON) -> None:
    """Check this machine: versions, device, one real training step with its time, data that are found."""
    from firstlight.engine.doctor import examine
    from firstlight.inspection.tables import print_examination

    result(common, examine(common.data_dir), print_examination)


@data.command(name="list")
def data_list(*, common: Common = COMMON) -> None:
    """List the data sets that have a name, and which of them are here."""
    from firstlight.inspection.data import list_sources, print_sources

    result(common, list_sources(common.data_dir), print_sources)


@data.command(name="fetch")
def data_fetch(name: str, /, *, from_: Annotated[Path | None, Parameter(name="--from")] = None, common: Common = COMMON) -> None:
    """Download a data set into the data folder, or take it from a local file.

    Parameters
    ----------
    name
        Name of the data set.
    from_
        A file or folder that was downloaded elsewhere; its checksum is checked.
    """
    from firstlight.inspection.data import fetch_source

    result(common, fetch_source(name, common.data_dir, local=from_, console=Console(quiet=common.json)))


@data.command(name="check")
def data_check(source: str, /, *settings: str, common: Common = COMMON) -> None:
    """Decode every image and check every label of a data set; list what is broken.

    Parameters
    ----------
    source
        Name of a data set, or a folder or archive of class folders.
    settings
        Settings of the data set, such as path=photos.
    """
    from firstlight.inspection.data import check_source, print_check, refuse_findings

    found = check_source(source, settings, common.data_dir)
    result(common, found, print_check)
    refuse_findings(found)


@data.command(name="describe")
def data_describe(source: str, /, *settings: str, out: Path | None = None, common: Common = COMMON) -> None:
    """Print counts, shapes, class balance and pixel statistics of the training part, and save a labelled sheet of images.

    Parameters
    ----------
    source
        Name of a data set, or a folder or archive of class folders.
    settings
        Settings of the data set, such as path=photos.
    out
        Folder for the pictures (default: the current folder).
    """
    from firstlight.inspection.data import describe_source, print_description

    result(common, describe_source(source, settings, common.data_dir, out=out or Path()), print_description)


@tune.command(name="lr")
def tune_lr(
    *settings: str, low: float = 1e-6, high: float = 10.0, steps: int = 100, out: Path = Path("lr-range.png"), common: Common = COMMON
) -> None:
    """Train for some steps at a growing learning rate, and say where the loss falls fastest: `tune lr [CONFIG] [key=value ...]`.

    Parameters
    ----------
    settings
        A shipped experiment's name or a YAML file (default: quickstart), and overrides.
    low
        First learning rate.
    high
        Last learning rate, unless the loss explodes before.
    steps
        Optimizer steps.
    out
        The picture.
    """
    from firstlight.engine import finders

    source, overrides = split_settings(settings)
    found = finders.tune_lr(source or "quickstart", *overrides, low=low, high=high, num_steps=steps, out=out, data_dir=common.data_dir)
    result(common, found, lambda _: print(found["says"], *found["files"], sep="\n"))


@tune.command(name="batch")
def tune_batch(
    *settings: str,
    memory: float | None = None,
    limit: int | None = None,
    out: Path = Path("batch-size.png"),
    common: Common = COMMON,
) -> None:
    """Train on growing batches in child processes, and say how fast each is and which is the largest that fits: `tune batch [CONFIG]`.

    Parameters
    ----------
    settings
        A shipped experiment's name or a YAML file (default: quickstart), and overrides.
    memory
        MiB that a step may take beyond data and network (default: what is free).
    limit
        Largest batch to try (default: all training images, on a CPU at most 4096).
    out
        The picture.
    """
    from firstlight.engine import finders

    source, overrides = split_settings(settings)
    places: dict[str, Any] = {"out": out, "data_dir": common.data_dir, "console": Console(quiet=common.json)}
    found = finders.tune_batch(source or "quickstart", *overrides, memory_mib=memory, limit=limit, **places)
    result(common, found, lambda _: print(found["says"], *found["files"], sep="\n"))


def result(common: Common, value: dict[str, Any], printer: Any = None) -> None:
    """Print a command's result: as JSON, or for people where the command has a way to."""
    if common.json:
        from firstlight.files import finite

        print(json.dumps(finite(value), ensure_ascii=False, allow_nan=False))
    elif printer is not None:
        printer(value)


def split_settings(words: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Return the config among the words, if there is one, and the overrides."""
    sources = [word for word in words if "=" not in word or Path(word).is_file()]
    if len(sources) > 1:
        raise ConfigError(f"more than one config: {', '.join(sources)}; an override is written key=value")
    return (sources[0] if sources else None), [word for word in words if word not in sources]


def check_train_options(source: str | None, name: str | None, resume: str | None, *, override: bool, exact: bool) -> None:
    """Raise ConfigError for options of `train` that do not go together."""
    if resume is None and (override or exact):
        raise ConfigError(f"{'--override' if override else '--exact'} says how to resume; it needs --resume RUN")
    if resume is not None and (source or name):
        raise ConfigError(f"--resume goes on with the run's own config and name; leave out {source or name}")


def config_of_run(run: str | None, common: Common) -> str:
    """Return the config file of the run that --resume names, or the name of the experiment that runs without a config."""
    from firstlight.tracking.run import find_run_to_resume

    return "quickstart" if run is None else str(find_run_to_resume(run, runs_dir(common)).path / "config.yaml")


def show_config(source: str, overrides: list[str], common: Common) -> None:
    """Print a resolved config with the place that set each key."""
    from firstlight.config.describe import describe, to_dict
    from firstlight.engine.sources import load_with_origins

    loaded = load_with_origins(source, overrides)
    result(common, to_dict(loaded.config), lambda _: print(describe(loaded.config, loaded.origins)))


def runs_dir(common: Common, folder: Path | None = None) -> Path:
    """Return the folder of runs: the one named, --runs-dir, FIRSTLIGHT_RUNS, or ./runs."""
    from firstlight.engine.places import runs_dir_of

    return runs_dir_of(folder or common.runs_dir)


if __name__ == "__main__":
    run_command(sys.argv[1:])
