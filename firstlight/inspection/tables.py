"""How results look on a terminal: one function a command."""

from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError, did_you_mean
from firstlight.inspection.compare import run_row
from firstlight.tracking.run import list_runs
from firstlight.tracking.table import print_table, show, sort_rows

RUN_COLUMNS = ("name", "val_accuracy", "test_accuracy", "epochs", "model", "data", "state", "seconds", "started", "num_parameters")
"""The most telling first: a narrow terminal shows only those."""
FREE = ("val_loss", "p", "p_corrected")
"""Columns of a study whose numbers may be of any size, as those of its parameters may."""
SHOWN_PREDICTIONS = 1000
SHOWN_BESIDE_FILE = 20
"""Images whose answers are printed; a file has them all."""
SHOWN_TRIALS = 20
"""Rows of a study's table on the terminal; the file has them all."""


def list_table(runs_dir: Path, sort: str) -> dict[str, Any]:
    """Return the rows of all runs of a folder, by falling `sort`. Raises ConfigError for a column that is none."""
    if sort not in RUN_COLUMNS:
        raise ConfigError(f"--sort {sort} is no column{did_you_mean(sort, RUN_COLUMNS)}")
    if not runs_dir.is_dir():
        raise ConfigError(f"no folder of runs at {runs_dir}; `firstlight train` makes one, --runs-dir names another")
    return {"runs_dir": str(runs_dir), "runs": sort_rows([run_row(run) for run in list_runs(runs_dir)], sort)}


def print_runs(result: dict[str, Any]) -> None:
    """Print the table of runs."""
    if not result["runs"]:
        print(f"no runs in {result['runs_dir']} yet; `firstlight train` makes one")
        return
    _print_rows(result["runs"])
    for row in result["runs"]:
        for note in row["notes"]:
            print(f"{row['name']}: {note}")


def print_study(result: dict[str, Any]) -> None:
    """Print the points of a study with their spread, its trials, what it found, and what to be wary of."""
    points, trials = result["points"], result["hparams"]
    if any(row["n"] > 1 for row in points):
        kept = [key for key in points[0] if not key.startswith(("difference", "says"))]
        _print_best(points, kept, "points", result, "points.csv")
        print()
    if trials:
        _print_best(trials, list(trials[0]), "trials", result, "hparams.csv")
    for line in result["findings"]:
        print(line)
    if (found := result["importance"]) is not None:
        shares = ", ".join(f"{name} {max(share, 0):.0%}" for name, share in zip(found["names"], found["shares"], strict=True))
        print(f"mattered: {shares} of the variance; {found['remark']}")
    for line in result["warnings"]:
        print(f"warning: {line}")
    for path in result["files"]:
        print(path)


def _print_best(rows: list[dict[str, Any]], columns: list[str], what: str, result: dict[str, Any], file: str) -> None:
    """Print the first rows of a study's table; numbers as short as they can be told apart."""
    shown = [{key: _brief(value) if key in FREE or "." in key else value for key, value in row.items()} for row in rows[:SHOWN_TRIALS]]
    print_table(shown, columns, decimals={"seconds": 2})
    if len(rows) > SHOWN_TRIALS:
        print(f"{len(rows) - SHOWN_TRIALS:,} more {what} in {Path(result['study']) / file}")


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else show(value)


def print_comparison(result: dict[str, Any]) -> None:
    """Print the figures of compared runs, the settings in which they differ, and where the picture is."""
    _print_rows(result["runs"])
    names = [row["name"] if _is_alone(row, result["runs"]) else row["run"] for row in result["runs"]]
    rows = [
        {"setting": key, **{name: _setting(value) for name, value in zip(names, values, strict=True)}}
        for key, values in result["differences"].items()
    ]
    if rows:
        print("\nsettings that differ")
        print_table(rows, ["setting", *names])
    else:
        print("\nno setting differs")
    print(f"\ncurves: {result['files'][0]}")


def print_notes(result: dict[str, Any]) -> None:
    """Print the notes of a run."""
    print(f"{result['run']} has {len(result['notes'])} note{'s' * (len(result['notes']) > 1)}:")
    for note in result["notes"]:
        print(f"  {note}")


def print_evaluation(result: dict[str, Any]) -> None:
    """Print the figures of an evaluation, and those of each class."""
    low, high = result["accuracy_interval"]
    accuracy = f"accuracy {result['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f})"
    top_k = f"top-{result['top_k']} {result['top_k_accuracy']:.4f}"
    images = f"{result['num_images']:,} images, {result['seconds']:.1f} s"
    print(f"{result['split']}: {accuracy}, loss {result['loss']:.4f}, {top_k}, {images}\n")
    print_table(result["classes"], ("class", "images", "precision", "recall", "f1"))
    print(f"\nfigures and confusion matrix: {result['files'][0]}")
    for file in result["files"][1:]:
        print(f"picture: {file}")


def print_predictions(result: dict[str, Any]) -> None:
    """Print one line an image: of many images those of the first, and of those that a file has, some."""
    in_file = any(not file.endswith(".png") for file in result["files"])
    shown = result["predictions"][: SHOWN_BESIDE_FILE if in_file else SHOWN_PREDICTIONS]
    print_table(shown, ("image", "label", "probability"))
    if (more := result["num_images"] - len(shown)) > 0:
        print(f"{more:,} more images" + ("" if in_file else "; --out FILE writes them all"))
    print()
    for file in result["files"]:
        print(f"{'picture' if file.endswith('.png') else 'probabilities of all classes'}: {file}")


def print_examination(result: dict[str, Any]) -> None:
    """Print what the doctor found."""
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    step = result["step"]
    print(f"python   {result['python']} on {result['platform']}")
    print(f"packages {packages}")
    print(f"device   {result['device']} ({result['device_name']}), {result['threads']} thread{'s' * (result['threads'] > 1)}")
    if result["note"]:
        print(f"         {result['note']}")
    print(f"step     {step['network']}, {step['batch_size']} images: {step['seconds'] * 1000:.1f} ms in {step['precision']}")
    print(f"data     in {result['data_dir']}")
    for name, found in result["data"].items():
        print(f"  {name:<16} {found}")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows of runs; the time without seconds and zone."""
    shown = [{**row, "started": (row["started"] or "-")[:16].replace("T", " ")} for row in rows]
    print_table(shown, RUN_COLUMNS, decimals={"seconds": 1}, may_drop=True)


def _is_alone(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    return [other["name"] for other in rows].count(row["name"]) == 1


def _setting(value: Any) -> str:
    """Return a setting as one would write it in YAML: 3e-05 stays what it is."""
    return f"{value:g}" if isinstance(value, float) else show(value)
