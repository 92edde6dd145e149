"""Which classes a network takes for which, and how far its probabilities can be trusted."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.engine.restore import data_record
from firstlight.files import write_pictures, write_stream
from firstlight.inspection.answers import Answers, answers_of
from firstlight.inspection.cells import write_cells
from firstlight.inspection.mistakes import confused_pairs, describe_pair
from firstlight.inspection.opened import Opened, opened
from firstlight.inspection.predictions import print_found
from firstlight.metrics import calibration as c
from firstlight.metrics.evaluation import Evaluation
from firstlight.plotting.calibration import Bars, plot_reliability, plot_risk_coverage
from firstlight.plotting.confusion import plot_class_scores, plot_confusion
from firstlight.tracking.csv_table import csv_chunks, write_csv
from firstlight.tracking.table import print_table

SEED = 0
"""Of the halves that a split is parted into, one to fit the temperature on and one to measure."""
RISKS = (0.01, 0.001)
"""Error rates for which the share of images is given that can be answered."""
SHOWN_PAIRS = 10
NUM_POINTS = 200
"""Points of the risk-coverage curve in the JSON."""

Row = dict[str, Any]


def inspect_confusion(run: str | Path, *, split: str = "val", **places: Any) -> Row:
    """Draw the confusion matrix, the scores of each class, the reliability of the probabilities, and risk against coverage.

    The temperature (Guo et al. 2017) is fitted on the validation images where the split is another, else on one seeded half of them, and
    its effect is measured on the split, or on the other half.
    """
    with opened(run, "confusion", split=split, **places) as o:
        answers = answers_of(o)
        result, pairs = answers.evaluation(), confused_pairs(answers)
        remarks = _remarks(result, o.dataset.class_names)
        reliable, parts = _reliability(o, answers)
        coverage, risk = c.risk_coverage(answers.figures["probability"], answers.correct)
        selective = _selective(coverage, risk)
        says = _says(o, result, pairs, reliable)
        files = _draw(o, result, says, parts, reliable)
        aurc = selective["aurc"]
        files += _picture(o, "coverage", plot_risk_coverage(coverage, risk, aurc=aurc, title=f"{o.run.name}, {split}: {selective['says']}"))
        figures = result.to_json(o.dataset.class_names)
        files += _tables(o.stem, figures)
        figures |= {"says": says, "class_names": list(o.dataset.class_names), "pairs": pairs, "remarks": remarks}
        figures["confusion"] = result.matrix.tolist()
        figures["cells"] = write_cells(o, answers)
        return o.keep(figures | {"calibration": reliable, "selective": selective}, files)


def _remarks(result: Evaluation, class_names: tuple[str, ...]) -> list[str]:
    """Return a line for the classes that nothing was taken for, and for those without images; their scores count as 0."""
    empty = [name for name, num in zip(class_names, result.support, strict=True) if num == 0]
    unsaid = [name for name, num in zip(class_names, result.matrix.sum(axis=0), strict=True) if num == 0 and name not in empty]
    lines = [f"no images of class {', '.join(empty)}: recall counts as 0"] if empty else []
    return lines + ([f"nothing was taken for class {', '.join(unsaid)}: precision counts as 0"] if unsaid else [])


def _reliability(o: Opened, answers: Answers) -> tuple[Row, list[Bars]]:
    """Return the calibration figures of all images of the split, those before and after temperature scaling, and what to draw of them."""
    confidence, correct = answers.figures["probability"], answers.correct
    whole, adaptive = c.reliability(confidence, correct), c.adaptive_reliability(confidence, correct)
    figures = _scores(answers, np.arange(len(answers)), 1.0) | {
        "mce": whole.mce,
        "adaptive_ece": adaptive.ece,
        "overconfidence": whole.bias,
        "bins": whole.rows(),
        "temperature": None,
    }
    bars = [_bars("as trained", whole)]
    fitted_on = _fitting_part(o, answers)
    if fitted_on is None:
        return figures | {"temperature_says": "no validation images to fit one on"}, bars
    logits, labels, measured, where = fitted_on
    if (logits.argmax(axis=1) == labels).all():
        return figures | {"temperature_says": f"all {len(labels):,} images to fit one on are right, so none is too low"}, bars
    temperature = c.fit_temperature(logits, labels)
    before, after = (_scores(answers, measured, value) for value in (1.0, temperature))
    figures |= {"temperature": temperature, "temperature_says": where, "before": before, "after": after}
    scaled = c.reliability(c.confidences(answers.logits[measured], temperature), correct[measured])
    if len(measured) < len(answers):
        bars = [_bars("as trained (other half)", c.reliability(confidence[measured], correct[measured]))]
    return figures, [*bars, _bars(f"at temperature {temperature:.3g}", scaled)]


def _fitting_part(o: Opened, answers: Answers) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], str] | None:
    """Return logits and labels to fit on, the places of the images to measure, and a sentence; None where there is nothing to fit on."""
    if o.split != "val":
        if data_record(o.run).get("num_val") == 0:
            return None
        val = answers_of(o, dataset=o.validation_images())
        everything = np.arange(len(answers))
        return (
            val.logits,
            val.labels,
            everything,
            f"fitted on the {len(val):,} val images, measured on the {len(answers):,} {o.split} images",
        )
    if len(answers) < 2:
        return None
    order = np.random.default_rng(SEED).permutation(len(answers))
    half, other = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    says = f"fitted on {len(half):,} val images drawn by seed {SEED}, measured on the other {len(other):,}"
    return answers.logits[half], answers.labels[half], other, says


def _scores(answers: Answers, places: NDArray[np.int64], temperature: float) -> Row:
    """Return calibration error, negative log likelihood and Brier score of some images at a temperature."""
    logits, labels = answers.logits[places], answers.labels[places]
    bins = c.reliability(c.confidences(logits, temperature), answers.correct[places])
    return {
        "ece": bins.ece,
        "nll": c.negative_log_likelihood(logits, labels, temperature),
        "brier": c.brier_score(logits, labels, temperature),
    }


def _bars(name: str, bins: c.Reliability) -> Bars:
    return Bars(name, bins.lows, bins.highs, bins.counts, bins.confidence, bins.accuracy, bins.ece)


def _selective(coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> Row:
    """Return the area under the risk-coverage curve, the least one for this error rate, and how much can be answered at RISKS."""
    answered = {f"{limit:g}": float(coverage[risk <= limit].max(initial=0.0)) for limit in RISKS}
    limit = RISKS[0]
    if risk[-1] <= limit:
        says = f"all images answered, {f'{risk[-1]:.2%}' if risk[-1] else 'none'} of them wrong"
    else:
        says = f"with at most {limit:.0%} errors, {answered[f'{limit:g}']:.1%} of the images can be answered"
    chosen = np.unique(np.linspace(0, len(risk) - 1, min(NUM_POINTS, len(risk))).round().astype(int))
    points = [{"coverage": float(coverage[place]), "risk": float(risk[place])} for place in chosen]
    least = c.least_area(float(risk[-1]), len(risk))
    area = c.area_under_risk_coverage(risk)
    return {"says": says, "aurc": area, "least_aurc": least, "coverage_at_risk": answered, "curve": points}


def _says(o: Opened, result: Evaluation, pairs: list[Row], reliable: Row) -> str:
    says = f"{o.run.name}: {result.accuracy:.2%} of {result.num_images:,} {o.split} images right"
    if pairs:
        says += f", most often {describe_pair(pairs[0])}"
    return f"{says}; calibration error {reliable['ece']:.2%}{_lean(reliable)}"


def _lean(reliable: Row) -> str:
    """Return whether the network is too sure or not sure enough, where that makes up most of the error."""
    bias = reliable["overconfidence"]
    if reliable["ece"] < 0.005 or abs(bias) < reliable["ece"] / 2:
        return ""
    return " (too sure)" if bias > 0 else " (not sure enough)"


def _temperature_title(o: Opened, reliable: Row) -> str:
    if reliable["temperature"] is None:
        return f"{o.run.name}, {o.split}: calibration error {reliable['ece']:.2%}{_lean(reliable)}"
    before, after = reliable["before"]["ece"], reliable["after"]["ece"]
    effect = f"{before:.2%} before and {after:.2%} after dividing the logits by {reliable['temperature']:.3g}"
    return f"{o.run.name}, {o.split}: calibration error {effect} ({reliable['temperature_says']})"


def _draw(o: Opened, result: Evaluation, says: str, parts: list[Bars], reliable: Row) -> list[Path]:
    names = o.dataset.class_names
    rows = result.to_json(names)["classes"]
    lowest = min(rows, key=lambda row: row["f1"])
    scores = f"{o.run.name}, {o.split}: lowest F1 {lowest['f1']:.3f} for class {lowest['class']}, mean {result.macro_f1:.3f}"
    matrix = says.partition("; calibration")[0]
    files = write_pictures(o.stem, plot_confusion(result.matrix, names, title=matrix))
    files += _picture(o, "classes", plot_class_scores(rows, title=scores))
    return files + _picture(o, "reliability", plot_reliability(parts, title=_temperature_title(o, reliable)))


def _picture(o: Opened, name: str, figure: Any) -> list[Path]:
    return write_pictures(o.stem.with_name(f"{o.stem.name}-{name}"), figure)


def _tables(stem: Path, figures: Row) -> list[Path]:
    """Write the scores of each class, and the matrix with a row a true class, as CSV."""
    names = [row["class"] for row in figures["classes"]]
    scores = write_csv(stem.with_name(f"{stem.name}-classes.csv"), figures["classes"])
    matrix = stem.with_name(f"{stem.name}-matrix.csv")
    rows = ([name, *counts] for name, counts in zip(names, figures["confusion"], strict=True))
    write_stream(matrix, csv_chunks([["true class", *names], *rows]))
    return [scores, matrix]


def print_confusion(result: Row) -> None:
    """Print the scores of each class, the most frequent confusions, the calibration figures, and the files."""
    print_table(result["classes"], ("class", "images", "precision", "recall", "f1"))
    for remark in result["remarks"]:
        print(remark)
    if result["pairs"]:
        print("\nmost often confused")
        print_table(result["pairs"][:SHOWN_PAIRS], ("label", "predicted", "images", "share"))
    reliable, selective = result["calibration"], result["selective"]
    print(f"\ncalibration error {reliable['ece']:.4f} in {c.NUM_BINS} equal bins, {reliable['adaptive_ece']:.4f} in bins of as many images")
    print(f"largest gap {reliable['mce']:.4f}, Brier score {reliable['brier']:.4f}, loss {reliable['nll']:.4f}")
    if reliable["temperature"] is not None:
        print(f"temperature {reliable['temperature']:.4g} ({reliable['temperature_says']}):", end=" ")
        print(f"calibration error {reliable['before']['ece']:.4f} -> {reliable['after']['ece']:.4f}", end=", ")
        print(f"loss {reliable['before']['nll']:.4f} -> {reliable['after']['nll']:.4f}")
    else:
        print(f"temperature: {reliable['temperature_says']}")
    print(f"{selective['says']}; area under risk-coverage {selective['aurc']:.5f} (at best {selective['least_aurc']:.5f})\n")
    print_found(result)
