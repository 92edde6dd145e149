"""The commands. Each is thin: it imports its room, calls one function, and prints what came back.

stdout holds the result (one JSON object with --json), stderr everything else.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from firstlight.errors import ConfigError
from firstlight.tracking.console import Console, is_first_process, is_only_process

app = App(
    name="firstlight",
    help="An experiment bench for image classification on PyTorch.",
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # it would leave without a word
)
data = App(name="data", help="List, fetch, check, describe, convert and generate data sets.")
app.command(data)
tune = App(name="tune", help="Find a learning rate, or the largest batch, by trying them for a few seconds.")
app.command(tune)
inspect = App(name="inspect", help="Look at data, and at what a run learned: its mistakes, how sure it is, what is wrong with it.")
app.command(inspect)
profile = App(name="profile", help="Measure where the time and the memory of a training go.")
app.command(profile)
lessons = App(name="lessons", help="The lessons: list them, build notebooks to hand out, check what is handed in.")
app.command(lessons)


Split = Literal["train", "val", "test"]
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
        said = " ".join(str(error).split()).partition(" Available commands:")[0]  # a part of them, which ends in dots
        raise ConfigError(f"{said.rstrip('.')}; `firstlight --help` shows the commands") from None


@app.command
def train(
    *settings: str,
    name: str | None = None,
    resume: str | None = None,
    note: str | None = None,
    override: Annotated[bool, FLAG] = False,
    exact: Annotated[bool, FLAG] = False,
    dry_run: Annotated[bool, FLAG] = False,
    workers: Literal["ray"] | None = None,
    ranks: int | None = None,
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
    workers
        ray: share the training among actors of the Ray cluster at RAY_ADDRESS, or of one on this machine.
    ranks
        With --workers ray: the processes that share it (default: those of the run that goes on, else one a GPU of the cluster).
    """
    source, overrides = split_settings(settings)
    check_train_options(source, name, resume, override=override, exact=exact)
    if dry_run:
        return show_config(source or config_of_run(resume, common), overrides, common)
    if workers is not None or ranks is not None:
        check_ray_options(workers, ranks)
        given = {"--name": name, "--resume": resume, "--note": note, "--override": override, "--exact": exact}
        words = ["train", *settings, *option_words(given, common)]
        from firstlight.engine.actors import train_in_actors
        from firstlight.engine.sources import load_config

        device = load_config(source or config_of_run(resume, common), *overrides).device.name
        run_path = resume or (str(runs_dir(common) / name) if name else "latest")
        num = ranks_of_run(resume, common) if ranks is None and resume else ranks
        code = train_in_actors(words, num, device=device, run=run_path, console=Console(quiet=common.json))
        sys.exit(code)  # a rank has said what came of it
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
    if not is_only_process():
        raise ConfigError("a study is led by one process, and torchrun started several; leave torchrun out, and add --workers N")
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
    interval: Literal["t", "bootstrap"] | None = None,
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
        How 95 % intervals are made (default: as the study says): Student's t, or the BCa bootstrap, which is too short for few seeds.
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
def predict(
    run: str,
    /,
    *images: str,
    out: Path | None = None,
    top: int | None = None,
    trust_code: Annotated[bool, FLAG] = False,
    common: Common = COMMON,
) -> None:
    """Name the class of images that have no label. With --out, a killed prediction goes on where it was.

    Parameters
    ----------
    run
        Path or name of a run, or a file that `firstlight export` wrote.
    images
        Image files, folders of them, or one .csv of pixels; none means the unlabelled test part of the run's data (a competition's).
    out
        Also write the probabilities of all classes to this .csv, .csv.gz, .json, .npy or .parquet file.
    top
        Keep only so many of the most probable classes of an image.
    trust_code
        Of a .pt2 or TorchScript file: run the code that it holds.
    """
    from firstlight.inspection.tables import SHOWN_PREDICTIONS, print_predictions

    where, rows, drawn = answers_of(run, images, out=out, top=top, trust_code=trust_code, common=common)
    found = {"run": where, "num_images": len(rows), "predictions": rows[:SHOWN_PREDICTIONS], "files": ([str(out)] if out else []) + drawn}
    result(common, found, print_predictions)


