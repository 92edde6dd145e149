"""Image folders and archives: layout, decoding, the cache, and what is refused."""

import io
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from firstlight.data import archive as archives
from firstlight.data.check import check_images
from firstlight.data.folder import _checksum, load_folder
from firstlight.data.training_data import part_training_data
from firstlight.errors import DataError

ROOT = Path(__file__).parents[2]
Files = dict[str, bytes]


@cache
def image(value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 10, 20)).save(buffer, kind)
    return buffer.getvalue()


def photo(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


PARTED: Files = {
    "train/cat/1.png": image(1),
    "train/cat/2.png": image(2),
    "train/dog/deep/3.png": image(3),
    "test/dog/4.png": image(4),
    "val/dog/5.png": b"not read",
    "train/cat/notes.txt": b"not an image",
    "train/.DS_Store": b"",
}


def to_directory(files: Files, folder: Path) -> Path:
    for name, content in files.items():
        (folder / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pets" / name).write_bytes(content)
    return folder / "pets"


def to_tar(files: Files, folder: Path, name: str = "pets.tar") -> Path:
    with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
        for member_name, content in files.items():
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder / name


def to_tgz(files: Files, folder: Path) -> Path:
    return to_tar(files, folder, "pets.tgz")


def to_wrapped_tar_gz(files: Files, folder: Path) -> Path:
    return to_tar({f"./pets/{name}": content for name, content in files.items()}, folder, "pets.tar.gz")


def to_zip(files: Files, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "pets.zip", "w", zipfile.ZIP_DEFLATED) as handle:
        for name, content in files.items():
            handle.writestr(name, content)
    return folder / "pets.zip"


@pytest.fixture(autouse=True)
def folder_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


@pytest.mark.parametrize("pack", [to_directory, to_tar, to_tgz, to_wrapped_tar_gz, to_zip])
def test_train_and_test_folders(tmp_path: Path, pack: Callable[[Files, Path], Path]):
    """The same images from each container; twice, the second time from the cache."""
    path = pack(PARTED, tmp_path)
    for _ in range(2):
        train, test = (load_folder(part, tmp_path, path=path.name) for part in ("train", "test"))
        assert train.images[:, 0, 0, 0].tolist() == [1, 2, 3]
        assert train.images.shape == (3, 3, 4, 6)
        assert train.labels.tolist() == [0, 0, 1]
        assert (test.images[:, 0, 0, 0].tolist(), test.labels.tolist()) == ([4], [1])
        assert train.class_names == test.class_names == ("cat", "dog")
        assert [Path(name).as_posix().rpartition("train/")[2] for name in train.names] == ["cat/1.png", "cat/2.png", "dog/deep/3.png"]
        assert train.subset(torch.tensor([2, 0])).names == (train.names[2], train.names[0])
        assert train.source == f"{path.name} (3 training images, val/ unused)"


def test_loading_train_reads_no_test_file(tmp_path: Path):
    """F4: a test image that cannot be decoded does not disturb the training part."""
    path = to_zip(PARTED | {"test/dog/4.png": b"broken"}, tmp_path)
    assert len(load_folder("train", tmp_path, path=str(path))) == 3
    with pytest.raises(DataError, match=r"test/dog/4.png: no image .*firstlight data check"):
        load_folder("test", tmp_path, path=str(path))


def test_one_folder_is_split(tmp_path: Path):
    files = {f"{name}/{number}.png": image(number + shift) for name, shift in (("a", 0), ("b", 100)) for number in range(10)}
    path = to_directory(files, tmp_path)
    train, test = (load_folder(part, tmp_path, path=str(path), test_fraction=0.3) for part in ("train", "test"))
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([7, 7], [3, 3])
    values = [value for part in (train, test) for value in part.images[:, 0, 0, 0].tolist()]
    assert sorted(values) == [*range(10), *range(100, 110)]
    assert train.source == "pets (14 training images, 30% held out to test)"


def test_grey_is_decided_by_the_training_images(tmp_path: Path):
    files = {"train/a/1.png": image(7, mode="L"), "train/b/2.png": image(9, mode="L"), "test/a/3.png": image(255)}
    path = to_zip(files, tmp_path)
    assert load_folder("train", tmp_path, path=str(path)).images[:, :, 0, 0].tolist() == [[7], [9]]
    assert load_folder("test", tmp_path, path=str(path)).images.shape == (1, 1, 4, 6)


def test_sizes_must_agree_or_be_resized(tmp_path: Path):
    path = to_zip({"a/1.png": image(1), "a/2.png": image(2, (9, 9)), "b/3.png": image(3)}, tmp_path)
    message = r"a/1.png has 6 x 4 pixels and a/2.png 9 x 9; resize all with data.image_size=64"
    with pytest.raises(DataError, match=message):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0)
    resized = load_folder("train", tmp_path, path=str(path), test_fraction=0.0, image_size=5)
    assert resized.images.shape == (3, 3, 5, 5)
    assert resized.images[:, 0, 2, 2].tolist() == [1, 2, 3]


def test_cache_follows_the_content_and_mends_itself(tmp_path: Path, folder_cache: Path):
    """Fault 43: damaged pixels and other facts are made again; a changed folder replaces its entry, so that nothing piles up."""
    path = to_directory(PARTED, tmp_path)
    load_folder("train", tmp_path, path=str(path))
    (pixels,) = folder_cache.glob("*/pixels.bin")
    whole = pixels.read_bytes()
    for damaged in (whole[:-1] + b"\0", whole[:-1], whole + b"\0", b""):
        pixels.write_bytes(damaged)
        assert load_folder("train", tmp_path, path=str(path)).images[2, 2, 3, 5] == 20
    for facts in ("", "[]", "{}", '{"content": 1}'):
        (pixels.parent / "facts.json").write_text(facts)
        assert load_folder("train", tmp_path, path=str(path)).images[2, 2, 3, 5] == 20
    (path / "train/dog/deep/3.png").write_bytes(image(33))
    os.utime(path / "train/dog/deep/3.png", ns=(1, 1))
    assert load_folder("train", tmp_path, path=str(path)).images[2, 0, 0, 0] == 33
    assert list(folder_cache.glob("*/pixels.bin")) == [pixels]


LOAD = """
import sys, os, hashlib
from pathlib import Path
from firstlight.data import folder
if sys.argv[2] == "kill":
    folder.write_json = lambda path, facts: os.kill(os.getpid(), 9)
if sys.argv[2] == "kill while writing":
    folder._chunks = lambda images: (os.kill(os.getpid(), 9) if number else b"half" for number in range(2))
decode = folder.decode_images
folder.decode_images = lambda *args, **words: print("decodes", flush=True) or (sys.argv[2] == "wait" and input()) or decode(*args, **words)
print(folder.load_folder("train", Path(), path=sys.argv[1]).images.sum().item())
"""


def loading(path: Path, what: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", LOAD, str(path), what]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("when", ["kill", "kill while writing"])
def test_a_process_that_is_killed_leaves_no_half_cache(tmp_path: Path, folder_cache: Path, when: str):
    """Fault 43: kill -9 between the two files of an entry, and in the midst of one."""
    path = to_zip(PARTED, tmp_path)
    with loading(path, when) as process:
        process.communicate()
    assert process.returncode == -9
    assert not list(folder_cache.glob("*/facts.json"))
    assert load_folder("train", tmp_path, path=str(path)).images[:, 0, 0, 0].tolist() == [1, 2, 3]
    (entry,) = (path for path in folder_cache.iterdir() if path.is_dir())
    assert sorted(path.name for path in entry.iterdir()) == ["facts.json", "pixels.bin"]


def test_a_second_process_waits_and_takes_what_the_first_decoded(tmp_path: Path):
    """Fault 43: one of the two decodes."""
    path = to_zip(PARTED, tmp_path)
    with loading(path, "wait") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "decodes\n"
        with loading(path, "") as second:
            total = first.communicate("\n")[0]
            assert second.communicate()[0] == total
    assert int(total) == 3 * 4 * 6 * (2 + 10 + 20)


def test_a_folder_that_changes_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fault 43: no row is left with what lay in memory."""
    monkeypatch.setattr(archives.DirectoryArchive, "read", lambda self, names: iter([("train/cat/1.png", image(1))]))
    with pytest.raises(DataError, match="changed while it was read: 2 of 3 images were gone"):
        load_folder("train", tmp_path, path=str(to_directory(PARTED, tmp_path)))


def test_a_truncated_photo_is_named(tmp_path: Path):
    """Fault 30: Pillow's verify() accepts this one."""
    broken = photo()[:-300]
    Image.open(io.BytesIO(broken)).verify()
    path = to_zip({"a/1.jpg": photo(), "a/2.jpg": broken, "b/3.jpg": photo()}, tmp_path)
    with pytest.raises(DataError, match=r"pets.zip: a/2.jpg: damaged image \(.*truncated"):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0)


def many(num: int, bad: dict[int, bytes]) -> Files:
    """Return images of two classes whose red is their number; those in `bad` hold something else."""
    return {f"{'ab'[2 * row // num]}/{row:04}.png": bad.get(row, image(row % 256)) for row in range(num)}


def test_a_bad_image_stops_the_training_by_name_and_number(tmp_path: Path):
    """Fault 30: name, number and reason, and what to do."""
    path = to_zip(many(8, {5: b"broken"}), tmp_path)
    expected = (
        r"pets.zip: b/0005.png: no image .* \(number 5 of the training images, from 0\); `firstlight data check .*=skip replaces up to 1$"
    )
    with pytest.raises(DataError, match=expected):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0)


