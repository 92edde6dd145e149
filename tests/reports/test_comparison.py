"""Runs beside each other, image by image."""

import csv
import shutil
from pathlib import Path

import pytest
from scipy.stats import binomtest

from firstlight.inspection.compare import mcnemar
from firstlight.reports.comparison import chapter_of_several
from firstlight.tracking.run import Run


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 5), (3, 12), (0, 7), (240, 190)])
def test_mcnemar_is_the_binomial_test(a: int, b: int) -> None:
    """F2: exact, two-sided; scipy's binomial test of one half is the oracle."""
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, abs=1e-6)


def leave_predictions(run: Path, labels: str, predicted: str) -> None:
    (run / "inspection").mkdir()
    with (run / "inspection" / "predictions-val.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["index", "label", "predicted"])
        table.writerows([index, *pair] for index, pair in enumerate(zip(labels, predicted, strict=True)))


def test_only_images_that_both_saw_are_paired(trained: Path, tmp_path: Path) -> None:
    """The best run against the others; one whose images differ is left out."""
    runs = [shutil.copytree(trained, tmp_path / name) for name in ("a", "b", "c")]
    leave_predictions(runs[0], "0011", "0011")
    leave_predictions(runs[1], "0011", "0100")
    leave_predictions(runs[2], "1100", "1100")
    sections = {section.title: section for section in chapter_of_several([Run(path) for path in runs]).sections}
    (row,) = sections["Image by image"].tables[0].rows
    assert row == {"run": "b", "both right": 1, "only a right": 3, "only this one right": 0, "both wrong": 0, "p": 0.25}
