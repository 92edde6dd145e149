"""The data commands, where the picture or the value is easier to look at than the printed text."""

from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight.config.schema import Kind
from firstlight.data.build import SOURCES, load_part
from firstlight.data.dataset import make_dataset
from firstlight.engine.doctor import DATA_PLACES, ELSEWHERE, describe_data
from firstlight.errors import ConfigError, DataError
from firstlight.inspection.data import parse_source, refuse_findings
from firstlight.inspection.sheets import draw_sheet


def test_the_sheet_shows_ten_labelled_images_of_each_class() -> None:
    """D10: 100 images of the digits, a row for each class, named at its left."""
    digits = load_part(Kind("digits"), "train", Path())
    assert digits.labels is not None
    (axes,) = draw_sheet(digits).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(digit) for digit in range(10)]
    canvas = axes.images[0].get_array()
    assert canvas.shape == (10 * 9 - 1, 10 * 9 - 1), "images of 8 x 8 with a gap of one pixel"
    for digit in range(10):
        for column, image in enumerate(digits.images[digits.labels == digit][:10, 0]):
            np.testing.assert_array_equal(canvas[digit * 9 : digit * 9 + 8, column * 9 : column * 9 + 8], image.numpy())


def test_the_sheet_keeps_colours() -> None:
    """D10: a red image [3, H, W] is red [H, W, 3]; a class with fewer images leaves the rest of its row white."""
    images = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    images[:, 0] = 200
    dataset = make_dataset(images, torch.tensor([0, 1, 1]), ["a", "b"], "reds")
    (axes,) = draw_sheet(dataset).axes
    canvas = axes.images[0].get_array()
    assert canvas[:2, :2].tolist() == [[[200, 0, 0]] * 2] * 2 and canvas[3:, 3:].tolist() == [[[200, 0, 0]] * 2] * 2
    assert canvas[:2, 2:].min() == 255


def test_a_path_is_a_folder_of_images_and_a_name_a_data_set(tmp_path: Path) -> None:
    kind = parse_source(str(tmp_path), ["test_fraction=0.5"])
    assert (kind.name, kind.options["path"], kind.options["test_fraction"]) == ("folder", str(tmp_path), 0.5)
    assert parse_source("digits", []).name == "digits"
    with pytest.raises(ConfigError, match=r"'digit' is no data.*did you mean 'digits'"):
        parse_source("digit", [])


def test_every_data_set_has_its_places(tmp_path: Path) -> None:
    """A10: `doctor` and `data list` look where the loaders look."""
    assert set(DATA_PLACES) == set(SOURCES) - {"digits", *ELSEWHERE} == set(describe_data(tmp_path)) - {"digits"}
    for name in DATA_PLACES:
        with pytest.raises(DataError, match="missing"):
            load_part(Kind(name), "train", tmp_path)
        assert describe_data(tmp_path)[name].startswith("not here; `firstlight data ")


@pytest.mark.parametrize("name", ["mnist", "corrupted_mnist"])
def test_what_is_listed_can_be_read(name: str, shared_data: Path) -> None:
    assert describe_data(shared_data)[name] == str(shared_data / "MNIST" / "raw")
    assert len(load_part(Kind(name), "test", shared_data)) in (5_000, 10_000)


def test_findings_are_an_error_and_none_is_not() -> None:
    refuse_findings({"source": "photos", "findings": []})
    with pytest.raises(DataError, match="2 findings in photos"):
        refuse_findings({"source": "photos", "findings": [{}, {}]})