@pytest.mark.parametrize("pack", [to_directory, to_zip])
def test_a_skipped_image_is_replaced_by_the_next_of_its_class(tmp_path: Path, pack: Callable[[Files, Path], Path]):
    """Fault 30: the same one each time, counted, said, and no file of the user's is touched. The last goes round to the first."""
    path = pack(many(2000, {999: photo()[:-300], 1500: b"broken"}), tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for _ in range(2):  # the second time from the cache
        train = load_folder("train", tmp_path, path=str(path), test_fraction=0.0, bad_images="skip")
        assert train.images[[999, 1500], 0, 0, 0].tolist() == [0, 1501 % 256]
        assert train.images[[998, 1499, 1501], 0, 0, 0].tolist() == [998 % 256, 1499 % 256, 1501 % 256]
        assert train.labels.tolist() == [0] * 1000 + [1] * 1000
        assert [train.names[index] for index in (998, 999, 1500)] == ["a/0998.png", "a/0000.png", "b/1501.png"]
        assert train.source.endswith("(2,000 training images, 0% held out to test, 2 bad replaced)")
    (warning,) = part_training_data(train, val_fraction=0.0, split_seed=0, num_train=None, normalize=False).warnings
    assert warning.startswith("2 of 2,000 training images are bad, replaced by others of their class: a/0999.png: damaged image")
    assert all(file.read_bytes() == content for file, content in before.items())


@pytest.mark.parametrize(("num", "bad", "message"), [(8, (1, 2), "more than 1 of 8"), (2000, (1, 2, 3), "more than 2 of 2,000")])
def test_more_than_one_in_a_thousand_is_not_skipped(tmp_path: Path, num: int, bad: tuple[int, ...], message: str):
    """Fault 30: the cap, and one is always borne."""
    path = to_zip(many(num, dict.fromkeys(bad, b"broken")), tmp_path)
    with pytest.raises(DataError, match=rf"{message} training images are bad, the last one a/000{bad[-1]}.png.*firstlight data check"):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0, bad_images="skip")