def answers_of(run: str, images: tuple[str, ...], *, trust_code: bool, common: Common, **options: Any) -> tuple[str, Any, list[str]]:
    """Return the path of a run or of an exported file, its answers, and the pictures that were drawn of them."""
    from firstlight.export.suffixes import is_exported_file

    options["console"] = Console(quiet=common.json)
    if is_exported_file(run, runs_dir(common)):
        from firstlight.export.predict import predict_with_file

        return run, predict_with_file(run, images, trust_code=trust_code, **options), []
    if trust_code:
        raise ConfigError("--trust-code is for .pt2 and .pt files, and a run holds no code; leave it out")
    from firstlight.engine.predict import predict as predict_images
    from firstlight.tracking.run import find_run

    path = find_run(run, runs_dir(common)).path
    rows = predict_images(path, images, data_dir=common.data_dir, **options)
    return str(path), rows, [] if images else [str(path / "predictions-test.png")]


@app.command
def export(
    run: str,
    /,
    *,
    format: Annotated[list[Literal["safetensors", "onnx", "pt2", "torchscript"]] | None, Parameter(negative=())] = None,
    checkpoint: Literal["best", "last"] = "best",
    out: Path | None = None,
    common: Common = COMMON,
) -> None:
    """Write the network of a run as files that other programs load, each checked against the run on 100 images.

    Parameters
    ----------
    run
        Path or name of a run.
    format
        One format or several (default: onnx).
    checkpoint
        Which weights.
    out
        A file, or a folder (default: the folder `export` of the run).
    """
    from firstlight.export.export import export as export_run
    from firstlight.export.export import refuse_failed
    from firstlight.export.tables import print_export

    places: dict[str, Any] = {"runs_dir": common.runs_dir, "data_dir": common.data_dir}
    found = export_run(run, format or ["onnx"], out=out, which=checkpoint, **places)
    result(common, found, print_export)
    refuse_failed(found)


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
def report(targets: Annotated[list[str], Parameter(negative=())], /, *, out: Path | None = None, common: Common = COMMON) -> None:
    """Put all that is known of a run, a study, or several of them into one HTML file that can be handed in.

    Parameters
    ----------
    targets
        Runs or studies, by path or name.
    out
        The page (default: report.html in the folder of the run or study; of several, in the current folder).
    """
    from firstlight.reports.report import print_report
    from firstlight.reports.report import report as make_report

    result(common, make_report(*targets, out=out, runs_dir=common.runs_dir), print_report)


