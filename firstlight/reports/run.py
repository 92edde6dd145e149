"""The chapter of one run: what came of it, what was run, its curves, and whatever was looked at since.

Reading order: chapter_of_run. A run folder may be damaged or half written; what can be read of it is shown, the rest is named.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.reports.findings import findings, says_of
from firstlight.reports.page import MAX_ROWS, Chapter, Figure, Picture, Section, Table
from firstlight.reports.pictures import drawn, read_pictures
from firstlight.reports.values import duration, four, interval_of
from firstlight.tracking.run import Run
from firstlight.tracking.table import show, show_mflop
from firstlight.tracking.values import Tree, listed, number, one_line, part, read_json, rows_of, texts

COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "best", "seconds")
LOOKS = ("evaluate", "inspect predictions", "inspect mistakes", "inspect confusion", "inspect health", "profile throughput")
"""Commands that add to a report, each followed by a run."""
MAX_WARNINGS = 20
MAX_STEPS = 20_000
"""Steps whose losses are drawn; of more, every second, third, ... one."""


def chapter_of_run(run: Run, kind: str = "Run") -> Chapter:
    """Return what there is to say of a run."""
    parts: dict[str, Callable[[], Section | Sequence[Section]]] = {
        "Result": lambda: _result(run),
        "Curves": lambda: _curves(run),
        "Findings": lambda: findings(run.path),
        "Notes": lambda: [Section(title="Notes", says=notes)] if (notes := texts(run.info.get("notes"))) else [],
        "Pictures": lambda: _pictures(run),
        "What was run": lambda: _what_was_run(run),
        "Not looked at yet": lambda: _not_yet(run),
    }
    found = [section for title, make in parts.items() for section in safely(title, make)]
    return Chapter(title=run.name, kind=kind, sections=found, hints=hints_of(run))


def safely(title: str, make: Callable[[], Section | Sequence[Section]]) -> list[Section]:
    """Return the sections that `make` returns; where damaged files break it, a section that says so: the others are fine."""
    try:
        made = make()
    except Exception as error:
        return [Section(title=title, warnings=[f"this part cannot be shown ({type(error).__name__}: {one_line(error)})"])]
    return [made] if isinstance(made, Section) else list(made)


def val_accuracy(run: Run) -> float | None:
    """Return the validation accuracy that stands for a run: of its best epoch, or the highest so far."""
    known = number(part(run.info, "summary").get("val_accuracy"))
    measured = [value for row in run.epochs if (value := number(row.get("val_accuracy"))) is not None]
    return known if known is not None else max(measured, default=None)


def spread_of(run: Run) -> str:
    """Return the 95 % interval of a run's validation accuracy."""
    return interval_of(val_accuracy(run), part(run.info, "data").get("num_val"))


def best_epoch(run: Run) -> Tree:
    """Return the row of the best epoch, the last one without validation; nothing before the first."""
    best = [row for row in run.epochs if row.get("best")]
    return (best or run.epochs or [{}])[-1]


def _result(run: Run) -> Section:
    info, summary, best = run.info, part(run.info, "summary"), best_epoch(run)
    num_epochs, network = part(run.config, "train").get("epochs"), part(info, "network")
    val, openings = val_accuracy(run), rows_of(info.get("test_openings"))
    figures = []
    if val is not None or "val_accuracy" in best:
        figures.append(Figure(name="validation accuracy", value=four(val), below=spread_of(run)))
        figures.append(Figure(name="validation loss", value=four(best.get("val_loss", summary.get("val_loss"))), below="nats, best epoch"))
    if best:
        figures.append(Figure(name="best epoch", value=show(best["epoch"]), below=f"{len(run.epochs)} of {num_epochs} epochs trained"))
    figures.append(_test_figure(openings))
    figures.append(Figure(name="time", value=duration(info.get("seconds")), below=_device(run)))
    if number(flops := network.get("flops_per_image")) is not None:
        below = f"{show_mflop(flops or 0)} MFLOP an image"
        figures.append(Figure(name="parameters", value=show(network.get("num_parameters")), below=below))
    tables = [Table(rows=openings, heading="Openings of the sealed test set")] if openings else []
    return Section(title="Result", warnings=_warnings(run, openings), figures=figures, tables=tables)


