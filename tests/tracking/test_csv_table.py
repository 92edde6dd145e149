"""CSV that a spreadsheet opens without running anything."""

import csv
from pathlib import Path

import pytest

from firstlight.tracking.csv_table import BLOCK, csv_chunks, harmless, write_csv


@pytest.mark.parametrize("text", ["=1+2", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\tx", "-", '=HYPERLINK("x")'])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    """Fault 50: a ' stands before what a spreadsheet would run; the csv module reads the rest back as it was."""
    table = write_csv(tmp_path / "a.csv", [{"class": text, text: 1}])
    with table.open(newline="") as lines:
        assert list(csv.reader(lines)) == [["class", f"'{text}"], [f"'{text}", "1"]]


@pytest.mark.parametrize("number", ["-1.5", "+3", "-1e-3", "-inf", "3"])
def test_numbers_stay(number: str) -> None:
    """Fault 50: numbers untouched."""
    assert harmless(number) == number


def test_cells() -> None:
    rows = [["\rx", "a\n", "a,b", 0.123456789, True, False, None, -2], ['say "x"', float("nan"), 1e-9, 3.0, "é\udcff", ""]]
    text = b"".join(csv_chunks(rows)).decode()
    assert text == '\'\\rx,"a\n","a,b",0.1234568,yes,no,,-2\n"say ""x""",nan,1e-09,3,é\\udcff,\n'


def test_many_rows_come_in_chunks() -> None:
    chunks = list(csv_chunks([number] for number in range(BLOCK + 1)))
    assert len(chunks) == 2 and b"".join(chunks).split() == [str(number).encode() for number in range(BLOCK + 1)]