@app.command(name="export-logs")
def export_logs(
    target: str,
    /,
    *,
    to: Literal["tensorboard", "wandb"],
    out: Path | None = None,
    project: str | None = None,
    entity: str | None = None,
    mode: Literal["auto", "offline", "online"] = "auto",
    common: Common = COMMON,
) -> None:
    """Hand a finished run, or all of a study, to TensorBoard or Weights & Biases: figures, settings, pictures, tables.

    Parameters
    ----------
    target
        Path or name of a run or a study.
    to
        Who is told.
    out
        Write the files below this folder (default: into each run's own).
    project
        Project of Weights & Biases (default: that of the run's config).
    entity
        User or team that the project belongs to (default: that of the run's config).
    mode
        Weights & Biases: files for `wandb sync`, its server, or (auto) its server where there is a login.
    """
    from firstlight.export.logs import export, print_export

    place: dict[str, Any] = {"project": project, "entity": entity, "mode": mode}
    result(common, export(target, to, out=out, runs_dir=common.runs_dir, **place), print_export)


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
def tag(
    run: str, tags: Annotated[list[str], Parameter(negative=())], /, *, remove: Annotated[bool, FLAG] = False, common: Common = COMMON
) -> None:
    """Tag a run, so that it is found again: `firstlight tag RUN final`, then `tag=final` in the dashboard.

    Parameters
    ----------
    run
        Path or name of a run.
    tags
        One or more tags.
    remove
        Take these tags from the run.
    """
    from firstlight.tracking.run import find_run
    from firstlight.tracking.writer import change_tags

    found = find_run(run, runs_dir(common))
    now = change_tags(found, tags, remove=remove)
    result(common, {"run": str(found.path), "tags": now}, lambda value: print(", ".join(value["tags"]) or "no tags"))


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
def data_check(source: str, /, *settings: str, full: Annotated[bool, FLAG] = False, common: Common = COMMON) -> None:
    """Decode every image and check every label of a data set; list what is broken.

    Parameters
    ----------
    source
        Name of a data set, a folder or archive of class folders, an HDF5 file, or shards (their folder, or a pattern).
    settings
        Settings of the data set, such as path=photos.
    full
        Read every pixel of an HDF5 file and compare its checksums; decode every image of shards.
    """
    from firstlight.inspection.data import check_source, print_check, refuse_findings

    found = check_source(source, settings, common.data_dir, full=full)
    result(common, found, print_check)
    refuse_findings(found)


@data.command(name="convert")
def data_convert(
    source: str,
    out: Path,
    /,
    *settings: str,
    size: int | None = None,
    layout: Literal["nhwc", "nchw"] = "nhwc",
    val_fraction: float = 0.1,
    chunked: Annotated[bool, FLAG] = False,
    in_order: Annotated[bool, FLAG] = False,
    common: Common = COMMON,
) -> None:
    """Write a data set as one HDF5 file in Medium ImageNet's layout, shuffled and with checksums; a killed conversion goes on.

    Parameters
    ----------
    source
        A folder or archive of class folders, shards, or the name of a data set.
    out
        The file, such as photos.h5.
    settings
        Settings of the data set, such as test_fraction=0.1.
    size
        Pixels square of all images (default: as they are, if all have one size).
    layout
        Order of the axes.
    val_fraction
        Share of the training images that becomes the validation part.
    chunked
        Store blocks of 4 MiB that each carry HDF5's own checksum.
    in_order
        Leave the images in their order, which is class by class, instead of shuffling them.
    """
    from firstlight.inspection.data import convert_source, print_hdf5

    how: dict[str, Any] = {"size": size, "layout": layout, "val_fraction": val_fraction, "chunked": chunked, "shuffled": not in_order}
    made = convert_source(source, settings, out, common.data_dir, console=Console(quiet=common.json), **how)
    result(common, made, print_hdf5)


@data.command(name="generate")
def data_generate(
    out: Path,
    /,
    *,
    images: int = 20_000,
    size: int = 96,
    classes: int = 200,
    seed: int = 0,
    layout: Literal["nhwc", "nchw"] = "nhwc",
    chunked: Annotated[bool, FLAG] = False,
    common: Common = COMMON,
) -> None:
    """Make up a data set in Medium ImageNet's layout, with classes that can be learned, a val part, and a test part without labels.

    Parameters
    ----------
    out
        The file, such as made.h5.
    images
        Images to train on; a tenth of that each to validate and to test.
    size
        Pixels square.
    classes
        Number of classes.
    seed
        Another seed draws other images.
    layout
        Order of the axes.
    chunked
        Store blocks of 4 MiB that each carry HDF5's own checksum.
    """
    from firstlight.inspection.data import generate_source, print_hdf5

    how: dict[str, Any] = {"num_images": images, "size": size, "num_classes": classes, "seed": seed, "order": layout, "chunked": chunked}
    result(common, generate_source(out, console=Console(quiet=common.json), **how), print_hdf5)


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


