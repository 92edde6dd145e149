"""`inspect data` and `inspect health` on images that stay in their file: HDF5, tar and Parquet shards."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import firstlight as fl
from firstlight.data.generate import generate_hdf5
from firstlight.inspection import digests, duplicates
from firstlight.inspection.data_look import look, print_look
from firstlight.inspection.health import inspect_health
from tests.data.made_shards import NAMES, encoded, files_of, labels_of, pixels_of, table_of, write_parquet, write_tar

NUM, NUM_VAL = 120, 30
LAYOUTS = ("contiguous", "chunked", "tar", "parquet")


def planted() -> dict[str, tuple[np.ndarray, list[int]]]:
    """Return random images with an exact twin in the training part, one across parts, a nearly equal pair, and one of one colour."""
    train, val = pixels_of(NUM), pixels_of(NUM_VAL, 1)
    train[70] = train[3]
    val[7] = train[50]
    train[90] = (train[20] * 0.98).astype(np.uint8)
    train[100] = 77
    return {"train": (train, labels_of(NUM)), "val": (val, labels_of(NUM_VAL))}


def write(layout: str, folder: Path) -> Path:
    """Write the planted images in one of the layouts; return what a user would name."""
    folder.mkdir(parents=True, exist_ok=True)
    if layout in ("contiguous", "chunked"):
        how: dict[str, Any] = {"chunks": (16, 9, 10, 3), "compression": "gzip"} if layout == "chunked" else {}
        with h5py.File(folder / "made.h5", "w") as file:
            for part, (images, labels) in planted().items():
                file.create_dataset(f"images-{part}", data=images, **how)
                file.create_dataset(f"labels-{part}", data=labels)
            file.create_dataset("class-names", data=NAMES)
        return folder / "made.h5"
    for part, (images, labels) in planted().items():
        for shard, rows in enumerate(np.array_split(np.arange(len(images)), 3)):
            some = images[rows], [labels[row] for row in rows]
            if layout == "tar":
                write_tar(folder / f"{part}-{shard:06}.tar", files_of(*some, int(rows[0])))
            else:
                table = table_of([encoded(image) for image in some[0]], some[1], names=NAMES)
                write_parquet(folder / "data" / f"{part}-{shard:05}-of-00003.parquet", table, 20)
    (folder / "class-names.txt").write_text("\n".join(NAMES))
    return folder


def seen(path: Path, out: Path, *settings: str) -> dict[str, Any]:
    found = look([str(path), *settings], compare=False, test=False, out=out, data_dir=out)
    return {key: value for key, value in found.items() if key != "files"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", [(), ("augment.flip=true", "augment.crop=1")])
def test_streamed_images_have_the_figures_of_resident_ones(
    layout: str, settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D8: a path alone names the file or the shards; all figures are the same to the last bit, in blocks of a few images too."""
    path = write(layout, tmp_path / "made")
    resident = seen(path, tmp_path / "resident", "stream=off", *settings)
    monkeypatch.setattr("firstlight.inspection.pixels._BLOCK_VALUES", 5000)
    monkeypatch.setattr(duplicates, "_BLOCK_VALUES", 5000)
    monkeypatch.setattr("firstlight.data.stored.BLOCK_BYTES", 3000)
    streamed = seen(path, tmp_path / "streamed", "stream=on", *settings)
    assert (resident.pop("streamed"), streamed.pop("streamed")) == (False, True)
    assert streamed == resident
    rows = {row["parts"]: (row["same"], row["nearly"]) for row in streamed["duplicates"]}
    assert rows == {"train": (1, 1), "train and val": (1, 0), "val": (0, 0)}
    assert streamed["statistics"]["num_constant"] == 1 and streamed["left_out"] == []
    assert "1 of 30 validation images are training images too" in streamed["warnings"][0]
    for name in ("raw", "network", "balance", "means", "duplicates"):
        pictures = [(tmp_path / of / f"data-made-{name}.png").read_bytes() for of in ("resident", "streamed")]
        assert pictures[0] == pictures[1], name