def test_a_class_without_a_good_image_and_a_folder_without_one(tmp_path: Path):
    """Fault 30."""
    path = to_zip({"a/1.png": b"broken", "b/2.png": image(2)}, tmp_path)
    with pytest.raises(DataError, match=r"a/1.png: no image .*; its class has no good training image to take its place"):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0, bad_images="skip")
    path = to_zip({"a/1.png": b"broken", "b/2.png": b""}, tmp_path)
    with pytest.raises(DataError, match=r"no training image decodes, the first: a/1.png: no image"):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0, bad_images="skip")


def test_check_sees_the_same_pixels_in_another_format(tmp_path: Path):
    """Fault 33: a copy that was saved again is still the same image."""
    files = {
        "train/a/1.png": image(1),
        "train/b/2.png": image(2),
        "test/a/3.bmp": image(1, kind="BMP"),
        "test/b/4.bmp": image(4, kind="BMP"),
    }
    assert check_images(to_zip(files, tmp_path)) == [("test/a/3.bmp", "the same pixels as train/a/1.png, which is a training image")]


def test_check_lists_every_finding(tmp_path: Path):
    """Faults 30 and 33."""
    files = {
        "train/a/1.jpg": photo(),
        "train/a/2.jpg": photo()[:-300],
        "train/b/3.jpg": b"",
        "train/b/4.jpg": photo((32, 32)),
        "test/a/5.jpg": photo(),
    }
    seen = []
    findings = dict(check_images(to_zip(files, tmp_path), progress=lambda done, total: seen.append((done, total))))
    assert set(findings) == {"train/a/2.jpg", "train/b/3.jpg", "train/b/4.jpg", "b", "test/a/5.jpg"}
    assert findings["train/b/4.jpg"].startswith("32 x 32 pixels where 2 images have 64 x 64")
    assert findings["b"] == "has training images and no test images"
    assert findings["test/a/5.jpg"] == "the same pixels as train/a/1.jpg, which is a training image"
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": image(1)}, "holds no class folders with images"),
        ({"a/readme.txt": b""}, "holds no class folders with images"),
        ({"train/a/1.png": image(1), "test/b/2.png": image(2)}, r"'test/b/2.png' is of a class that train/ does not have"),
        ({"train/a/1.png": image(1), "test/x.txt": b""}, "/test/ holds no class folders"),
        ({"a/1.png": image(1), "../../b/2.png": image(2)}, "leads out of the archive"),
        ({"a/1.png": image(1), "/b/2.png": image(2)}, "leads out of the archive"),
    ],
)
@pytest.mark.parametrize("pack", [to_tar, to_tgz, to_zip])
def test_refused_layouts(tmp_path: Path, files: Files, message: str, pack: Callable[[Files, Path], Path]):
    """Fault 42."""
    with pytest.raises(DataError, match=message):
        load_folder("train", tmp_path, path=str(pack(files, tmp_path)))


