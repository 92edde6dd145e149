"""Files that are written: from folders, archives, data sets or made up; killed and gone on with; checked byte by byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from firstlight.config.schema import Kind
from firstlight.data import generate
from firstlight.data.build import load_all_parts
from firstlight.data.convert import convert_datasets, convert_folder
from firstlight.data.generate import class_names, draw, generate_hdf5
from firstlight.data.hdf5 import load_hdf5
from firstlight.data.stored_check import Checked, check_parts
from firstlight.errors import DataError, StorageError
from firstlight.inspection.data import check_source, describe_source

ROOT = Path(__file__).parents[2]


def quiet(what: str, done: int, total: int) -> None:
    pass


def part(path: Path, name: str) -> Any:
    return load_hdf5(name, path.parent, path=str(path), stream="on")


def checked(path: Path) -> Checked:
    def load(name: str) -> Any:
        with h5py.File(path) as file:
            there = f"images-{name}" in file
        return part(path, name) if there else None

    return check_parts(load, full=True)


def firstlight(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = {"PYTHONPATH": str(ROOT), "FIRSTLIGHT_CACHE": str(folder / "cache"), "FIRSTLIGHT_RUNS": str(folder / "runs"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "firstlight", *words], capture_output=True, text=True, cwd=folder, env=os.environ | settings, check=False
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 photos of 12x10 pixels in train/ and 12 in test/, each of one colour that tells its class and number."""
    for number in range(72):
        folder = tmp_path / "photos" / ("test" if number >= 60 else "train") / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number % 3 * 100, number, 7)).save(folder / f"{number:02}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("order", ["nhwc", "nchw"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_generated_file_has_the_layout_of_the_course(tmp_path: Path, order: str, chunked: bool) -> None:
    """D8: keys, dtypes, shapes; labels balanced and shuffled; fault 36: what it holds is what was drawn."""
    path = generate_hdf5(tmp_path / "made.h5", quiet, num_images=150, size=20, num_classes=12, order=order, chunked=chunked)
    with h5py.File(path) as file:
        assert sorted(file) == sorted(
            [
                "class-names",
                *(f"{what}-{name}" for name in ("train", "val", "test") for what in ("images", "checksums")),
                "labels-train",
                "labels-val",
            ]
        )
        assert file["images-train"].shape == ((150, 20, 20, 3) if order == "nhwc" else (150, 3, 20, 20))
        assert file["images-train"].fletcher32 is chunked
        labels = file["labels-train"][()]
        pixels = file["images-train"][64:128]
    assert np.bincount(labels).tolist() == [13] * 6 + [12] * 6 and (np.diff(labels) < 0).any()
    pixels = pixels if order == "nhwc" else pixels.transpose(0, 2, 3, 1)
    assert np.array_equal(pixels, draw(labels[64:128], 20, (0, 0, 64)))
    train = part(path, "train")
    assert train.class_names == class_names(12) and train.class_names[0] == "red-level-disc"
    assert len(set(class_names(600))) == 600
    found = checked(path)
    assert found.findings == [] and "every checksum matches" in found.says
    assert not list(tmp_path.glob("*.part*"))


def test_generated_classes_can_be_learned(tmp_path: Path) -> None:
    """D8: a nearest mean colour finds the colour of a class alone; a network has to look at texture and shape."""
    path = generate_hdf5(tmp_path / "made.h5", quiet, num_images=400, size=16, num_classes=10)
    train, val = part(path, "train"), part(path, "val")
    means = torch.stack([train.images.whole()[train.labels == label].float().mean((0, 2, 3)) for label in range(10)])
    means, colours = (values / values.norm(dim=1, keepdim=True) for values in (means, val.images.whole().float().mean((2, 3))))
    assert float(((colours @ means.T).argmax(1) == val.labels).float().mean()) > 0.9


@pytest.mark.parametrize("how", ["folder", "zip", "tar"])
def test_convert_a_folder_or_archive(photos: Path, tmp_path: Path, how: str) -> None:
    """D8: every image is there once, beside its label, and shuffled."""
    source = photos if how == "folder" else Path(shutil.make_archive(str(tmp_path / "p"), how, photos.parent, "photos"))
    path = convert_folder(source, tmp_path / "out.h5", quiet)
    train, val, test = (part(path, name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (54, 6, 12)
    assert train.class_names == ("a", "b", "c") and train.image_shape == (3, 10, 12)
    numbers = []
    for dataset in (train, val, test):
        pixels = dataset.images.whole()
        assert bool((pixels == pixels[:, :, :1, :1]).all())
        assert (pixels[:, 0, 0, 0] // 100).tolist() == dataset.labels.tolist()
        numbers.append(pixels[:, 1, 0, 0].tolist())
    assert sorted(numbers[0] + numbers[1]) == list(range(60)) and sorted(numbers[2]) == list(range(60, 72))
    assert numbers[0] != sorted(numbers[0])
    with h5py.File(path) as file:
        assert file.attrs["made_from"].startswith(source.name)


def test_convert_resizes_and_refuses_sizes_that_differ(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(photos / "train" / "a" / "99.png")
    with pytest.raises(DataError, match=r"train/a/99\.png has 30 x 20 pixels, others 12 x 10; resize all with --size 96"):
        convert_folder(photos, tmp_path / "out.h5", quiet)
    path = convert_folder(photos, tmp_path / "out.h5", quiet, size=8)
    assert part(path, "train").image_shape == (3, 8, 8)
    with pytest.raises(DataError, match=r"out\.h5 is there already; remove it, or choose another name"):
        convert_folder(photos, tmp_path / "out.h5", quiet, size=8)


def test_convert_a_data_set_with_a_name(tmp_path: Path) -> None:
    parts = load_all_parts(Kind("digits"), tmp_path, None, 0.1)
    path = convert_datasets(parts, tmp_path / "digits.h5", quiet, made_from="digits", shuffled=False)
    for name, dataset in parts.items():
        written = part(path, name)
        assert torch.equal(written.images.whole(), dataset.images) and torch.equal(written.labels, dataset.labels)


@pytest.mark.parametrize("when", ["kill:half:1:out.h5.part", "kill:before:20:out.h5.part", "kill:before:1:made.h5.part"])
def test_a_killed_conversion_goes_on_to_the_same_file(photos: Path, tmp_path: Path, when: str) -> None:
    """Issue 7: killed at a file operation, then started again: the pixels are those of a conversion that nobody disturbed."""
    whole, out = convert_folder(photos, tmp_path / "whole.h5", quiet), tmp_path / when.rpartition(":")[2].removesuffix(".part")
    call = f"convert_folder(Path({str(photos)!r}), Path({str(out)!r}), print)"
    command = f"from pathlib import Path; from firstlight.data.convert import convert_folder; {call}"
    environment = {"PYTHONPATH": str(ROOT), "FIRSTLIGHT_FAILPOINT": when}
    killed = subprocess.run([sys.executable, "-c", command], env=os.environ | environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    assert convert_folder(photos, out, quiet) == out
    for name in ("train", "val", "test"):
        one, two = part(whole, name), part(out, name)
        assert torch.equal(one.images.whole(), two.images.whole()) and torch.equal(one.labels, two.labels)
    assert checked(out).findings == []
    assert not list(tmp_path.glob("*.part*"))


def test_what_was_written_before_a_kill_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note beside the file says how many images are there; the source is asked for the others alone."""
    from firstlight.data import hdf5_write
    from firstlight.files import Failpoint

    asked: list[int] = []
    drawn = generate.draw
    monkeypatch.setattr(hdf5_write, "SAVE_BYTES", 64 * 8 * 8 * 3)
    monkeypatch.setattr(generate, "draw", lambda labels, size, seed: (asked.append(seed[2]), drawn(labels, size, seed))[1])
    monkeypatch.setattr("firstlight.files._failpoint", Failpoint("EIO:at:8:made.h5.part"))
    with pytest.raises(StorageError):
        generate_hdf5(tmp_path / "made.h5", quiet, num_images=256, size=8, num_classes=4)
    before = list(asked)
    monkeypatch.setattr("firstlight.files._failpoint", None)
    asked.clear()
    path = generate_hdf5(tmp_path / "made.h5", quiet, num_images=256, size=8, num_classes=4)
    assert len(before) > 0 and asked[0] > 0
    whole = generate_hdf5(tmp_path / "whole.h5", quiet, num_images=256, size=8, num_classes=4)
    assert torch.equal(part(path, "train").images.whole(), part(whole, "train").images.whole())


def test_a_bad_image_is_named_and_what_was_done_is_kept(photos: Path, tmp_path: Path) -> None:
    """Fault 30."""
    bad = photos / "train" / "b" / "31.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    with pytest.raises(DataError, match=r"train/b/31\.png: .*; repair or remove it and start again"):
        convert_folder(photos, tmp_path / "out.h5", quiet)
    assert not (tmp_path / "out.h5").exists()
    bad.write_bytes(good)
    assert convert_folder(photos, tmp_path / "out.h5", quiet).exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_flipped_byte_is_found_by_the_full_check(tmp_path: Path, chunked: bool) -> None:
    """Fault 36: HDF5 itself returns it silently from an array in one piece; our checksums name the rows."""
    path = generate_hdf5(tmp_path / "made.h5", quiet, num_images=100, size=16, num_classes=4, chunked=chunked)
    place = part(path, "train").images.file.facts
    offset = place.offset if place.offset is not None else int(place.chunks[0, 0])
    content = bytearray(path.read_bytes())
    content[offset + 5000] ^= 1
    path.write_bytes(content)
    (found,) = check_source(str(path), [], tmp_path, full=True)["findings"]
    assert found["image"] == "images-train"
    assert ("its checksum does not match" if chunked else "the pixels of rows 0 to 99 are not those that were written") in found["wrong"]
    quick = check_source(str(path), [], tmp_path)
    assert quick["findings"] == [] and "--full reads every pixel" in quick["says"]


def test_the_full_check_finds_images_in_two_parts(tmp_path: Path) -> None:
    """Fault 33: a validation image that is a training image too, and one that is there twice."""
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images-train"], file["labels-train"] = images[[0, 1, 2, 3, 0]], [0, 1, 0, 1, 0]
        file["images-val"], file["labels-val"] = images[[5, 2]], [0, 1]
    found = checked(tmp_path / "a.h5")
    assert ("val rows 1", "1 images have the same pixels as a training image") in found.findings
    assert ("train", "1 images are there more than once") in found.findings


def test_the_commands(photos: Path, tmp_path: Path) -> None:
    """D8: convert, check and describe as a user types them; --json is one object."""
    converted = firstlight(tmp_path, "data", "convert", "photos", "out.h5", "--json")
    assert converted.returncode == 0, converted.stderr
    made = json.loads(converted.stdout)
    assert made["parts"][0] == {"part": "train", "images": 54, "labels": "yes"} and made["image_shape"] == [3, 10, 12]
    checked_too = firstlight(tmp_path, "data", "check", "out.h5", "--full")
    assert checked_too.returncode == 0 and "every checksum matches" in checked_too.stdout
    described = describe_source(str(tmp_path / "out.h5"), [], tmp_path, out=tmp_path)
    assert (described["num_images"], described["image_shape"]) == (54, [3, 10, 12])
