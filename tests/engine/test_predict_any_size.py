"""Predictions of any number of images: each kind of table against plain readers, kills in the middle, memory that does not grow."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from firstlight.engine.answers import Predictions, write_answers
from firstlight.errors import ConfigError, DataError, StorageError
from firstlight.files import Failpoint
from firstlight.tracking.console import Console

Train = Callable[..., fl.Run]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of 1,203 noisy pictures of 8 x 8: two batches of 500, and one that is odd."""
    (tmp_path / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (1203, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index:04}.bmp")
    return tmp_path / "images"


def made_up(num: int, num_classes: int = 10, top: int | None = None) -> Predictions:
    """Random probabilities; class 1 has a name that CSV must quote."""
    values = np.random.default_rng(0).random((num, num_classes), dtype=np.float32)
    values /= values.sum(1, keepdims=True)
    names = ["a", 'b, "c"', *map(str, range(2, num_classes))]
    if top is None:
        return Predictions(lambda index: f"test[{index}]", names, values)
    order = np.argsort(-values, 1, kind="stable")[:, :top].astype(np.int32)
    return Predictions(lambda index: f"test[{index}]", names, np.take_along_axis(values, order, 1), order)


@pytest.mark.parametrize("num", [1, 8192, 8193])
def test_each_kind_of_table_holds_the_same(tmp_path: Path, num: int) -> None:
    """D11: against csv, json, numpy and pyarrow."""
    parquet = pytest.importorskip("pyarrow.parquet")
    found = made_up(num)
    for suffix in (".csv", ".csv.gz", ".json", ".npy", ".parquet"):
        write_answers(tmp_path / f"a{suffix}", found)
    with (tmp_path / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == (tmp_path / "a.csv").read_bytes()
    assert [row["image"] for row in rows] == [f"test[{index}]" for index in range(num)]
    assert [row["label"] for row in rows] == [found.class_names[label] for label in found.labels()]
    values = np.array([[float(row[name]) for name in found.class_names] for row in rows])
    assert np.abs(values - found.probabilities).max() < 1e-6
    assert [float(row["probability"]) for row in rows] == values.max(1).tolist()
    assert (np.load(tmp_path / "a.npy", allow_pickle=False) == found.probabilities).all()
    assert json.loads((tmp_path / "a.json").read_text()) == list(found)
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["image"] == [row["image"] for row in rows] and table["label"] == [row["label"] for row in rows]
    assert (found.probabilities == np.array([table[name] for name in found.class_names], np.float32).T).all()


@pytest.mark.parametrize("top", [1, 3])
def test_the_most_probable_classes_alone(tmp_path: Path, top: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    whole, found = made_up(50), made_up(50, top=top)
    for suffix in (".csv", ".json", ".npy", ".parquet"):
        write_answers(tmp_path / f"a{suffix}", found)
    with (tmp_path / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    best = np.argsort(-whole.probabilities, 1, kind="stable")[:, :top]
    columns = ["label", *(f"label_{place}" for place in range(2, top + 1))]
    assert [[row[name] for name in columns] for row in rows] == [[whole.class_names[label] for label in row] for row in best]
    assert list(rows[0]) == [
        "image",
        "label",
        "probability",
        *(["label_2", "probability_2", "label_3", "probability_3"] if top == 3 else []),
    ]
    assert np.load(tmp_path / "a.npy").tolist() == (best[:, 0] if top == 1 else best).tolist()
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist()[7]["label"] == rows[7]["label"]
    written = json.loads((tmp_path / "a.json").read_text())
    assert written[3]["probability"] == pytest.approx(float(whole.probabilities[3].max()))
    assert ("probabilities" in written[3]) is (top > 1)


def test_batches_of_files_are_what_the_images_are_together(train: Train, files: Path, tmp_path: Path) -> None:
    """D11: 1,203 files in three batches, against the network asked plainly."""
    import torch

    run = train()
    found = fl.predict(run.path, [files], out=tmp_path / "a.npy")
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(files.iterdir())])[:, None]
    normalize = run.info["data"]["normalize"]
    images = (torch.from_numpy(pixels).float() / 255 - normalize["mean"][0]) / normalize["std"][0]
    with torch.inference_mode():
        expected = fl.load_model(run.path)(images).softmax(1).numpy()
    assert np.abs(np.load(tmp_path / "a.npy") - expected).max() < 1e-5
    assert (found.labels() == expected.argmax(1)).all()
    assert fl.predict(run.path, [files], top=1).labels().tolist() == found.labels().tolist()
    assert sorted(path.name for path in tmp_path.glob("a.*")) == ["a.npy"]


def predict(run: Path, images: Path, out: str, **env: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "firstlight", "predict", str(run), str(images), "--out", out]
    return subprocess.run(words, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_a_killed_prediction_goes_on(train: Train, files: Path, tmp_path: Path) -> None:
    """D11: kill -9 again and again; there is no table before the end, and then one of the same bytes."""
    run = train().path
    fl.predict(run, [files], out=tmp_path / "whole.csv")
    out = tmp_path / "a.csv"
    done = predict(run, files, str(out), FIRSTLIGHT_FAILPOINT="kill:half:3:a.csv.part")  # in the first batch
    assert done.returncode == -signal.SIGKILL, done.stderr
    for number, goes_on_behind in ((4, None), (5, "500"), (4, "1,203")):  # in the second batch; at the end; when the table stands
        assert not out.exists()
        done = predict(run, files, str(out), FIRSTLIGHT_FAILPOINT=f"kill:before:{number}:a.csv.part")
        assert done.returncode == -signal.SIGKILL
        assert (f"going on behind {goes_on_behind} of 1,203 images" in done.stderr) is (goes_on_behind is not None), done.stderr
    done = predict(run, files, str(out))
    assert done.returncode == 0 and "going on behind 1,203" in done.stderr, done.stderr
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("a.csv*")) == ["a.csv"]


@pytest.mark.parametrize("change", ["an image", "the network", "zeros", "nothing"])
def test_rows_of_another_question_are_not_taken_up(
    train: Train, files: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = train().path, tmp_path / "a.csv"
    with monkeypatch.context() as patch:
        patch.setattr("firstlight.files._failpoint", Failpoint("ENOSPC:from:5:a.csv.part"))
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            fl.predict(run, [files], out=out)
    part = tmp_path / "a.csv.part"
    assert part.stat().st_size >= 500 * 40 and not out.exists()
    if change == "an image":
        Image.new("L", (8, 8)).save(files / "0000.bmp")
    elif change == "the network":
        config = run / "config.yaml"
        config.write_text(config.read_text() + "\n")
    elif change == "zeros":
        part.write_bytes(bytes(part.stat().st_size))
    fl.predict(run, [files], out=out, console=Console())
    assert ("going on behind 1,000 of" in capsys.readouterr().err) is (change == "nothing")
    fl.predict(run, [files], out=tmp_path / "again.csv")
    assert out.read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_a_csv_of_pixels_is_read_in_pieces(tmp_path: Path) -> None:
    """E8: the form of Kaggle's test.csv, wherever it lies; the same answers as the run's own unlabelled part."""
    generator, names = np.random.default_rng(0), [f"pixel{number}" for number in range(784)]
    (tmp_path / "digit-recognizer").mkdir()
    for part, num in (("train", 60), ("test", 1100)):
        table = generator.integers(0, 256, (num, 784)).tolist()
        head, rows = (["label", *names], [[place % 10, *row] for place, row in enumerate(table)]) if part == "train" else (names, table)
        with (tmp_path / "digit-recognizer" / f"{part}.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows([head, *rows])
    places: dict[str, Any] = {"runs_dir": tmp_path / "runs", "data_dir": tmp_path}
    settings = ["data=kaggle_digits", "model=linear", "input.image_size=14", "train.epochs=1", "train.test_at_end=false", "device.name=cpu"]
    fl.train("quickstart", *settings, name="k", **places)
    whole = fl.predict("k", **places)
    rows = fl.predict("k", [tmp_path / "digit-recognizer" / "test.csv"], out=tmp_path / "a.csv", **places)
    assert np.abs(whole.probabilities - rows.probabilities).max() < 1e-5 and len(rows) == 1100
    assert rows[7]["image"].endswith("test.csv[7]")
    with pytest.raises(ConfigError, match=r"CSV of pixels and stands beside other images; name it alone"):
        fl.predict("k", [tmp_path / "digit-recognizer" / "test.csv", tmp_path], **places)
    (tmp_path / "empty.csv").write_text(",".join(names) + "\n")
    with pytest.raises(DataError, match="has no rows"):
        fl.predict("k", [tmp_path / "empty.csv"], **places)
    with pytest.raises(DataError, match=r"cannot read .*nowhere.csv"):
        fl.predict("k", [tmp_path / "nowhere.csv"], **places)


MEMORY = """
import resource, sys
import firstlight as fl
fl.predict(sys.argv[1], [sys.argv[2]] * int(sys.argv[3]), out=sys.argv[4], top=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_images(train: Train, tmp_path: Path) -> None:
    """D11: 4,500 more images of 128 x 128 would be 70 MiB; the peak of the process grows by a third of that at most."""
    run = train("input.image_size=128", "train.epochs=1").path
    Image.new("L", (128, 128), 90).save(tmp_path / "a.bmp")
    peaks = []
    for num in (500, 5000):
        words = [sys.executable, "-c", MEMORY, str(run), str(tmp_path / "a.bmp"), str(num), str(tmp_path / f"{num}.npy")]
        peaks.append(int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1024)
        assert len(np.load(tmp_path / f"{num}.npy")) == num
    assert peaks[1] - peaks[0] < 24, peaks


@pytest.mark.parametrize(
    ("words", "says"), [({"top": 0}, "--top is 0; allowed: 1 to 10"), ({"out": "a.xls"}, r"ends in none of \.csv, .*; name")]
)
def test_wrong_words(train: Train, files: Path, words: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fl.predict(train().path, [files], **words)