def test_an_empty_class_folder_is_named(tmp_path: Path):
    """Fault 33."""
    path = to_directory({"a/1.png": image(1)}, tmp_path)
    (path / "b").mkdir()
    with pytest.raises(DataError, match="the class folder 'b' holds no images"):
        load_folder("train", tmp_path, path=str(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes):
    """Fault 42."""
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        member = tarfile.TarInfo("a/1.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match=r"'a/1.png' is a link or a device"):
        load_folder("train", tmp_path, path="pets.tar")


@pytest.mark.parametrize("kind", [0o120, 0o020, 0o060, 0o010])
def test_what_is_no_file_in_a_zip_is_refused(tmp_path: Path, kind: int):
    """Fault 42: a link, two kinds of device, a pipe."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as handle:
        member = zipfile.ZipInfo("a/1.png")
        member.external_attr = (kind << 25) | (0o777 << 16)
        handle.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=r"'a/1.png' is a link or a device"):
        load_folder("train", tmp_path, path="pets.zip")


def test_pipes_sockets_and_devices_in_a_folder_are_refused(tmp_path: Path):
    """Fault 42: to read the pipe would wait for ever, the device would never end."""
    path = to_directory({"a/1.png": image(1), "b/2.png": image(2)}, tmp_path)
    odd = path / "b" / "3.png"
    with socket.socket(socket.AF_UNIX) as listening:
        for make in (lambda: os.mkfifo(odd), lambda: odd.symlink_to("/dev/zero"), lambda: listening.bind(str(odd))):
            make()
            with pytest.raises(DataError, match=r"'b/3.png' is a link or a device"):
                load_folder("train", tmp_path, path=str(path), test_fraction=0.0)
            odd.unlink()


def test_sparse_files_in_a_tar_are_refused(tmp_path: Path):
    """Fault 42: 1 kB that reads as 200 MB of zeros, which no ratio of packed to unpacked bytes would show."""
    with tarfile.open(tmp_path / "pets.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("GNUSparseFile.0/1.png")
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a/1.png", "GNU.sparse.realsize": str(200 << 20)}
        member.pax_headers, member.size = sparse, 512
        tar.addfile(member, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    with pytest.raises(DataError, match=r"'a/1.png' is a link or a device"):
        load_folder("train", tmp_path, path="pets.tar")


@pytest.mark.parametrize("pack", [to_tgz, to_zip])
def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[Files, Path], Path]):
    """Fault 42."""
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 1 << 20)
    path = pack({f"a/{number}.bmp": bytes(1 << 20) for number in range(8)}, tmp_path)
    with pytest.raises(DataError, match="unpacks to more than 500 times its size"):
        load_folder("train", tmp_path, path=str(path))


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fault 42."""
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    for pack in (to_directory, to_tar, to_zip):
        with pytest.raises(DataError, match="holds more than 3 files"):
            load_folder("train", tmp_path, path=str(pack(PARTED, tmp_path)))


@pytest.mark.parametrize("name", ["pets.tar.gz", "pets.tar", "pets.zip"])
def test_broken_archives_are_named(tmp_path: Path, name: str):
    whole = to_tar({"a/1.png": os.urandom(30_000)}, tmp_path, "whole.tar.gz").read_bytes()
    for content in (b"<html>not found</html>", whole[:20_000]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is not a whole archive"):
            load_folder("train", tmp_path, path=name)


def test_other_paths_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"'pets' is missing \(looked in .*correct data.path"):
        load_folder("train", tmp_path, path="pets")
    (tmp_path / "pets.rar").write_bytes(b"")
    with pytest.raises(DataError, match=r"neither a folder nor a .tar"):
        load_folder("train", tmp_path, path="pets.rar")
    path = to_zip({"a/1.png": image(1), "b/2.png": image(2)}, tmp_path)
    with pytest.raises(DataError, match="has no test part with test_fraction=0"):
        load_folder("test", tmp_path, path=str(path), test_fraction=0.0)


def test_sizes_without_a_usual_one_are_counted(tmp_path: Path) -> None:
    for index in range(4):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + index, 9)).save(path)
    assert "pixels, one of 4 sizes among 4 images; data.image_size=64 resizes all" in str(check_images(tmp_path / "photos", one_size=True))


def test_the_checksum_of_the_cache_notices_any_byte_and_any_swap():
    """Fault 43: one bit anywhere, also in the odd rest behind the last full row, and two rows that changed places."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 3, 33, 31), dtype=np.uint8)
    whole = _checksum(pixels)
    flat = pixels.reshape(-1)
    for place in (0, 8191, 8192, 16383, flat.size - 1):
        flat[place] ^= 128
        assert _checksum(pixels) != whole
        flat[place] ^= 128
    for size in (1, 8, 8192):
        swapped = flat.copy()
        swapped[:size], swapped[size : 2 * size] = flat[size : 2 * size], flat[:size]
        assert _checksum(swapped) != whole
    assert _checksum(pixels.copy()) == whole
    assert _checksum(np.zeros(100, np.uint8)) == _checksum(np.zeros(100, np.uint8))
