"""Image folders and archives: layout, decoding, the cache, and what is refused."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firstlight.data import archive as archives
from firstlight.data.check import check_images
from firstlight.data.folder import load_folder
from firstlight.errors import DataError

Files = dict[str, bytes]


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
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


def test_cache_follows_the_content_and_mends_itself(tmp_path: Path, cache: Path):
    """FAULTS 43: a half cache is made again."""
    path = to_directory(PARTED, tmp_path)
    load_folder("train", tmp_path, path=str(path))
    (array,) = cache.glob("*.npy")
    damaged = bytearray(array.read_bytes())
    damaged[-1] ^= 255
    array.write_bytes(damaged)
    assert load_folder("train", tmp_path, path=str(path)).images[2, 2, 3, 5] == 20
    (path / "train/dog/deep/3.png").write_bytes(image(33))
    os.utime(path / "train/dog/deep/3.png", ns=(1, 1))
    assert load_folder("train", tmp_path, path=str(path)).images[2, 0, 0, 0] == 33
    assert len(list(cache.glob("*.npy"))) == 2


def test_a_truncated_photo_is_named(tmp_path: Path):
    """FAULTS 30: Pillow's verify() accepts this one."""
    broken = photo()[:-300]
    Image.open(io.BytesIO(broken)).verify()
    path = to_zip({"a/1.jpg": photo(), "a/2.jpg": broken, "b/3.jpg": photo()}, tmp_path)
    with pytest.raises(DataError, match=r"pets.zip: a/2.jpg: damaged image \(.*truncated"):
        load_folder("train", tmp_path, path=str(path), test_fraction=0.0)


def test_check_lists_every_finding(tmp_path: Path):
    """FAULTS 30 and 33."""
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
    assert findings["test/a/5.jpg"] == "the same file as train/a/1.jpg, which is a training image"
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
    """FAULTS 42."""
    with pytest.raises(DataError, match=message):
        load_folder("train", tmp_path, path=str(pack(files, tmp_path)))


def test_an_empty_class_folder_is_named(tmp_path: Path):
    """FAULTS 33."""
    path = to_directory({"a/1.png": image(1)}, tmp_path)
    (path / "b").mkdir()
    with pytest.raises(DataError, match="the class folder 'b' holds no images"):
        load_folder("train", tmp_path, path=str(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes):
    """FAULTS 42."""
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        member = tarfile.TarInfo("a/1.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match=r"'a/1.png' is a link or a device"):
        load_folder("train", tmp_path, path="pets.tar")


def test_links_in_a_zip_are_refused(tmp_path: Path):
    """FAULTS 42."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as handle:
        member = zipfile.ZipInfo("a/1.png")
        member.external_attr = 0o120777 << 16
        handle.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=r"'a/1.png' is a link"):
        load_folder("train", tmp_path, path="pets.zip")


@pytest.mark.parametrize("pack", [to_tgz, to_zip])
def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[Files, Path], Path]):
    """FAULTS 42."""
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 1 << 20)
    path = pack({f"a/{number}.bmp": bytes(1 << 20) for number in range(8)}, tmp_path)
    with pytest.raises(DataError, match="unpacks to more than 500 times its size"):
        load_folder("train", tmp_path, path=str(path))


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """FAULTS 42."""
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