@inspect.command(name="data")
def inspect_data(
    *words: str,
    compare: Annotated[bool, FLAG] = False,
    test: Annotated[bool, FLAG] = False,
    out: Path = Path("inspection"),
    common: Common = COMMON,
) -> None:
    """Look at data as they are and as the network sees them, or at two sets beside each other: `inspect data --compare A B`.

    Parameters
    ----------
    words
        A data set, a folder of class folders, an experiment or a run (two with --compare), and settings such as augment.rotation=15.
    compare
        Put two sets beside each other, and name what was likely done to the first to make the second.
    test
        Look for duplicates of test images, too: pixels are compared, labels stay unread; a run records it.
    out
        Folder for pictures and figures (those of a run lie in the run).
    """
    from firstlight.inspection.data_look import look, print_look

    places: dict[str, Any] = {"runs_dir": common.runs_dir, "data_dir": common.data_dir}
    result(common, look(words, compare=compare, test=test, out=out, console=Console(quiet=common.json), **places), print_look)


@inspect.command(name="warmup")
def inspect_warmup(
    source: str = "mnist", /, *settings: str, num: int = 500, seed: int = 0, out: Path = Path("inspection"), common: Common = COMMON
) -> None:
    """Show a random digit, and tell odd digits from even ones by least squares in closed form.

    Parameters
    ----------
    source
        A data set whose classes are numbers.
    settings
        Settings of it.
    num
        Images that the weights are fitted to.
    seed
        Which images.
    out
        Folder for the picture.
    """
    from firstlight.inspection.subject import find_subject
    from firstlight.inspection.warmup import print_warmup, warm_up

    subject = find_subject(source, settings, runs_dir=common.runs_dir, data_dir=common.data_dir)
    result(common, warm_up(subject, num=num, seed=seed, out=out), print_warmup)


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


@app.command
def new(folder: Path, /, *, common: Common = COMMON) -> None:
    """Begin a project of your own: model.py, data.py, main.py and tests, a hundred lines that read corrupted digits.

    Parameters
    ----------
    folder
        The new folder.
    """
    from firstlight.notebooks.scaffold import new_project

    paths = new_project(folder)
    result(common, {"files": [str(path) for path in paths]}, print_project)


def print_project(found: dict[str, Any]) -> None:
    """Say what was written, and what to type next."""
    folder = Path(found["files"][0]).parent
    print(f"wrote {', '.join(Path(path).name for path in found['files'])} into {folder}")
    print(f"next: cd {shlex.quote(str(folder))}; python main.py train; python main.py evaluate trained_model.pt")


