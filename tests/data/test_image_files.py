"""Image files that a user names."""

import os
from pathlib import Path

import pytest
from PIL import Image

from firstlight.data.image_files import find_images, read_images
from firstlight.errors import DataError


def test_what_is_no_image_file_is_named(tmp_path: Path):
    """Faults 30 and 42: a pipe would be waited for, a device would never end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("not an image")
    for path, message in (
        (tmp_path / "pipe.png", "pipe.png is a device, a pipe or a folder"),
        (Path("/dev/zero"), "/dev/zero is a device"),
        (tmp_path / "text.png", r"text.png: no image in one of the formats"),
        (tmp_path / "gone.png", r"cannot read the image .*gone.png: No such file"),
    ):
        with pytest.raises(DataError, match=message):
            read_images([path], (1, 8, 8), ["a"])


def test_files_and_folders_in_order(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name, grey in (("in/b.png", 2), ("in/a.PNG", 1), ("c.bmp", 3)):
        Image.new("L", (4, 4), grey).save(tmp_path / name)
    paths = find_images([tmp_path / "c.bmp", tmp_path / "in"])
    assert [path.name for path in paths] == ["c.bmp", "a.PNG", "b.png"]
    assert read_images(paths, (1, 4, 4), ["a"]).images[:, 0, 0, 0].tolist() == [3, 1, 2]
    with pytest.raises(DataError, match="in/empty holds no images"):
        (tmp_path / "in/empty").mkdir()
        find_images([tmp_path / "in/empty"])
