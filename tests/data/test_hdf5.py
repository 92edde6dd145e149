"""HDF5 files as a user has them: keys, orders of axes, class names; and all that may be wrong with them, each a line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from firstlight.data import hdf5
from firstlight.data.hdf5 import load_hdf5, load_medium_imagenet
from firstlight.data.stored import fletcher32
from firstlight.errors import ConfigError, DataError
from tests.data.hdf5_files import NUM, make_file, read_plainly
from tests.mutate import mutate


def load(path: Path, part: str = "train", **settings: object) -> "hdf5.Dataset":
    return load_hdf5(part, path.parent, path=str(path), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "channels", "shape"), [("nhwc", 3, (3, 9, 10)), ("nchw", 3, (3, 9, 10)), ("nhw", 1, (1, 9, 10)), ("nhwc", 1, (1, 9, 10))]
)
def test_axes_are_found_by_shape(tmp_path: Path, order: str, channels: int, shape: tuple[int, ...]) -> None:
    """D8."""
    path = make_file(tmp_path / "a.h5", order=order, channels=channels)
    dataset = load(path)
    assert (len(dataset), dataset.image_shape) == (NUM, shape)
    assert torch.equal(dataset.images[123], read_plainly(path, "train", 123))


def test_parts_labels_and_names(tmp_path: Path) -> None:
    """D8: the test part has no labels, the validation part is the file's own."""
    path = make_file(tmp_path / "a.h5")
    train, val, test = (load(path, part) for part in ("train", "val", "test"))
    assert train.class_names == test.class_names == ("ant", "bee", "cow", "dog", "eel")
    assert train.labels is not None and train.labels.dtype == torch.int64 and train.labels.tolist() == [row * 7 % 5 for row in range(NUM)]
    assert val.labels is not None and len(val) == NUM // 5
    assert test.labels is None and len(test) == 7
    assert test.source == "a.h5 (7 unlabelled test images)"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a-classes.txt", "\ufeffa\nb\n\nc\nd\ne\n"),
        ("class_names.json", '["a", "b", "c", "d", "e"]'),
        ("classes.json", '{"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}'),
    ],
)
def test_class_names_lie_beside_the_file(tmp_path: Path, name: str, text: str) -> None:
    path = make_file(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["class-names"]
    assert load(path).class_names == tuple(f"class {label}" for label in range(5))
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load(path, "val").class_names == tuple("abcde")


def test_other_keys(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["train/x"] = np.zeros((4, 8, 8, 3), np.uint8)
        file["train/y"] = np.array([[0], [1], [1], [0]], np.uint8)
        file["test/x"] = np.ones((2, 8, 8, 3), np.uint8)
    dataset = load(tmp_path / "b.h5", images_key="{part}/x", labels_key="{part}/y")
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 1, 1, 0]
    assert len(load(tmp_path / "b.h5", "test", images_key="{part}/x", labels_key="{part}/y")) == 2
    alone = load(tmp_path / "b.h5", images_key="train/x", labels_key="train/y")
    assert len(alone) == 4
    with pytest.raises(DataError, match="no test part"):
        load(tmp_path / "b.h5", "test", images_key="train/x", labels_key="train/y")
    with pytest.raises(ConfigError, match="the only braces"):
        load(tmp_path / "b.h5", images_key="{split}/x")


def test_medium_imagenet_is_found_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Medium ImageNet \(medium-imagenet-nmep-96\.hdf5\) is missing.*data generate"):
        load_medium_imagenet("train", tmp_path)
    (tmp_path / "medium-imagenet").mkdir()
    make_file(tmp_path / "medium-imagenet" / "medium-imagenet-nmep-96.hdf5")
    assert len(load_medium_imagenet("val", tmp_path)) == NUM // 5


def wrong(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return change


def put(key: str, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[key]
        file[key] = value

    return edit


def rename(file: h5py.File) -> None:
    file.move("images-train", "images_train")


def link(file: h5py.File) -> None:
    file["elsewhere"] = file["images-train"][()]
    del file["images-train"]
    file["images-train"] = h5py.ExternalLink("other.h5", "images")


def never_written(file: h5py.File) -> None:
    del file["images-train"]
    file.create_dataset("images-train", (NUM, 9, 10, 3), np.uint8)


def some_chunks(file: h5py.File) -> None:
    del file["images-train"]
    images = file.create_dataset("images-train", (NUM, 9, 10, 3), np.uint8, chunks=(50, 9, 10, 3))
    images[:100] = 1


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 5000), r"truncated: [\d,]+ of [\d,]+ bytes are there; copy or"),
    "empty": (lambda path: path.write_bytes(b""), "no HDF5 file"),
    "another format": (lambda path: path.write_bytes(b"PK\x03\x04 something"), r"no HDF5 file \(it begins with b'PK"),
    "missing key": (wrong(rename), r"no 'images-train'; did you mean 'images_train'\?"),
    "a group": (
        wrong(put("images-train", None))
        if False
        else wrong(lambda file: (file.move("images-train", "g/x"), file.move("g", "images-train"))[0]),
        "images-train is a group with x",
    ),
    "wrong dtype": (wrong(put("images-train", np.zeros((NUM, 9, 10, 3), np.float32))), "images-train is float32; expected uint8"),
    "wrong shape": (
        wrong(put("images-train", np.zeros((NUM, 270), np.uint8))),
        r"images-train has shape \[300, 270\]; expected \[N, H, W, C\]",
    ),
    "four channels": (wrong(put("images-train", np.zeros((NUM, 9, 10, 4), np.uint8))), "with 1 or 3 channels"),
    "labels short": (wrong(put("labels-train", np.zeros(250, np.int64))), r"labels-train has shape \[250\] for 300 images in images-train"),
    "labels are text": (wrong(put("labels-train", np.zeros(NUM, "S3"))), r"labels-train is \|S3; expected whole numbers"),
    "labels are floats": (wrong(put("labels-train", np.zeros(NUM))), "labels-train is float64; expected whole numbers"),
    "label out of range": (wrong(put("labels-train", np.full(NUM, 5))), r"a\.h5 labels-train: row 0 of labels: 5, allowed 0\.\.4"),
    "label negative": (wrong(put("labels-train", np.arange(NUM) % 5 - 1)), r"row 0 of labels: -1, allowed 0\.\.4"),
    "another file": (wrong(link), r"images-train lies in another file \(other\.h5\)"),
    "never written": (wrong(never_written), "nothing was ever written to it"),
    "chunks missing": (wrong(some_chunks), r"4 of 6 chunks were never written, the first at row 100"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, what: str) -> None:
    """Faults 32 and 35: one line with the file, the key, what is there and what is wanted."""
    path = make_file(tmp_path / "a.h5")
    change, message = WRONG[what]
    change(path)
    with pytest.raises(DataError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value) and "a.h5" in str(error.value)


def test_a_file_that_is_open_for_writing_elsewhere(tmp_path: Path) -> None:
    """Fault 35."""
    path = make_file(tmp_path / "a.h5")
    with h5py.File(path, "r+"), pytest.raises(DataError, match="another process has it open for writing; wait"):
        load(path)
    assert len(load(path)) == NUM


def test_a_writer_that_was_killed(tmp_path: Path) -> None:
    """Fault 35: what a killed writer leaves is refused, or read whole, and never ends in a traceback."""
    path = tmp_path / "a.h5"
    code = f"""
import h5py, numpy as np, os, signal
file = h5py.File({str(path)!r}, "w", libver="latest")
file["images-train"] = np.zeros((300, 9, 10, 3), np.uint8)
file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match=r"a\.h5: (whoever wrote it|it )"):
        load(path)


def test_without_h5py_the_extra_is_named(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.h5")
    code = f"import sys; sys.modules['h5py'] = None\nfrom firstlight.__main__ import main\nmain(['data', 'check', {str(path)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == 'error: HDF5 files need h5py, which is not installed; pip install "firstlight[hdf5]"\n'


def test_a_crash_of_the_child_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 38: the process that looks at the file is killed by a signal, as a crash in the library would end it."""
    path = make_file(tmp_path / "a.h5")
    (tmp_path / "h5py.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DataError, match=r"a\.h5: the process that looked at it broke down \(signal 11\); it is damaged"):
        load(path)


def test_damaged_files_end_in_a_line_or_in_images(tmp_path: Path) -> None:
    """Fault 38: 12 files with bytes changed; each gives a data set that can be read, or one line."""
    valid = make_file(tmp_path / "a.h5", num=40, chunks=(16, 9, 10, 3), compression="gzip").read_bytes()
    told = 0
    for seed in range(12):
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(mutate(valid, seed))
        try:
            dataset = load(path)
            assert dataset.images.whole().shape == torch.Size((len(dataset), *dataset.image_shape))
        except DataError as error:
            told += 1
            assert "\n" not in str(error) and path.name in str(error)
    assert told >= 2


def test_fletcher32_is_that_of_the_library(tmp_path: Path) -> None:
    """Fault 36: even and odd lengths, all zeros, all ones."""
    for number, content in enumerate(
        (np.zeros(64, np.uint8), np.full(65_536 * 2, 255, np.uint8), np.random.default_rng(0).integers(0, 256, 1001, dtype=np.uint8))
    ):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file.create_dataset("x", data=content, chunks=(len(content),), fletcher32=True)
        with h5py.File(tmp_path / f"{number}.h5") as file:
            _, raw = file["x"].id.read_direct_chunk((0,))
        assert fletcher32(content) == int.from_bytes(bytes(raw)[-4:], "little")


def test_a_user_block_moves_no_pixel(tmp_path: Path) -> None:
    for number, storage in enumerate(({}, {"chunks": (10, 9, 10, 3)})):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w", userblock_size=1024) as file:
            file.create_dataset("images-train", data=np.arange(20 * 270, dtype=np.int64).astype(np.uint8).reshape(20, 9, 10, 3), **storage)
            file["labels-train"] = np.arange(20) % 2
        assert torch.equal(load(path).images[13], read_plainly(path, "train", 13))


def test_the_child_answers_json(tmp_path: Path) -> None:
    """The answer is plain data: nothing of the child's is unpickled (F12)."""
    path = make_file(tmp_path / "a.h5")
    request = json.dumps({"path": str(path), "parts": {"test": ["images-test", "labels-test"]}, "required": ["train"]})
    done = subprocess.run([sys.executable, "-m", "firstlight.data.hdf5_probe"], input=request.encode(), capture_output=True, check=True)
    answer = json.loads(done.stdout.splitlines()[0])
    assert answer["parts"]["test"]["shape"] == [7, 9, 10, 3] and "labels" not in answer["parts"]["test"]