def _test_figure(openings: Sequence[Tree]) -> Figure:
    measured = [row for row in openings if number(row.get("accuracy")) is not None]
    if not openings:
        return Figure(name="test accuracy", value="sealed", below="the test set was not opened")
    times = "opened once" if len(openings) == 1 else f"opened {len(openings)} times"
    if not measured:
        return Figure(name="test accuracy", value="-", below=f"{times}, without an accuracy")
    last = measured[-1]
    return Figure(
        name="test accuracy", value=four(last["accuracy"]), below=f"{interval_of(last['accuracy'], last.get('num_images'))}; {times}"
    )


def _device(run: Run) -> str:
    arithmetic = part(run.info, "arithmetic")
    threads = number(arithmetic.get("threads"))
    words = [arithmetic.get("device"), arithmetic.get("precision"), f"{threads:g} thread{'s' * (threads != 1)}" if threads else None]
    return listed([word for word in words if word])


def _warnings(run: Run, openings: Sequence[Tree]) -> list[str]:
    """Return what a reader must know before believing a figure, each once."""
    state, info = run.state, run.info
    found = []
    if run.damage:
        found.append(f"this run folder is damaged ({one_line(run.damage)}); what could be read of it is shown")
    elif state != "finished":
        more = {"interrupted": "; its figures are those so far", "running": "; its figures are those so far"}
        found.append(f"the run did not finish, its state is {state}{more.get(state, '')}")
    if len(openings) > 1:
        found.append(f"the test set was opened {len(openings)} times; what was chosen after the first time makes later figures too good")
    nan = read_json(run.path / "nan_report.json") if (run.path / "nan_report.json").is_file() else {}
    if not isinstance(nan, str) and nan:
        found.append(
            f"{one_line(nan.get('what', 'a number was not finite'))} at step {show(nan.get('step'))}, epoch {show(nan.get('epoch'))}"
        )
    found += [f"went back to step {show(row.get('step'))}: {one_line(row.get('why'))}" for row in rows_of(info.get("rollbacks"))]
    found += texts(info.get("warnings"))
    found = list(dict.fromkeys([*found, *_logged(run.path / "log.txt")]))
    more_of_them = [f"and {len(found) - MAX_WARNINGS} more in log.txt"] if len(found) > MAX_WARNINGS else []
    return found[:MAX_WARNINGS] + more_of_them