def test_what_is_cut_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept of each image is bounded; a line a part says where that was reached."""
    monkeypatch.setattr(duplicates, "MAX_DIGESTS", 100)
    monkeypatch.setattr(duplicates, "MAX_IMAGES", 50)
    monkeypatch.setattr(duplicates, "MAX_COPIES", 1)
    path = write("chunked", tmp_path)
    found = look([str(path), "stream=on"], compare=False, test=False, out=tmp_path, data_dir=tmp_path)
    assert found["left_out"] == [
        "exact copies were looked for among the first 100 of 120 train images",
        "nearly equal images were looked for among 50 of 120 train images, a seeded sample",
    ]
    assert "more than 1 image with an exact copy" in found["says"] and len(found["pairs"]) >= 1
    print_look(found)
    assert "note: exact copies were looked for among the first 100 of 120 train images" in capsys.readouterr().out


def test_two_streamed_sets_are_compared(tmp_path: Path) -> None:
    path = write("tar", tmp_path / "made")
    found = [
        look([str(path), str(path), f"stream={how}"], compare=True, test=False, out=tmp_path, data_dir=tmp_path) for how in ("on", "off")
    ]
    assert found[0] == found[1] and found[0]["same_images"]


@pytest.mark.parametrize("layout", ["contiguous", "tar"])
def test_health_on_streamed_images(layout: str, tmp_path: Path) -> None:
    """The trials take batches from the stream; the leak is looked for among all images, and found."""
    path = write(layout, tmp_path / "made")
    kind = "webdataset" if layout == "tar" else "hdf5"
    words = [f"data={kind}", f"data.path={path}", "model=linear", "train.epochs=1", "train.test_at_end=false"]
    checks = {}
    for how in ("on", "off"):
        found = inspect_health("quickstart", *words, f"data.stream={how}", num_steps=10, out=tmp_path / how, data_dir=tmp_path)
        checks[how] = {check["name"]: check for check in found["checks"]}
    assert checks["on"].keys() == checks["off"].keys()
    assert checks["on"]["leak"] == checks["off"]["leak"]
    assert checks["on"]["leak"]["verdict"] == "fault" and checks["on"]["leak"]["figures"]["num_twins"] == 1
    assert checks["on"]["distinct images"]["figures"]["num_distinct"] == NUM - 1
    run = fl.train("quickstart", *words, "data.stream=on", name="run", runs_dir=tmp_path / "runs", data_dir=tmp_path)
    of_run = {check["name"]: check for check in inspect_health(run.path, num_steps=10, data_dir=tmp_path)["checks"]}
    assert of_run["leak"] == checks["on"]["leak"] and of_run["recorded accuracy"]["verdict"] == "ok"


def test_digests_are_those_of_the_pixels_alone() -> None:
    images = torch.randint(0, 3, (2000, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    known, asked = (digests.digests_of(some) for some in (images[:40], images[40:]))
    plain = {bytes(image.numpy().tobytes()) for image in images[:40]}
    expected = [image.numpy().tobytes() in plain for image in images[40:]]
    assert digests.are_among(asked, known).tolist() == expected and 0 < sum(expected) < len(expected)
    assert digests.num_distinct(asked) == len({image.numpy().tobytes() for image in images[40:]})
    assert len(digests.all_digests(images[:0])) == 0 and not digests.are_among(asked, known[:0]).any()


CODE = """
import resource, sys
from pathlib import Path
from firstlight.inspection.data_look import look
for path in sys.argv[1:]:
    look([path, "stream=on", "data.buffer_mib=4"], compare=False, test=False, out=Path(path).parent, data_dir=Path(path).parent)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_memory_does_not_grow_by_the_pixels(tmp_path: Path) -> None:
    """From 1,500 to 4,500 images of 96 px (83 MB more) the peak grows by their thumbnails (4 KiB each), not by their pixels."""
    paths = [generate_hdf5(tmp_path / str(num) / "a.h5", lambda *_: None, num_images=num, size=96, num_classes=4) for num in (1500, 4500)]
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, paths)], capture_output=True, text=True, check=True)
    few, many = map(int, done.stdout.splitlines())
    assert many - few < 0.5 * 3000 * 96 * 96 * 3, f"{(many - few) / 2**20:.0f} MiB"
    assert json.loads((tmp_path / "4500" / "data-a.json").read_text())["streamed"]