@app.command
def dashboard(
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    open_browser: Annotated[bool, Parameter(name="--open", negative=(), show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Show all runs in a browser, live while they train. Pages are read-only, and only this machine gets them.

    Parameters
    ----------
    port
        Where the pages are (default: 8765, or a free port where that is in use; 0: any free port).
    host
        Address to listen at. Another than this machine's own lets others in who know the printed address.
    open_browser
        Open the pages in a browser.
    """
    from firstlight.dashboard.server import serve

    serve(runs_dir(common), host=host, port=port, opened=open_browser)


@app.command
def lock(
    *,
    reader: Path | None = None,
    port: int | None = None,
    open_browser: Annotated[bool, Parameter(name="--open", negative=(), show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Serve a page with a lock that opens when its code of four digits is drawn by hand. Needs onnxruntime, and no torch.

    Parameters
    ----------
    reader
        ONNX file that reads the digits, a run on MNIST that `firstlight export` wrote (default: a small network of the package).
    port
        Where the page is (default: 8765, or a free port where that is in use; 0: any free port).
    open_browser
        Open the page in a browser.
    """
    from firstlight.dashboard.lock_page import open_door
    from firstlight.dashboard.server import serve

    serve(runs_dir(common), port=port, opened=open_browser, door=open_door(reader), entry="lock")


@inspect.command(name="predictions")
def inspect_predictions(
    run: str,
    /,
    *,
    split: Split = "val",
    image: str | None = None,
    num: int = 20,
    classes: str | None = None,
    only: Literal["right", "wrong"] | None = None,
    sort: Literal["confident", "unsure", "loss"] | None = None,
    all_classes: Annotated[bool, Parameter(name="--all", negative=(), show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Draw images with true and predicted label, and write a table of what the network says of every image.

    Parameters
    ----------
    run
        Path or name of a run.
    split
        Which images; `test` opens the sealed test set, and the run records that.
    image
        One image beside the probabilities of its classes: its number in the split, from 0, or an image file.
    num
        Images on the sheet.
    classes
        Show images of these classes alone, such as 4,9 or cat,dog.
    only
        Show right or wrong answers alone.
    sort
        Show the most confident answers first, the least confident, or those of the largest loss (default: spread evenly).
    all_classes
        Write the probabilities of all classes, however many there are.
    """
    from firstlight.inspection import predictions as room

    if image is not None:
        return result(common, room.inspect_image(run, image, split=split, **places(common)), room.print_image)
    wanted: dict[str, Any] = {"num": num, "classes": classes, "only": only, "sort": sort, "all_classes": all_classes}
    return result(common, room.inspect_predictions(run, split=split, **wanted, **places(common)), room.print_inspected_predictions)


@inspect.command(name="mistakes")
def inspect_mistakes(
    run: str,
    /,
    *,
    split: Split = "val",
    num: int = 20,
    pair: str | None = None,
    saliency: Literal["gradient", "smooth"] = "smooth",
    common: Common = COMMON,
) -> None:
    """Draw the images that are taken for another class, worst first, each beside the nearest training images and what the network looks at.

    Parameters
    ----------
    run
        Path or name of a run.
    split
        Which images; `test` opens the sealed test set, and the run records that.
    num
        Mistakes to draw; the table has them all.
    pair
        Draw one confusion alone, such as 4,9: images of class 4 that are taken for 9.
    saliency
        The gradient at the image, or its mean over noisy copies, which shows shapes better.
    """
    from firstlight.inspection import mistakes as room

    found = room.inspect_mistakes(run, split=split, num=num, pair=pair, saliency=saliency, **places(common))
    result(common, found, room.print_mistakes)


@inspect.command(name="confusion")
def inspect_confusion(run: str, /, *, split: Split = "val", common: Common = COMMON) -> None:
    """Draw which classes are taken for which, and how far the probabilities can be trusted.

    Parameters
    ----------
    run
        Path or name of a run.
    split
        Which images; `test` opens the sealed test set, and the run records that.
    """
    from firstlight.inspection import confusion as room

    result(common, room.inspect_confusion(run, split=split, **places(common)), room.print_confusion)


def places(common: Common) -> dict[str, Any]:
    """Return where runs and data lie, as functions take it."""
    return {"runs_dir": common.runs_dir, "data_dir": common.data_dir}


@inspect.command(name="uncertainty")
def inspect_uncertainty(
    run: str,
    /,
    *,
    image: str | None = None,
    passes: int = 100,
    num: int = 20,
    split: Literal["train", "val", "test"] = "val",
    common: Common = COMMON,
) -> None:
    """Say how sure a run is, by sending images through it many times with its dropout on (Monte-Carlo dropout).

    Parameters
    ----------
    run
        Path or name of a run whose network has dropout.
    image
        Look at one image alone: its place in the split, from 0, or an image file.
    passes
        Times that each image is sent through.
    num
        Images on the sheet of the most uncertain.
    split
        Which images; `test` opens the sealed test set, and the run records that.
    """
    from firstlight.inspection.uncertainty import print_uncertainty, uncertainty

    options: dict[str, Any] = {"split": split, "runs_dir": common.runs_dir, "data_dir": common.data_dir}
    found = uncertainty(run, image=image, num_passes=passes, num=num, console=Console(quiet=common.json), **options)
    result(common, found, print_uncertainty)


@inspect.command(name="embedding")
def inspect_embedding(
    run: str,
    /,
    *,
    method: Literal["pca", "tsne", "umap"] = "pca",
    num: int = 2000,
    seed: int = 0,
    split: Literal["train", "val", "test"] = "val",
    common: Common = COMMON,
) -> None:
    """Draw a map of images by the features that the last layer is given, and say how well classes lie apart.

    Parameters
    ----------
    run
        Path or name of a run.
    method
        Principal components, t-SNE (needs the extra `embed`) or UMAP (needs the extra `umap`).
    num
        Images on the map; where the split has more, so many are drawn at random.
    seed
        Of that draw, and of the method.
    split
        Which images; `test` opens the sealed test set, and the run records that.
    """
    from firstlight.inspection.embedding import embedding, print_embedding

    places: dict[str, Any] = {"runs_dir": common.runs_dir, "data_dir": common.data_dir}
    result(common, embedding(run, method=method, num=num, seed=seed, split=split, **places), print_embedding)


@inspect.command(name="activations")
def inspect_activations(
    source: str,
    /,
    *settings: str,
    image: str = "0",
    compare: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    grid: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=False)] = None,
    steps: int = 50,
    out: Path = Path("activations"),
    split: Literal["train", "val", "test"] = "val",
    common: Common = COMMON,
) -> None:
    """Draw filters, feature maps, and activations and gradients by depth: of a run, of several, or of variants of an experiment.

    Parameters
    ----------
    source
        Path or name of a run; or a shipped experiment's name or a YAML file, which is then trained for some steps.
    settings
        With an experiment: overrides such as model.norm=false.
    image
        With a run: the image whose feature maps are drawn, its place in the split, from 0, or an image file.
    compare
        With a run: other runs to draw on the same axes.
    grid
        With an experiment: a setting and its values, such as model.norm=true,false; may come several times, for every combination.
    steps
        With an experiment: optimizer steps between the first look and the second.
    out
        With an experiment: folder for the pictures.
    split
        With a run: which images; `test` opens the sealed test set, and the run records that.
    """
    from firstlight.inspection import activations

    places: dict[str, Any] = {"data_dir": common.data_dir}
    if not activations.is_run(source, common.runs_dir):
        options: dict[str, Any] = {"num_steps": steps, "out": out, "console": Console(quiet=common.json)}
        found = activations.look_at_variants(source, settings, grid or [], compare=compare, **options, **places)
    else:
        places |= {"split": split, "runs_dir": common.runs_dir}
        found = activations.look_at_runs([source, *(compare or [])], refused=[*settings, *(grid or [])], image=image, **places)
    result(common, found, activations.print_activations)


@profile.command(name="throughput")
def profile_throughput(
    *settings: str, memory: float | None = None, limit: int | None = None, out: Path | None = None, common: Common = COMMON
) -> None:
    """Time training steps on batches of 1, 2, 4, ... images, and say what binds each: `profile throughput [CONFIG|RUN] [key=value ...]`.

    Parameters
    ----------
    settings
        An experiment, a YAML file or a run (default: quickstart), and overrides.
    memory
        MiB that a step may take beyond data and network (default: what is free). With it the search goes on until memory ends.
    limit
        Largest batch to try, past the knee too (default: two doublings past the knee).
    out
        Folder for the files (default: the run's, or ./profile).
    """
    from firstlight.profiling.tables import print_throughput
    from firstlight.profiling.throughput import profile_throughput as measure

    source, overrides = split_settings(settings)
    places: dict[str, Any] = {"out": out, "runs_dir": common.runs_dir, "data_dir": common.data_dir}
    found = measure(source, *overrides, memory_mib=memory, limit=limit, console=Console(quiet=common.json), **places)
    result(common, found, print_throughput)


@profile.command(name="memory")
def profile_memory(*settings: str, batch: int = 128, out: Path | None = None, common: Common = COMMON) -> None:
    """Measure what a training step takes of the memory, for several networks at one batch size: `profile memory lenet alexnet`.

    Parameters
    ----------
    settings
        Experiments, YAML files or runs (default: quickstart), and overrides for all of them.
    batch
        Images in the batch.
    out
        Folder for the files (default: that of the run where there is but one, or ./profile).
    """
    from firstlight.profiling.memory import profile_memory as measure
    from firstlight.profiling.tables import print_memory

    sources, overrides = part_settings(settings)
    places: dict[str, Any] = {"out": out, "runs_dir": common.runs_dir, "data_dir": common.data_dir}
    found = measure(sources, overrides, batch_size=batch, console=Console(quiet=common.json), **places)
    result(common, found, print_memory)


@profile.command(name="summary")
def profile_summary(*settings: str, out: Path | None = None, common: Common = COMMON) -> None:
    """List the layers of a network with shapes, parameters, FLOPs and bytes: `profile summary [CONFIG|RUN] [key=value ...]`.

    Parameters
    ----------
    settings
        An experiment, a YAML file or a run (default: quickstart), and overrides.
    out
        Folder for the files (default: the run's, or ./profile).
    """
    from firstlight.profiling.summary import profile_summary as describe
    from firstlight.profiling.tables import print_summary

    source, overrides = split_settings(settings)
    found = describe(source, *overrides, out=out, runs_dir=common.runs_dir, data_dir=common.data_dir)
    result(common, found, print_summary)


def part_settings(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the configs among the words, and the overrides."""
    sources = [word for word in words if "=" not in word or Path(word).is_file()]
    return sources, [word for word in words if word not in sources]


@inspect.command(name="health")
def inspect_health(
    *settings: str,
    split: Literal["train", "val", "test"] = "val",
    steps: int | None = None,
    out: Path = Path("inspection"),
    common: Common = COMMON,
) -> None:
    """Check a training as a careful practitioner would, by a few short trials: `inspect health CONFIG|RUN [key=value ...]`.

    Parameters
    ----------
    settings
        A run, or a shipped experiment's name or a YAML file (default: quickstart), and overrides such as optim.lr=10.
    split
        Of a run: the images that judge it.
    steps
        Optimizer steps of each trial (default: 150, and fewer for networks that need much work).
    out
        Folder for the pictures of an experiment; those of a run go into its folder.
    """
    from firstlight.inspection.health import inspect_health as look
    from firstlight.inspection.health import print_checks

    source, overrides = split_settings(settings)
    places: dict[str, Any] = {"out": out, "runs_dir": common.runs_dir, "data_dir": common.data_dir}
    found = look(source or "quickstart", *overrides, split=split, num_steps=steps, **places)
    result(common, found, print_checks)


@lessons.command(name="list")
def lessons_list(names: Annotated[tuple[str, ...], Parameter(negative=())] = (), /, *, common: Common = COMMON) -> None:
    """List the lessons: title, minutes, what they show, and the data that they would run on here."""
    from firstlight.notebooks.build import list_lessons, print_lessons

    result(common, list_lessons(names, data_dir=common.data_dir), print_lessons)


@lessons.command(name="build")
def lessons_build(
    *names: str,
    out: Path = Path("built_lessons"),
    student: Annotated[bool, FLAG] = False,
    instructor: Annotated[bool, FLAG] = False,
    size: Literal["small", "full"] = "full",
    bundle: Literal["zip", "colab"] | None = None,
    common: Common = COMMON,
) -> None:
    """Build notebooks: the students', the instructor's with solutions and outputs, and on request one archive to hand out.

    Parameters
    ----------
    names
        Lessons, such as 4 or 04_training_loop, or files (default: all).
    out
        Folder for what is built.
    student
        The students' version alone, which takes seconds.
    instructor
        The instructor's version alone.
    size
        What the instructor's version is run at: full, or a quick walk.
    bundle
        One archive of the students' notebooks and firstlight: zip for any computer, colab with an install cell in each.
    """
    from firstlight.notebooks.build import build_lessons, print_built

    versions = [name for name, wanted in (("student", student), ("instructor", instructor)) if wanted or not (student or instructor)]
    places: dict[str, Any] = {"out": out, "data_dir": common.data_dir, "console": Console(quiet=common.json)}
    result(common, build_lessons(names, versions=versions, size=size, bundle=bundle, **places), print_built)


@lessons.command(name="check")
def lessons_check(
    *files: Path,
    run: Annotated[bool, FLAG] = False,
    seconds: float = 1_800,
    lesson: str | None = None,
    common: Common = COMMON,
) -> None:
    """Check handed-in notebooks: ran from top to bottom, all outputs, no errors, filled in, nothing of the lesson changed.

    Parameters
    ----------
    files
        Notebooks, or folders of them. Exit code: 0 all good, 1 something was found, 3 a file cannot be read.
    run
        Also run each twice in a confined process: stale outputs, random numbers, hidden errors, points of the checks.
    seconds
        With --run: time limit of a run.
    lesson
        The lesson they belong to, a name or a file, or a folder of sources (default: the installed lesson that each notebook names).
    """
    from firstlight.notebooks.hand_in import check, print_check

    found = check(files, lesson=lesson, rerun=run, seconds=seconds, data_dir=common.data_dir)
    result(common, found, print_check)
    sys.exit(found["exit_code"])


def result(common: Common, value: dict[str, Any], printer: Any = None) -> None:
    """Print a command's result: as JSON, or for people where the command has a way to."""
    if not is_first_process():
        return
    if common.json:
        from firstlight.files import finite

        print(json.dumps(finite(value), ensure_ascii=False, allow_nan=False))
    elif printer is not None:
        printer(value)


def split_settings(words: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Return the config among the words, if there is one, and the overrides."""
    sources, overrides = part_settings(words)
    if len(sources) > 1:
        raise ConfigError(f"more than one config: {', '.join(sources)}; an override is written key=value")
    return (sources[0] if sources else None), overrides


def check_train_options(source: str | None, name: str | None, resume: str | None, *, override: bool, exact: bool) -> None:
    """Raise ConfigError for options of `train` that do not go together."""
    if resume is None and (override or exact):
        raise ConfigError(f"{'--override' if override else '--exact'} says how to resume; it needs --resume RUN")
    if resume is not None and (source or name):
        raise ConfigError(f"--resume goes on with the run's own config and name; leave out {source or name}")


def option_words(given: dict[str, Any], common: Common) -> list[str]:
    """Return options of `train` as they are written on a command line."""
    given = {**given, "--runs-dir": common.runs_dir, "--data-dir": common.data_dir, "--json": common.json}
    return [part for word, value in given.items() if value for part in ([word] if value is True else [word, str(value)])]


def check_ray_options(workers: str | None, ranks: int | None) -> None:
    """Raise ConfigError for options of `train` that do not start ranks on a Ray cluster."""
    if workers is None:
        raise ConfigError("--ranks is for --workers ray; on one machine, start `torchrun --nproc-per-node N -m firstlight train ...`")
    if ranks is not None and ranks < 1:
        raise ConfigError(f"--ranks is {ranks}; give a whole number of 1 or more")
    if not is_only_process():
        raise ConfigError("--workers ray starts the ranks, and torchrun started several already; leave out one of the two")


def ranks_of_run(run: str, common: Common) -> int:
    """Return how many processes trained a run that is to go on."""
    from firstlight.tracking.run import find_run_to_resume

    ranks: int = find_run_to_resume(run, runs_dir(common)).info.get("ranks", 1)
    return ranks


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
