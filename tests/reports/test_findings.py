"""What inspections leave, as a report shows it."""

import json
from pathlib import Path

from firstlight.reports.findings import findings, section_of
from firstlight.reports.page import MAX_ROWS
from tests.reports.conftest import leave_inspection


def test_the_order_is_that_of_looking(run: Path) -> None:
    """Data first, then what it gets wrong, then how sure it is; what nobody knows yet comes last, by itself."""
    (run / "profile").mkdir()
    for what in ("zebra", "uncertainty", "uncertainty-image3", "mistakes", "image_17", "data"):
        leave_inspection(run, what)
    (run / "profile" / "throughput.json").write_text(json.dumps({"what": "throughput", "says": "fast", "files": []}))
    assert [section.title for section in findings(run)] == [
        "Data (validation images)",
        "Evaluation (validation images)",
        "Image 17 (validation images)",
        "Mistakes (validation images)",
        "Uncertainty (validation images)",
        "Uncertainty, image3 (validation images)",
        "Throughput",
        "Zebra (validation images)",
    ]


def test_values_become_facts_tables_and_remarks(run: Path) -> None:
    rows = [{"image": number, "pair": [number, 1], "nothing": None} for number in range(MAX_ROWS + 30)]
    more = {"num_passes": 100, "worst": rows, "means": {"right": {"x": 1.5}, "wrong": {"x": 2.5}}, "votes": {"3": 97}, "curve": [0.5] * 500}
    section = section_of(leave_inspection(run, "mistakes", **more, files=[str(run / "inspection" / "mistakes-val.csv")]))
    assert section.says == ["5 of 144 images are mistakes"]
    assert section.facts == {"images": 144, "passes": 100}
    worst, means, votes = section.tables
    assert (worst.heading, len(worst.rows)) == ("worst", MAX_ROWS)
    assert worst.remark == f"the first {MAX_ROWS} of {MAX_ROWS + 30} rows; all are in inspection/mistakes-val.json"
    assert worst.rows[2] == {"image": 2, "pair": "2, 1", "nothing": None}
    assert means.rows == [{"name": "right", "x": 1.5}, {"name": "wrong", "x": 2.5}]
    assert votes.rows == [{"name": "3", "value": 97}]
    assert section.remarks == [
        "curve: 500 entries, in inspection/mistakes-val.json",
        "All rows: inspection/mistakes-val.csv in the run's folder.",
    ]
    assert len(section.pictures) == 1 and section.pictures[0].source.startswith("data:image/svg+xml;base64,")


def test_what_lies_deep_becomes_tables_of_its_own(run: Path) -> None:
    """Calibration as `inspect confusion` keeps it: values, alike trees, rows, and rows within rows."""
    bins = [{"from": 0.0, "images": 3, "of": [{"x": 1}]}, {"from": 0.5, "images": 4, "of": []}]
    calibration = {"ece": 0.5, "bins": bins, "before": {"nll": 1.0}, "after": {"nll": 0.5}}
    section = section_of(leave_inspection(run, "confusion", calibration=calibration, remarks=["no image of class 3"], empty=[]))
    assert {table.heading: table.rows for table in section.tables} == {
        "calibration": [{"name": "ece", "value": 0.5}],
        "calibration, before, after": [{"name": "before", "nll": 1.0}, {"name": "after", "nll": 0.5}],
        "calibration, bins": [
            {"from": 0.0, "images": 3, "of": "1 entries"},
            {"from": 0.5, "images": 4, "of": ""},
        ],
    }
    assert section.remarks == ["no image of class 3"]
    assert section.facts == {"images": 144}


def test_a_confusion_matrix_is_written_out_with_its_classes(run: Path) -> None:
    """B8: rows are true classes."""
    section = section_of(run / "evaluation-val.json")
    matrix = next(table for table in section.tables if table.heading.startswith("confusion"))
    expected = json.loads((run / "evaluation-val.json").read_text())["confusion"]
    assert [[row[str(label)] for label in range(10)] for row in matrix.rows] == expected
    assert [row["true class"] for row in matrix.rows] == [str(label) for label in range(10)]


def test_a_damaged_file_says_so(run: Path) -> None:
    """Fault 50."""
    path = leave_inspection(run)
    path.write_text("[1, 2")
    assert section_of(path).warnings[0].startswith("mistakes-val.json cannot be read (JSONDecodeError")
    path.write_text("[1, 2]")
    assert section_of(path).warnings == ["mistakes-val.json holds no figures"]


def test_a_class_called_true_keeps_its_column(run: Path) -> None:
    """Fault 50: names that a table might use itself."""
    classes = [{"class": "true"}, {"class": "false"}]
    section = section_of(leave_inspection(run, "confusion", confusion=[[5, 1], [2, 4]], classes=classes))
    (matrix,) = [table for table in section.tables if table.heading.startswith("confusion")]
    assert matrix.rows == [{"true class": "true", "true": 5, "false": 1}, {"true class": "false", "true": 2, "false": 4}]
