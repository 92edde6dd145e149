"""What a run remembers of its data, and what it is warned of."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import firstlight as fl
from firstlight.data.build import load_training_data
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.measure import content_hash
from firstlight.data.resize import resize
from firstlight.data.training_data import TrainingData, _found_among, part_training_data
from firstlight.errors import DataError
from firstlight.tracking.console import Console

IMAGES = torch.arange(40 * 3 * 4 * 4, dtype=torch.int64).remainder(251).to(torch.uint8).view(40, 3, 4, 4)
DATA = make_dataset(IMAGES, torch.arange(40) % 4, ["a", "b", "c", "d"], "made up (40 training images)")


def parted(dataset: Dataset = DATA, **settings: object) -> TrainingData:
    return part_training_data(dataset, **({"val_fraction": 0.2, "split_seed": 0, "num_train": None, "normalize": True} | settings))


def test_the_content_hash_of_the_same_data_never_changes():
    """A resume tells changed data from the same data, wherever they lie and whatever they are called."""
    assert parted().record.content_hash == parted(replace(DATA, source="elsewhere", images=DATA.images.clone())).record.content_hash
    assert parted().record.content_hash == "ab5bc1b8658e92dd40c54690420a60bd2a8d35b5d2ece44740369b02e8883168"
    assert parted().record.to_json()["content_hash"] == parted().record.content_hash


def one_pixel_brighter(data: Dataset) -> Dataset:
    images = data.images.clone()
    images[17, 2, 3, 1] += 1
    return replace(data, images=images)


@pytest.mark.parametrize(
    "changed",
    [
        one_pixel_brighter(DATA),
        replace(DATA, labels=DATA.labels.flip(0)),
        replace(DATA, images=DATA.images.view(40, 3, 2, 8)),
        replace(DATA, images=DATA.images.float() / 255),
        DATA.subset(torch.arange(39)),
    ],
    ids=["one pixel", "labels", "shape", "dtype", "one image fewer"],
)
def test_the_content_hash_notices(changed: Dataset):
    assert parted(changed).record.content_hash != parted().record.content_hash


def test_the_content_hash_covers_both_parts_and_their_border():
    first, second = DATA.subset(torch.arange(30)), DATA.subset(torch.arange(30, 40))
    hashes = {content_hash(first, second), content_hash(second, first), content_hash(DATA), content_hash(first)}
    assert len(hashes) == 4
    assert parted(val_fraction=0.0).record.content_hash != parted().record.content_hash


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(40) % 4 + 7, "row 17 of labels: 10, allowed 0..9"),
        (torch.full((40,), -100), r"row 0 of labels: -100, allowed 0..9 \(40 such rows\)"),
        (torch.arange(40) - 39, "row 0 of labels: -39, allowed 0..9"),
        (torch.full((40,), 0.5), "row 0 of labels: 0.5, allowed are whole numbers 0..9"),
        (torch.full((40,), float("nan")), "row 0 of labels: nan, allowed are whole numbers 0..9"),
        (torch.full((40,), float("inf")), "row 0 of labels: inf, allowed 0..9"),
        (torch.full((40,), 65535, dtype=torch.uint16), "row 0 of labels: 65535, allowed 0..9"),
        (torch.full((40,), True), None),
        (torch.arange(40.0) % 10, None),
    ],
    ids=["too large", "-100", "negative", "half", "nan", "inf", "uint16", "bool", "whole floats"],
)
def test_labels_are_checked_before_anything_is_trained(labels: torch.Tensor, message: str | None):
    """Fault 32: by row, with what is allowed."""
    digits = [str(digit) for digit in range(10)]
    if message is None:
        assert make_dataset(IMAGES, labels, digits, "x").labels.tolist() == labels.long().tolist()
        return
    labels = labels.clone()
    if "row 17" in message:
        labels[:17] = 9
        labels[17:] = 10
    with pytest.raises(DataError, match=message):
        make_dataset(IMAGES, labels, digits, "x")


def test_images_of_both_parts_are_counted():
    """Fault 33: images that train and validate at once, among 200 that are 40 five times over."""
    often = make_dataset(IMAGES.repeat(5, 1, 1, 1), torch.arange(200) % 4, ["a", "b", "c", "d"], "made up")
    (warning,) = parted(often, val_fraction=0.1).warnings
    assert warning == "20 of 20 validation images are training images too, pixel by pixel; val figures flatter"
    assert parted().warnings == ()


def test_classes_that_cannot_be_learned_are_named():
    """Fault 33: a class without images, and one that has too few for so small a training part."""
    empty = replace(DATA, class_names=("a", "b", "c", "d", "e"))
    assert parted(empty).warnings == ("no image to train on in class e; it cannot be learned",)
    assert "in class" in parted(num_train=2).warnings[0]


def test_warnings_of_a_source_reach_the_run():
    """Fault 30."""
    warned = resize(replace(DATA, warnings=("one bad image",)), 3)
    assert parted(warned).warnings == ("one bad image",)


def write_folder(folder: Path, classes: dict[str, int]) -> Path:
    """Write so many PNGs of noise into each class folder of train/."""
    noise = np.random.default_rng(0)
    for name, num in classes.items():
        (folder / "train" / name).mkdir(parents=True)
        for number in range(num):
            Image.fromarray(noise.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "train" / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("classes", "num_train", "warning"),
    [
        ({"only": 12}, None, "there is only one class, 'only': any network is right on all images"),
        ({"many": 10, "few": 1}, None, ""),
        ({"a": 9, "b": 9}, 1, "no image to train on in class"),
    ],
    ids=["one class", "a class that is never validated", "a class that is only validated"],
)
def test_odd_classes_train_and_have_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: dict[str, int], num_train: int | None, warning: str
):
    """Fault 33: a whole run, whose figures are numbers and no warnings of a division by zero."""
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))
    path = write_folder(tmp_path / "photos", classes)
    settings = {
        "data": {"name": "folder", "path": str(path), "test_fraction": 0.1},
        "split": {"val_fraction": 0.3, "num_train": num_train},
        "train": {"epochs": 1},
    }
    warnings = load_training_data(fl.load_config("quickstart", **settings), tmp_path).warnings
    assert [text[: len(warning)] for text in warnings] == [warning] * bool(warning)
    run = fl.train("quickstart", runs_dir=tmp_path / "runs", console=Console(quiet=True), **settings)
    assert 0 <= run.summary["val_accuracy"] <= 1
    assert math.isfinite(run.summary["val_loss"])


@pytest.mark.parametrize(("num_train", "drop_last", "steps"), [(33, False, 5), (33, True, 4), (3, False, 1), (3, True, 1), (1, False, 1)])
def test_a_last_batch_of_one_and_fewer_images_than_a_batch(tmp_path: Path, num_train: int, drop_last: bool, steps: int):
    """Fault 34: small_cnn has batch norm, which bears one image; drop_last leaves it out, but never the only batch."""
    train = {"batch_size": 8, "drop_last": drop_last, "epochs": 1}
    run = fl.train(
        "quickstart", runs_dir=tmp_path, console=Console(quiet=True), model="small_cnn", train=train, split={"num_train": num_train}
    )
    assert run.summary["steps"] == steps
    assert math.isfinite(run.summary["val_loss"])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2), (3, 5, 5), (1, 8, 8)], ids=["1 byte", "4 bytes", "75 bytes", "64 bytes"])
@pytest.mark.parametrize("scale", [1, 255], ids=["uint8", "float32"])
def test_images_are_found_by_all_their_bytes(shape: tuple[int, ...], scale: int):
    """Fault 33, as a plain comparison of each with each says: the first and the last byte count."""
    images = torch.randint(0, 256, (50, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = images[[3, 7, 7]].clone()
    wanted[1].view(-1)[-1] ^= 1
    wanted[2].view(-1)[0] ^= 1
    expected = [bool((images == image).flatten(1).all(1).any()) for image in wanted]
    if scale != 1:
        images, wanted = images / scale, wanted / scale
    assert _found_among(images, wanted).tolist() == expected
    assert _found_among(images, wanted[:0]).tolist() == []
