"""E8: the digit CSVs of Kaggle."""

from pathlib import Path

import numpy as np
import pytest

from firstlight.data import kaggle_digits
from firstlight.data.kaggle_digits import load_kaggle_digits
from firstlight.errors import DataError

HEADER = ",".join(["label", *(f"pixel{number}" for number in range(784))])
TABLE = np.random.default_rng(0).integers(0, 256, (30, 785))
TABLE[:, 0] = np.arange(30) % 10


def csv(table: np.ndarray = TABLE, header: str = HEADER, end: str = "\n") -> str:
    return end.join([header, *(",".join(map(str, row)) for row in table), ""])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "digit-recognizer").mkdir()
    return tmp_path / "digit-recognizer"


@pytest.mark.parametrize(
    "content",
    [csv(), csv().rstrip("\n"), "\ufeff" + csv(end="\r\n"), csv(end="\r\n").removesuffix("\n")],
    ids=["plain", "no last newline", "BOM and CRLF", "no last LF"],
)
@pytest.mark.parametrize("block", [1000, 4 << 20])
def test_labelled_table(folder: Path, content: str, block: int, monkeypatch: pytest.MonkeyPatch):
    """E8, fault 39."""
    monkeypatch.setattr(kaggle_digits, "BLOCK_BYTES", max(block, 4000))
    (folder / "train.csv").write_bytes(content.encode())
    train = load_kaggle_digits("train", folder.parent)
    assert (train.images.flatten(1).numpy() == TABLE[:, 1:]).all()
    assert train.labels.tolist() == TABLE[:, 0].tolist()
    assert train.source == "Kaggle digits (30 training images)"


def test_unlabelled_table(folder: Path):
    """E8."""
    (folder / "test.csv").write_text(csv(TABLE[:, 1:], HEADER.removeprefix("label,")))
    test = load_kaggle_digits("test", folder.parent)
    assert test.labels is None
    assert (test.images.flatten(1).numpy() == TABLE[:, 1:]).all()


def cell(row: int, column: int, text: str) -> str:
    rows = [list(map(str, values)) for values in TABLE]
    rows[row][column] = text
    return "\n".join([HEADER, *(",".join(values) for values in rows), ""])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cell(3, 5, "256"), r"line 5, column 'pixel4': '256'; expected a whole number 0\.\.255"),
        (cell(3, 5, "1.5"), r"line 5, column 'pixel4': '1\.5'"),
        (cell(0, 0, "10"), r"line 2, column 'label': '10'; expected a whole number 0\.\.9"),
        (cell(29, 784, "-1"), r"line 31, column 'pixel783': '-1'"),
        (cell(2, 7, ""), r"line 4, column 'pixel6': ''"),
        (cell(2, 7, "a"), r"line 4, column 'pixel6': 'a'"),
        (cell(2, 7, "1000"), r"'1000'"),
        (cell(2, 7, "1,2"), "line 4 has 786 values; expected 785"),
        (cell(2, 7, "\0"), "line 4, column 'pixel6'"),
        (cell(2, 7, "1\r2"), "line 4, column 'pixel6': '1\\\\r2'"),
        (cell(2, 7, '"12"'), "line 4, column 'pixel6': '\"12\"'"),
        (cell(2, 7, '"1\n2"'), "line 4 has 8 values; expected 785"),
        (csv(end="\n\n"), "line 2 has 1 values"),
        (csv(end="\r"), "line 1 must be the header"),
        (csv() + "1,2\n", "line 32 has 2 values"),
        (csv().replace(",", ";"), "line 1 must be the header .*semicolons"),
        (csv(header=HEADER.removeprefix("label,")), "line 1 must be the header"),
        (HEADER + "\n", "no rows"),
        ("", "line 1 must be the header"),
    ],
)
def test_wrong_values_are_named(folder: Path, content: str, message: str):
    """E8, fault 39: the line and the column."""
    (folder / "train.csv").write_bytes(content.encode())
    with pytest.raises(DataError, match=message):
        load_kaggle_digits("train", folder.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (csv().encode("utf-16"), r"line 1 is not UTF-8 \(byte 0 is 0xff\); save the table as CSV in UTF-8"),
        (csv().replace("pixel5,", "pïxel5,").encode("latin-1"), r"line 1 is not UTF-8 \(byte 42 is 0xef\)"),
        (csv().encode() + b"\xe9" + b",1" * 784, "line 32, column 'label': '\ufffd'"),
    ],
    ids=["UTF-16", "Latin-1 in the header", "Latin-1 in a row"],
)
def test_other_encodings_are_named(folder: Path, content: bytes, message: str):
    """Fault 39: by the place of the first wrong byte."""
    (folder / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_kaggle_digits("train", folder.parent)


def test_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"train.csv is missing .*kaggle.com"):
        load_kaggle_digits("train", tmp_path)
