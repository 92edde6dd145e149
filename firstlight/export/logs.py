"""The command: a run that is over, or every trial of a study, handed to a tracker."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from firstlight.engine.places import runs_dir_of
from firstlight.errors import ConfigError, DataError, FirstlightError, StorageError
from firstlight.files import Lock, make_dir
from firstlight.tracking import weights_and_biases
from firstlight.tracking.follow import describe_study, ended_trials, hand_over
from firstlight.tracking.run import Run, find_run, load_run
from firstlight.tracking.told import scalars
from firstlight.tracking.trackers import TITLES


def export(
    target: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    project: str | None = None,
    entity: str | None = None,
    mode: str = "auto",
    runs_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Hand a run or a study to `tensorboard` or `wandb`; return what was handed over, and where its files are.

    out: the files of a run lie in a folder of its name below this one, those of a study's runs in a folder of the study's; default: in
    the folders of the runs. Raises RunNotFoundError, RunBusyError for a run that is being trained, StorageError, ConfigError.
    """
    began = time.monotonic()
    settings: dict[str, Any] = {}
    if to == "wandb":
        weights_and_biases.check_installed()
        mode = weights_and_biases.settle_mode(mode)
        if mode == "off":
            raise ConfigError("WANDB_MODE is disabled, so nothing would be handed over; unset it, or add --mode offline")
        settings["mode"] = mode
    study = _find_study(target, runs_dir_of(runs_dir))
    root = study or find_run(target, runs_dir_of(runs_dir)).path
    runs, remarks = _runs_of_study(study) if study else ([load_run(root)], [])
    base = root if out is None else Path(out) / root.resolve().name
    files = [_export_one(run, to, base / run.name if study else base, settings, project, entity, locks=out is None) for run in runs]
    if study and to == "tensorboard" and (listed := describe_study(study, base)):
        files.append(listed)
    told = {key: number for run in runs for row in run.rows for key, number in scalars(row).items()}
    found: dict[str, Any] = {"target": str(root), "to": to, "num_runs": len(runs), "num_rows": sum(len(run.rows) for run in runs)}
    found |= {"scalars": sorted(told), "remarks": remarks, **settings, "folder": str(base)}
    return {**found, "seconds": round(time.monotonic() - began, 3), "files": [str(path) for path in files]}


def print_export(result: dict[str, Any]) -> None:
    """Print what was handed over, and the command that shows it."""
    for remark in result["remarks"]:
        print(f"left out: {remark}")
    runs = "1 run" if result["num_runs"] == 1 else f"{result['num_runs']:,} runs"
    what = f"{runs}, {result['num_rows']:,} rows, {len(result['scalars'])} curves each"
    print(f"{what} handed to {TITLES[result['to']]} ({result['seconds']:.1f} s)")
    if result["to"] == "tensorboard":
        print(f"look at them: tensorboard --logdir {result['folder']}")
    elif result["mode"] == "offline":
        print("nothing was sent; `wandb sync FOLDER` sends these:")
        for path in result["files"]:
            print(f"  {path}")


def _export_one(run: Run, to: str, folder: Path, settings: dict[str, Any], project: str | None, entity: str | None, *, locks: bool) -> Path:
    if to == "wandb":
        of_run = run.config.get("tracking", {})
        settings = {**settings, "project": project or of_run.get("project", "firstlight"), "entity": entity or of_run.get("entity")}
    with ExitStack() as stack:
        if locks:
            stack.enter_context(Lock(run.path / "run.lock", f"run {run.path}"))
        try:
            return hand_over(to, run, make_dir(folder), settings).path
        except FirstlightError:
            raise
        except Exception as error:  # whatever a tracker's library raises
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise StorageError(f"{TITLES[to]} did not take run {run.path} ({said}); mend that and give the same command again") from error


def _find_study(target: str | Path, runs_dir: Path) -> Path | None:
    """Return the folder of a study: the path, or else the one of that name in the folder of runs; None where there is none."""
    return next((path for path in (Path(target), runs_dir / target) if (path / "study.json").is_file()), None)


def _runs_of_study(study: Path) -> tuple[list[Run], list[str]]:
    """Return the runs of the trials that ended, and a line about each that cannot be handed over. Raises DataError where there is none."""
    runs, remarks = [], []
    for trial in ended_trials(study):
        run = Run(study / trial)
        if not (run.path / "run.json").is_file():
            remarks.append(f"{trial} has no run folder")
        elif run.damage:
            remarks.append(f"{trial} is damaged ({run.damage})")
        else:
            runs.append(run)
    if not runs:
        raise DataError(f"study {study} has no trial that ended and can be read; carry it out with `firstlight sweep`")
    return runs, remarks
