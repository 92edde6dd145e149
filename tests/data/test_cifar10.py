"""CIFAR-10 in its three forms."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from firstlight.data.cifar10 import CLASS_NAMES, load_cifar10
from firstlight.data.cifar_batches import read_batch
from firstlight.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3072), dtype=np.uint8)
LABELS = [6, 9, 9, 4, 1, 1, 2]
FOLDER = "cifar-10-batches-bin"


def binary(pixels: np.ndarray = PIXELS, labels: list[int] = LABELS) -> bytes:
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


def python2_pickle(pixels: np.ndarray = PIXELS, labels: list[int] = LABELS, order: bytes = b"\x89") -> bytes:
    """The instructions that Python 2's cPickle wrote into the published batches."""
    number = b"".join(b"K" + bytes([label]) for label in labels)
    shape = b"M" + len(pixels).to_bytes(2, "little") + b"M\x00\x0c\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08"
    dtype = b"cnumpy\ndtype\nq\x09U\x02u1K\x00K\x01\x87Rq\x0a(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = b"T" + pixels.nbytes.to_bytes(4, "little") + pixels.tobytes()
    head = b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(" + number
    return head + b"eU\x04dataq\x0b" + array + b"(K\x01" + shape + dtype + order + data + b"tbU\x09filenamesq\x0c]q\x0du."


def write_binary(folder: Path) -> None:
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(binary())


def test_the_hand_made_pickle_is_one():
    """The oracle: Python's own unpickler reads our imitation of a batch."""
    content = pickle.loads(python2_pickle(), encoding="latin1")
    assert (content["data"] == PIXELS).all()
    assert content["labels"] == LABELS


def test_binary_folder_without_its_test_batch(tmp_path: Path):
    """B7 and F4."""
    write_binary(tmp_path / FOLDER)
    train = load_cifar10("train", tmp_path)
    assert train.images.shape == (35, 3, 32, 32)
    assert (train.images[8].flatten().numpy() == PIXELS[1]).all()
    assert train.labels.tolist() == LABELS * 5
    assert (train.class_names, train.source) == (CLASS_NAMES, "CIFAR-10 (35 training images)")
    with pytest.raises(DataError, match=r"test_batch.bin is missing"):
        load_cifar10("test", tmp_path)


def test_binary_tar(tmp_path: Path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(f"{FOLDER}/test_batch.bin")
        member.size = len(binary())
        tar.addfile(member, io.BytesIO(binary()))
    assert load_cifar10("test", tmp_path).labels.tolist() == LABELS
    with pytest.raises(DataError, match=r"holds no cifar-10-batches-bin/data_batch_1.bin"):
        load_cifar10("train", tmp_path)


def test_torchvision_folder(tmp_path: Path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(python2_pickle())
    test = load_cifar10("test", tmp_path)
    assert (test.images.flatten(1).numpy() == PIXELS).all()
    assert test.labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle()[:-5000], "no batch of CIFAR-10's python version"),
        (python2_pickle(labels=LABELS[:6]), "6 labels and no array of as many"),
        (python2_pickle(labels=[10, *LABELS[1:]]), "label outside 0..9"),
        (python2_pickle(order=b"\x88"), "does not lay its images out"),
        (b"<html></html>", "no batch"),
        (pickle.dumps({"data": 1}, protocol=2), "no key 'labels'"),
        (b"N" * 200_001 + b".", "more than 200,000 instructions"),
        (b"\x80\x02}(U\x06labels]u.", "0 labels"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_batch(path)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path):
    """FAULTS 18: a pickle that would create a file when it is loaded."""

    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"labels": [1], "data": Hostile()}, protocol=2))
    with pytest.raises(DataError):
        read_batch(path)
    assert not (tmp_path / "owned").exists()


def test_a_full_batch_must_be_the_published_one(tmp_path: Path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(python2_pickle(np.zeros((10_000, 3072), np.uint8), [0] * 10_000))
    assert hashlib.md5(path.read_bytes()).hexdigest() != "c99cafc152244af753f735de768cd75f"
    with pytest.raises(DataError, match="md5 is not that of the published file"):
        read_batch(path)


@pytest.mark.parametrize(
    ("content", "message"), [(binary()[:-1], "no multiple of 3,073"), (b"", "0 bytes"), (binary(labels=[11] * 7), "row 0 of labels: 11")]
)
def test_damaged_binary_is_refused(tmp_path: Path, content: bytes, message: str):
    write_binary(tmp_path / FOLDER)
    (tmp_path / FOLDER / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.bin is damaged: .*{message}"):
        load_cifar10("train", tmp_path)


def test_nothing_there(tmp_path: Path):
    with pytest.raises(DataError, match=r"cifar10-jpeg.tar.gz is missing .*firstlight data fetch cifar10"):
        load_cifar10("train", tmp_path)


@pytest.mark.soak
def test_jpeg_copy(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Takes 8 seconds: 10,000 JPEGs out of a .tar.gz of 60,000."""
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path))
    test = load_cifar10("test", shared_data)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert (test.class_names, test.source) == (CLASS_NAMES, "CIFAR-10 (JPEG copy, 10,000 test images)")
