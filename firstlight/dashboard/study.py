"""What the page of a study shows, as plain data: which setting is best and how sure one can be, then the points and trials behind that.

Everything is made anew from trials.jsonl whenever that has grown; nothing is written, so a study is watched without touching it.
Reading order: study_data, verdict.
"""

import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firstlight.dashboard.index import id_of
from firstlight.errors import FirstlightError, StorageError
from firstlight.files import finite, is_locked, sha256
from firstlight.studies.answer import Answer, answer
from firstlight.studies.pictures import as_numbers, axis_of, in_order, mattered, read_epochs
from firstlight.studies.points import PointResult
from firstlight.studies.report import num_classes_of, study_of
from firstlight.studies.settings import show_point, show_value
from firstlight.studies.statistics import CONFIDENCE
from firstlight.studies.store import LOG, Row, Store, info_of
from firstlight.tracking.values import number, one_line, part

MAX_POINTS = 1000
"""Points that a page shows, the best ones."""
MAX_BYTES = 100_000_000
"""Size of a log of trials that a page reads."""
REST = 10.0
"""Times the length of a reading that passes until the next one, while a study grows: of 2,000 trials one takes 3.8 s."""
MAX_KEPT = 64
"""Studies that are remembered."""
MAX_RUNNING = 64
"""Trials under way that a page names."""
NAMED = 4
"""Settings that a sentence names."""

SURE = {
    "nothing": "no result yet",
    "alone": "one setting only",
    "unknown": "cannot say: one seed each",
    "open": "not settled",
    "clear": "clearly best",
}
"""What `sure` of a verdict means, in a few words."""

Data = dict[str, Any]


def study_data(path: Path) -> Data:
    """Return what a page says of the study in a folder; of one that cannot be read, `damage` alone.

    stamp: a text that changes when there is something new; state: `running`, `finished`, `stopped` or `damaged`; a trial has the `id` that
    its run has in addresses.
    """
    running = is_locked(path / "study.lock")
    try:
        known = _kept(path)
    except FirstlightError as error:
        return _damaged(path, str(error))
    except Exception as error:  # rows that anyone may have written break in any way
        return _damaged(path, f"its rows cannot be read ({type(error).__name__}: {one_line(error)})")
    told = {key: value for key, value in known.data.items() if key not in ("trial_names", "is_whole")}
    state = "running" if running else "finished" if known.data["is_whole"] else "stopped"
    trials = _running(path, known.data["trial_names"]) if running else []
    stamp = sha256(repr((known.stamps, state, trials)).encode())[:16]
    return {"stamp": stamp, **told, "state": state, "running": trials, "verdict": {**told["verdict"], "so_far": state != "finished"}}


def _damaged(path: Path, why: str) -> Data:
    return {"stamp": sha256(why.encode())[:16], "name": path.name, "state": "damaged", "damage": why}


@dataclass(frozen=True)
class _Kept:
    """What was made of a study. stamps: of its files at that time; until: the time before which it is not made again."""

    stamps: tuple[tuple[int, int], ...]
    data: Data
    until: float


_KEPT: OrderedDict[Path, _Kept] = OrderedDict()
_MAKING = threading.Lock()


def _kept(path: Path) -> _Kept:
    """Return what the rows of a study say, made anew where its files changed; while a study grows not more often than REST allows."""
    stamps = (_stamp(path / LOG), _stamp(path / "study.json"))
    with _MAKING:
        known = _KEPT.get(path)
        if known is None or (known.stamps != stamps and (time.monotonic() > known.until or known.stamps[1] != stamps[1])):
            began = time.monotonic()
            data = _told(path, stamps[0])
            ended = time.monotonic()
            known = _Kept(stamps, data, ended + REST * (ended - began))
        _KEPT[path] = known
        _KEPT.move_to_end(path)
        while len(_KEPT) > MAX_KEPT:
            _KEPT.popitem(last=False)
        return known


