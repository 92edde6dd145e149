"""The chapter that puts several runs side by side: their figures, their curves on the same axes, the settings in which they differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from firstlight.inspection.compare import compare_images, differences, names_of
from firstlight.reports.page import Chapter, Section, Table
from firstlight.reports.pictures import drawn
from firstlight.reports.run import best_epoch, safely, spread_of, val_accuracy
from firstlight.reports.values import duration, low_and_high
from firstlight.tracking.run import Run
from firstlight.tracking.values import number, one_line, part, rows_of, texts


def chapter_of_several(runs: Sequence[Run], *, num_shown: int | None = None) -> Chapter:
    """Return what several runs say together, best first; those that are damaged are named and left out.

    num_shown: how many of them have a chapter of their own behind this one, if not all.
    """
    whole = [run for run in runs if not run.damage]
    ordered = sorted(whole, key=lambda run: -(val_accuracy(run) or 0.0))
    parts: dict[str, Callable[[], Section | Sequence[Section]]] = {
        "Figures": lambda: _figures(ordered, [run for run in runs if run.damage], num_shown),
        "Curves": lambda: _curves(ordered),
        "Image by image": lambda: _paired(ordered),
        "Settings that differ": lambda: _settings(ordered),
    }
    sections = [section for title, make in parts.items() for section in safely(title, make)]
    return Chapter(title=f"{len(runs)} runs", kind="Comparison of", sections=sections, hints=_hints(ordered))


def _figures(ordered: Sequence[Run], damaged: Sequence[Run], num_shown: int | None) -> Section:
    rows = []
    for name, run in zip(names_of(ordered), ordered, strict=True):
        best, openings = best_epoch(run), rows_of(run.info.get("test_openings"))
        tested = [accuracy for row in openings if (accuracy := number(row.get("accuracy"))) is not None]
        num_val = part(run.info, "data").get("num_val")
        ends = low_and_high(val_accuracy(run), num_val)
        rows.append(
            {
                "run": name,
                "val_accuracy": val_accuracy(run),
                "95 % interval": f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else None,
                "images": num_val,
                "val_loss": best.get("val_loss"),
                "best_epoch": best.get("epoch"),
                "test_accuracy": tested[-1] if tested else None,
                "parameters": part(run.info, "network").get("num_parameters"),
                "time": duration(run.info.get("seconds")),
                "state": run.state,
            }
        )
    warnings = [f"{run.path} is damaged and left out here ({one_line(run.damage)})" for run in damaged]
    warnings += [f"{run.name} did not finish, its state is {run.state}" for run in ordered if run.state != "finished"]
    num = len(ordered) + len(damaged)
    few = (
        [f"{num_shown} of {num} runs have a chapter below, the best ones; a report of its own shows any other."]
        if num_shown not in (None, num)
        else []
    )
    says = [_which_images(ordered)] if len(ordered) > 1 else []
    return Section(title="Figures", says=says, warnings=warnings, tables=[Table(rows=rows)], remarks=few)


def _which_images(runs: Sequence[Run]) -> str:
    """Say whether the runs were validated on the same images, as the hashes in their records tell."""
    seen = {(part(run.info, "data").get("val_hash"), part(run.info, "data").get("content_hash")) for run in runs}
    if len(seen) == 1 and seen != {(None, None)}:
        return "All were validated on the same images."
    return "They were not all validated on the same images: small differences between their accuracies say nothing."


def _curves(ordered: Sequence[Run]) -> Section | list[Section]:
    from firstlight.plotting.curves import plot_curves

    begun = [run for run in ordered if run.epochs]
    if not begun:
        return []
    said = "Loss and accuracy by epoch: training dashed, validation solid, a star at the best epoch."
    return Section(
        title="Curves", pictures=[drawn(plot_curves(dict(zip(names_of(begun), (run.epochs for run in begun), strict=True))), said)]
    )


def _paired(ordered: Sequence[Run]) -> Section | list[Section]:
    """Compare the best run with each other one over the images that both were asked about (McNemar 1947, exact)."""
    found = compare_images(dict(zip(names_of(ordered), ordered, strict=True)))
    if not found:
        return []
    best = found[0]["against"]
    rows = [
        {
            "run": row["run"],
            "both right": row["both_right"],
            f"only {best} right": row["only_best"],
            "only this one right": row["only_this"],
            "both wrong": row["both_wrong"],
            "p": row["p"],
        }
        for row in found
    ]
    says = f"Each run against {best} on the validation images, one by one; p: of the exact McNemar test, not corrected for several runs."
    return Section(title="Image by image", says=[says], tables=[Table(rows=rows)])


def _settings(ordered: Sequence[Run]) -> Section | list[Section]:
    if len(ordered) < 2:
        return []
    found = differences([run.config for run in ordered])
    if not found:
        return Section(title="Settings that differ", says=["No setting differs."])
    names = names_of(ordered)
    if len(found) <= len(ordered):
        rows: list[dict[str, Any]] = [
            {"run": name, **{key: values[index] for key, values in found.items()}} for index, name in enumerate(names)
        ]
    else:
        rows = [{"setting": key, **dict(zip(names, values, strict=True))} for key, values in found.items()]
    return Section(title="Settings that differ", tables=[Table(rows=rows)])


def _hints(ordered: Sequence[Run]) -> Mapping[str, str]:
    found = differences([run.config for run in ordered]) if len(ordered) > 1 else {}
    best = f"{ordered[0].name}: validation accuracy {val_accuracy(ordered[0])}, {spread_of(ordered[0])}" if ordered else ""
    return {"changed": f"The settings that differ: {', '.join(texts(list(found)))}." if found else "", "chance": best}
