"""What the page of a run's inspections shows of files that anyone may have written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from firstlight.dashboard.inspection import inspections_of, missing_looks, picture_path, section_of
from firstlight.files import write_json

MATRIX = [[5, 1], [0, 4]]
CELLS = {
    "picture": "confusion-val-cells.png", "columns": 32, "tile_height": 8, "tile_width": 8,
    "index": [3, 7], "label": [0, 0], "predicted": [1, 0], "probability": [0.9, 0.6],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "inspection"
    path.mkdir(parents=True)
    Image.new("L", (256, 8)).save(path / "confusion-val-cells.png")
    return path


def leave(folder: Path, what: str = "confusion", split: str = "val", **figures: Any) -> Path:
    write_json(path := folder / f"{what}-{split}.json", {"what": what, "split": split, "says": f"{what} was looked at", **figures})
    return path


def test_a_cell_names_its_images(folder: Path) -> None:
    """F5: where each image of the matrix lies in the picture."""
    section = section_of(leave(folder, confusion=MATRIX, class_names=["cat", "dog"], cells=CELLS))
    assert (section["kind"], section["title"]) == ("confusion", "Confusion (validation images)")
    assert section["drawn"]["class_names"] == ["cat", "dog"] and section["drawn"]["matrix"] == MATRIX
    assert section["drawn"]["cells"]["images"][0] == {"index": 3, "label": 0, "predicted": 1, "probability": 0.9}


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a picture elsewhere": lambda cells: cells.update(picture="../../../etc/passwd"),
    "no picture": lambda cells: cells.update(picture="other.png"),
    "a name with NUL": lambda cells: cells.update(picture="a\0.png"),
    "a class that is none": lambda cells: cells.update(label=[0, 9]),
    "columns of other lengths": lambda cells: cells.update(index=[1]),
    "no size": lambda cells: cells.update(tile_width=0),
    "a size that is no number": lambda cells: cells.update(tile_width="8"),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_cells_that_do_not_fit_are_left_out(change: str, folder: Path) -> None:
    """Fault 50: the matrix is shown without its images."""
    cells = json.loads(json.dumps(CELLS))
    HOSTILE[change](cells)
    drawn = section_of(leave(folder, confusion=MATRIX, cells=cells))["drawn"]
    assert drawn["cells"] is None and drawn["matrix"] == MATRIX and drawn["class_names"] == ["0", "1"]


@pytest.mark.parametrize(
    "matrix", [[[1, 2]], [[1, -1], [0, 0]], [["a", 1], [2, 3]], "no", None, [], [[True, 1], [1, 1]], [[0] * 300] * 300]
)
def test_a_matrix_that_is_none_is_not_drawn(matrix: Any, folder: Path) -> None:
    section = section_of(leave(folder, confusion=matrix))
    assert section["kind"] == "pictures" and section["says"] == ["confusion was looked at"]


def test_damaged_and_foreign_files_stand_beside_good_ones(folder: Path) -> None:
    """Fault 50: each is a section that says so; NaN becomes null; the order is that of the page."""
    leave(folder, "uncertainty", auroc={"entropy": float("nan"), "x": "y"}, most_uncertain=[{"image": 1, "label": "<script>"}])
    leave(folder, "novel", says=["one", "two"], files=["/elsewhere/novel-val.svg", "nothing.png", "a\0b.png"])
    (folder / "novel-val.svg").write_text("<svg/>")
    leave(folder, "mistakes", mistakes="none", confusion=3)
    leave(folder, "confusion", confusion=MATRIX)
    (folder / "health-val.json").write_text('{"says": "ha')
    (folder / "list-val.json").write_text("[1]")
    (folder.parent / "profile").mkdir()
    write_json(folder.parent / "profile" / "throughput.json", {"says": "fast"})
    sections = inspections_of(folder.parent)
    assert [section["what"] for section in sections] == ["confusion", "mistakes", "uncertainty", "health", "throughput", "list", "novel"]
    by_name = {section["what"]: section for section in sections}
    assert by_name["health"]["kind"] == by_name["list"]["kind"] == "damaged"
    assert [picture["name"] for picture in by_name["novel"]["pictures"]] == ["novel-val.svg"] and by_name["novel"]["says"] == ["one", "two"]
    assert by_name["uncertainty"]["drawn"]["scores"][0]["auroc"] is None
    json.dumps(sections, allow_nan=False)
    assert missing_looks(folder.parent) == ["predictions", "embedding"]


def test_files_are_found_by_name_among_those_that_are_there(folder: Path) -> None:
    """Fault 50: no path of the client's leads anywhere; links are not followed."""
    (folder / "secret.txt").write_text("x")
    (folder.parent / "outside.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    run = folder.parent
    assert picture_path(run, "confusion-val-cells.png") == folder / "confusion-val-cells.png"
    for name in ("secret.txt", "link.png", "../outside.png", "..%2foutside.png", "", ".", "a\0.png", "/etc/passwd", "x.json"):
        assert picture_path(run, name) is None