def _told(path: Path, log_stamp: tuple[int, int]) -> Data:
    """Return what does not change until a trial ends."""
    if log_stamp[0] > MAX_BYTES:
        raise StorageError(f"{path / LOG} has {log_stamp[0]:,} bytes; `firstlight study {path}` reads it all the same")
    store = Store(path)
    study, rows = study_of(store), store.rows()
    found = answer(study, rows, num_classes_of(store, rows), interval=study.interval)
    importance, planned, names = mattered(found), _planned(store), {row["trial"] for row in rows}
    return {
        "name": path.name,
        "base": study.base,
        "objective": study.objective,
        "direction": study.direction,
        "sampler": study.sampler,
        "seeds": study.seeds,
        "progress": {"done": len(rows), "planned": planned, "states": dict(Counter(row["state"] for row in rows))},
        "seconds": sum(row["seconds"] for row in rows),
        "verdict": verdict(found),
        "findings": found.sentences(),
        "warnings": list(found.warnings),
        "parameters": [_parameter(found, key) for key in study.space.parameters],
        "points": [_point(path.name, found, place) for place in range(min(len(found.points), MAX_POINTS))],
        "num_points": len(found.points),
        "importance": None if importance is None else finite(asdict(importance)),
        "trial_names": names,
        "is_whole": len(rows) >= planned if planned is not None else not store.heads_without({row["trial"]: row for row in rows}),
    }


def verdict(found: Answer) -> Data:
    """Return which setting is best and how sure one can be.

    sure: `nothing` where no trial finished, `alone` for a single setting, `unknown` where one seed each says nothing about noise, `open`
    where some others are not told apart from the best, `clear` where all others are worse beyond seed noise (Holm-corrected paired tests).
    """
    best = found.best
    if best is None or best.objective is None:
        return {"sure": "nothing", "word": SURE["nothing"], "says": "No trial has finished with a figure yet.", "advice": ""}
    figures = {"setting": show_point(best.point), "point": _shown(best.point), "trials": _names(best)}
    figures |= {key: value for key, value in vars(best.objective).items() if key in ("mean", "std", "low", "high", "n")}
    others = [(point, versus) for point, versus in zip(found.points, found.comparisons, strict=True) if point is not best]
    judged = [(point, versus) for point, versus in others if versus is not None and versus.comparison.difference.n > 1]
    finished = [point for point, _ in others if point.objective is not None]
    tied = [point for point, versus in judged if versus is not None and not versus.p < 1 - CONFIDENCE]
    unjudged = [point for point in finished if all(point is not one for one, _ in judged)]
    lost = sum(any(row["state"] == "diverged" for row in point.rows) for point in unjudged)
    seeds = f"{best.objective.n} seed{'s' * (best.objective.n != 1)}"
    if not finished:
        said = ("alone", "It is the only setting with a figure, so there is nothing to compare it with.", "")
    elif not judged:
        advice = f"Ask for more seeds, such as seeds={max(3, found.study.seeds)}; trials that are done are kept."
        said = ("unknown", "One seed a setting says nothing about noise: the order may be chance.", advice)
    elif len(unjudged) > lost:
        what = f"{len(unjudged) - lost} of {len(finished)} other settings share fewer than two seeds with it"
        said = ("open", f"Not settled: {what}, so they cannot be compared with it yet.", "")
    elif tied:
        more = f"; and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
        named = "; ".join(show_point(point.point) for point in tied[:NAMED]) + more
        advice = f"More than {seeds} would tell them apart, if there is a difference at all; trials that are done are kept."
        said = (
            "open",
            f"Not settled: {len(tied)} of {len(judged)} other settings cannot be told apart from it with {seeds}: {named}.",
            advice,
        )
    else:
        all_others = "The other setting is" if len(judged) == 1 else f"All {len(judged)} other settings are"
        said = ("clear", f"{all_others} worse beyond seed noise, tested seed by seed ({seeds}, corrected for all comparisons).", "")
    if lost and judged and len(unjudged) == lost:
        more = f"{lost} more setting{'s' * (lost > 1)} diverged with so many seeds that no comparison is left."
        said = (said[0], f"{said[1]} {more}", said[2])
    counts = {"num_tied": len(tied), "num_others": len(finished)}
    told: Data = finite({**figures, "sure": said[0], "word": SURE[said[0]], "says": said[1], "advice": said[2], **counts})
    return told