def _logged(path: Path) -> list[str]:
    """Return the warnings of a log."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition("warning: ")[2] for line in lines if line.partition(" ")[2].startswith("warning: ")]


def _curves(run: Run) -> Section | list[Section]:
    from firstlight.plotting.curves import plot_curves, plot_steps

    epochs, steps = run.epochs, run.steps
    if not epochs and not steps:
        return []
    pictures: list[Picture] = []
    if epochs:
        pictures.append(drawn(plot_curves({run.name: epochs}), f"Loss and accuracy of {run.name} by epoch; a star marks the best epoch."))
    if steps:
        every = math.ceil(len(steps) / MAX_STEPS)
        said = (
            f"Training loss of each optimizer step{f', every {every}th drawn' if every > 1 else ''}, and the learning rate it was made at."
        )
        pictures.append(drawn(plot_steps(steps[::every]), said))
    every = math.ceil(len(epochs) / MAX_ROWS)
    rows = [{key: _measured(row, key) for key in COLUMNS if key in row} for row in epochs[::-1][::every][::-1]]
    remark = f"every {every}th epoch; all are in metrics.jsonl" if every > 1 else ""
    return Section(title="Curves", pictures=pictures, tables=[Table(rows=rows, heading="Epochs", remark=remark)])


def _measured(row: Tree, key: str) -> Any:
    """Return a figure of an epoch; null in the file stands for a number that was not finite."""
    if key == "best":
        return "best so far" if row[key] else ""
    return math.nan if row[key] is None else row[key]


def _what_was_run(run: Run) -> Section:
    info, config = run.info, run.config
    data, network, place, seeds = (part(info, key) for key in ("data", "network", "environment", "seeds"))
    git, names = part(place, "git"), texts(data.get("class_names"))
    command = texts(place.get("command"))
    facts = {
        "experiment": config.get("name"),
        "started": info.get("started"),
        "typed": shlex.join(command) if command else None,
        "data": data.get("source"),
        "images": f"{show(data.get('num_train'))} to train, {show(data.get('num_val'))} to validate" if data else None,
        "image shape": " x ".join(texts(data.get("image_shape"))) or None,
        "classes": f"{len(names)}: {listed(names[:20])}{', ...' if len(names) > 20 else ''}" if names else None,
        "images, by hash": listed([f"{key[:-5]} {str(data[key])[:16]}" for key in data if key.endswith("_hash")]) or None,
        "network": f"{_kind(config, 'model')}, {show(network.get('num_parameters'))} parameters" if network else _kind(config, "model"),
        "training": _training(config),
        "seeds": listed([f"{key} {value}" for key, value in seeds.items() if value is not None]) or None,
        "device": _device(run),
        "processor": place.get("cpu"),
        "versions": listed([f"Python {place.get('python')}", *(f"{name} {v}" for name, v in part(place, "packages").items())])
        if place
        else None,
        "system": place.get("platform"),
        "commit": f"{git.get('commit')}{' with changes that are not committed' if git.get('changed') else ''}" if git else None,
        "resumed": f"{len(info['resumes'])} times" if rows_of(info.get("resumes")) else None,
        "folder": str(run.path),
    }
    text = _text_of(run.path / "config.yaml")
    code = (
        {"To repeat it, save the settings below as config.yaml, and": "firstlight train config.yaml", "config.yaml": text} if text else {}
    )
    return Section(title="What was run", facts={key: value for key, value in facts.items() if value}, code=code)


def _kind(config: Tree, section: str) -> str:
    return one_line(part(config, section).get("name", "not known"))


def _training(config: Tree) -> str | None:
    optim, schedule, train = (part(config, key) for key in ("optim", "schedule", "train"))
    if not train:
        return None
    words = [f"{optim.get('name')}, lr {_short(optim.get('lr'))}", f"schedule {schedule.get('name')}"]
    return listed([*words, f"batch {train.get('batch_size')}", f"{train.get('epochs')} epochs"])


def _short(value: Any) -> str:
    return f"{value:.4g}" if number(value) is not None else one_line(value)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _pictures(run: Run) -> Section | list[Section]:
    """Return the pictures in the run's folder that no other section shows."""
    shown = {"curves", "steps"}
    for path in run.path.glob("evaluation-*.json"):
        found = read_json(path)
        shown |= set() if isinstance(found, str) else {Path(name).stem for name in texts(found.get("files"))}
    sections = []
    for path in sorted(path for path in run.path.glob("*.png") if path.stem not in shown):
        pictures, remarks = read_pictures([path], path.name)
        sections.append((pictures, remarks))
    if not sections:
        return []
    return Section(
        title="Pictures", pictures=[p for found, _ in sections for p in found], remarks=[r for _, found in sections for r in found]
    )


def _not_yet(run: Run) -> Section | list[Section]:
    """Return the commands that would add to this chapter."""
    if run.damage or run.state == "running":
        return []
    there = {path.stem.partition("-")[0] for folder in ("inspection", "profile") for path in run.path.glob(f"{folder}/*.json")}
    there |= {"evaluate"} if list(run.path.glob("evaluation-*.json")) else set()
    left = [words for words in LOOKS if words.split()[-1] not in there]
    lines = "\n".join(f"firstlight {words} {shlex.quote(str(run.path))}" for words in left)
    return Section(title="Not looked at yet", code={"Each of these adds to the next report": lines}, on_screen=True) if left else []


def hints_of(run: Run) -> Mapping[str, str]:
    """Return figures to begin an answer from, by question."""
    best, last = best_epoch(run), (run.epochs or [{}])[-1]
    curves = f"Best epoch {best['epoch']}: {_gap(best)}. Last epoch, {last['epoch']}: {_gap(last)}." if "val_accuracy" in best else ""
    typed = texts(part(run.info, "environment").get("command"))
    return {
        "changed": f"Typed was: {shlex.join(typed)}" if typed else "",
        "hyperparameters": _training(run.config) or "",
        "curves": curves,
        "mistakes": says_of(run.path, "mistakes"),
        "sure": says_of(run.path, "confusion", "uncertainty"),
        "chance": f"Validation accuracy {four(val_accuracy(run))}, {spread_of(run)}." if spread_of(run) else "",
        "speed": says_of(run.path, "throughput", "memory") or f"It took {duration(run.info.get('seconds'))} on {_device(run)}.",
    }


def _gap(row: Tree) -> str:
    return f"training accuracy {four(row.get('train_accuracy'))}, validation {four(row.get('val_accuracy'))}"