def _parameter(found: Answer, key: str) -> Data:
    """Return a parameter with its values in the order of an axis, as texts and, where all are numbers, as numbers."""
    axis = axis_of(found, key)
    tried = [point.point[key] for point in found.points if key in point.point]
    ordered = in_order(tried, found.study.space.parameters[key])
    shown = as_numbers(ordered)
    return {
        "key": key,
        "log": axis.log,
        "numeric": axis.is_numeric,
        "values": [
            {"text": show_value(value), "number": at if axis.is_numeric else None} for value, at in zip(ordered, shown, strict=True)
        ],
    }


def _point(name: str, found: Answer, place: int) -> Data:
    """Return a point: the text of its value of each parameter, its mean with its interval, how it compares with the best, its trials."""
    point, versus = found.points[place], found.comparisons[place]
    figures = dict.fromkeys(("mean", "std", "low", "high")) if point.objective is None else vars(point.objective)
    return finite(  # type: ignore[no-any-return]
        {
            "setting": show_point(point.point),
            "values": _shown(point.point),
            **{key: figures[key] for key in ("mean", "std", "low", "high")},
            "n": len(point.values()),
            "p": None if versus is None else versus.p,
            "difference": None if versus is None else versus.comparison.difference.mean,
            "verdict": _beside_best(found, place),
            "trials": [_trial(name, row) for row in point.rows],
        }
    )


def _beside_best(found: Answer, place: int) -> str:
    """Return `best`, `worse` (beyond seed noise), `open` (not told apart), `unknown` (too few seeds), or `none` without a figure."""
    versus = found.comparisons[place]
    if found.points[place].objective is None:
        return "none"
    if found.points[place] is found.best:
        return "best"
    if versus is None or versus.comparison.difference.n < 2:
        return "unknown"
    return "worse" if versus.p < 1 - CONFIDENCE else "open"


def _trial(name: str, row: Row) -> Data:
    figures = part(row, "figures")
    return {
        "id": id_of(f"{name}/{row['trial']}"),
        "trial": row["trial"],
        "seed": row["seed"],
        "state": row["state"],
        "objective": row["objective"],
        "val_accuracy": number(figures.get("val_accuracy")),
        "val_loss": number(figures.get("val_loss")),
        "seconds": row["seconds"],
        **({"why": one_line(row["why"])} if row.get("why") else {}),
    }


def _shown(point: Mapping[str, Any]) -> dict[str, str]:
    return {key: show_value(value) for key, value in point.items()}


def _names(point: PointResult) -> list[str]:
    return [row["trial"] for row in point.rows]


def _planned(store: Store) -> int | None:
    """Return how many trials a study will have: points times seeds; None where that is not known before they are drawn."""
    known = store.definition()
    study, budget = study_of(store), part(known, "budget")
    num: int | None = budget.get("trials")
    if study.sampler == "grid" and not study.space.conditions:
        whole = study.space.grid_size()
        num = whole if num is None else min(num, whole)
    elif study.sampler == "grid":
        num = sum(1 for _ in study.points()) if num is None else None
    elif study.sampler == "halving":
        return None
    return None if num is None else num * study.seeds


def _running(path: Path, ended: set[str]) -> list[Data]:
    """Return the trials that are under way, with how far each is."""
    found = []
    num_epochs = part(part(Store(path).definition(), "config"), "train").get("epochs")
    for folder in _young_folders(path):
        if folder.name in ended or not is_locked(folder / "run.lock"):
            continue
        told = part(info_of(folder), "trial")
        epochs = read_epochs(Store(path), {"trial": folder.name})
        last = epochs[-1] if epochs else {}
        found.append(
            {
                "id": id_of(f"{path.name}/{folder.name}"),
                "trial": folder.name,
                "setting": show_point(part(told, "point")),
                "seed": told.get("seed"),
                "epoch": number(last.get("epoch")),
                "epochs": part(told, "point").get("train.epochs", num_epochs),
                "val_accuracy": number(last.get("val_accuracy")),
            }
        )
    return found


def _young_folders(path: Path) -> list[Path]:
    """Return the run folders that changed last; those of trials under way are among them."""
    try:
        with os.scandir(path) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name) for entry in entries if "-s" in entry.name and entry.is_dir()
            ]
    except OSError:
        return []
    return [path / name for _, name in sorted(found, reverse=True)[:MAX_RUNNING]]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_size, found.st_mtime_ns)
