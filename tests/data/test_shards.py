"""Images in tar shards and Parquet files through the streamed loader, against the list that they were made from."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstlight.data import shard_sources, stored
from firstlight.data.augment import Augment
from firstlight.data.augment_reference import reference_augment
from firstlight.data.dataset import Dataset
from firstlight.data.decode import decode_image
from firstlight.data.loader import Batch
from firstlight.data.normalize import Normalize
from firstlight.data.shard_sources import load_parquet, load_webdataset
from firstlight.data.stored_check import check_parts
from firstlight.data.streaming import StreamLoader
from firstlight.errors import DataError
from firstlight.files import cache_dir
from tests.data.made_shards import (
    NAMES,
    NUM,
    encoded,
    files_of,
    labels_of,
    make_parquets,
    make_tars,
    pixels_of,
    table_of,
    write_parquet,
    write_tar,
)

NORMALIZE = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
BATCH, ROW = 32, 9 * 10 * 3
KINDS = ("webdataset", "parquet", "parquet, plain columns", "parquet, one group", "parquet, single rows")
LOAD = {"webdataset": load_webdataset, "parquet": load_parquet}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blocks of about 40 images, so that small shards have many; a cache that nobody else has."""
    monkeypatch.setattr(stored, "BLOCK_BYTES", 40 * ROW)
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images in every kind of shards."""
    folder = tmp_path_factory.mktemp("shards")
    how: dict[str, dict[str, Any]] = {"parquet": {}, "parquet, plain columns": {"plain": True}, "parquet, one group": {"rows": 1000}}
    made = {kind: make_parquets(folder / kind, **settings) for kind, settings in (how | {"parquet, single rows": {"rows": 1}}).items()}
    (made["parquet, plain columns"] / "class-names.json").write_text(str(NAMES).replace("'", '"'))
    return made | {"webdataset": make_tars(folder / "webdataset")}


def load(path: Path, part: str = "train", *, buffer: int = 140, **settings: Any) -> Dataset:
    """Return a part that is streamed through a buffer for so many images."""
    kind = "parquet" if "parquet" in path.name else "webdataset"
    dataset = LOAD[kind](part, Path(), path=str(path), stream="on", **settings)
    dataset.images.buffer_bytes = buffer * ROW  # type: ignore[union-attr]
    return dataset


def loader_of(dataset: Dataset, **settings: Any) -> StreamLoader:
    return StreamLoader(dataset, **{"batch_size": BATCH, "seed": 3, "normalize": NORMALIZE, "shuffle": True, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_what_it_was_made_from(made: dict[str, Path], kind: str) -> None:
    """Issue 7: pixels to the bit, labels, names of the classes; a test part whose labels nobody has."""
    for seed, (part, num) in enumerate((("train", NUM), ("val", NUM // 5), ("test", 7))):
        dataset = load(made[kind], part)
        assert torch.equal(dataset.images.whole(), torch.from_numpy(pixels_of(num, seed)).permute(0, 3, 1, 2))
        assert dataset.labels is None if part == "test" else dataset.labels.tolist() == labels_of(num)
        assert dataset.class_names == tuple(NAMES)
    assert "300 training images in 4" in load(made[kind]).source


@pytest.mark.parametrize("kind", KINDS)
def test_batches_have_the_bits_of_the_plain_way(made: dict[str, Path], kind: str) -> None:
    """Issue 7: every image once an epoch, augmented as anywhere else."""
    pixels, augment = torch.from_numpy(pixels_of(NUM)).permute(0, 3, 1, 2), Augment(flip=True, crop=2)
    batches = list(loader_of(load(made[kind]), augment=augment).batches(1))
    drawn = torch.cat([batch.indices for batch in batches]).tolist()
    assert sorted(drawn) == list(range(NUM)) and drawn != sorted(drawn)
    made_plainly = [reference_augment(pixels[row], row, epoch=1, seed=3, augment=augment, normalize=NORMALIZE) for row in drawn]
    for batch, expected in zip(batches, torch.stack(made_plainly).split(BATCH), strict=True):
        assert torch.equal(batch.images, expected)
        assert batch.labels.tolist() == [labels_of(NUM)[row] for row in batch.indices.tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_goes_on_from_any_batch_to_the_same_bits(made: dict[str, Path], kind: str) -> None:
    """F3, fault 1: the position in the data is two integers here too."""
    loader = loader_of(load(made[kind]), augment=Augment(crop=1))
    whole = list(loader.batches(4))
    for start in (1, 3, 9):
        rest = [Batch(batch.images.clone(), batch.labels, batch.indices) for batch in loader.batches(4, start, reuse_buffers=True)]
        assert all(
            torch.equal(one, two) for some, other in zip(rest, whole[start:], strict=True) for one, two in zip(some, other, strict=True)
        )
    assert loader.order(0).tolist() != loader.order(1).tolist() == loader.order(1).tolist()


def test_tars_and_hdf5_come_in_one_order(made: dict[str, Path], tmp_path: Path) -> None:
    """The order is a function of (seed, epoch) and of the blocks: of tars, whose images are read one by one, that of an HDF5 file."""
    from firstlight.data.hdf5 import load_hdf5
    from tests.data.hdf5_files import make_file

    file = load_hdf5("train", Path(), path=str(make_file(tmp_path / "a.h5")), stream="on")
    file.images.buffer_bytes = 140 * ROW  # type: ignore[union-attr]
    assert loader_of(load(made["webdataset"])).order(2).tolist() == loader_of(file).order(2).tolist()


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_subset_in_any_order(made: dict[str, Path], kind: str) -> None:
    """Validation that is carved out has gaps, and a subset may come in any order and hold an image twice."""
    chosen = [299, 3, 3, 200, 0, 41, 40, 39, 250]
    images = load(made[kind]).subset(torch.tensor(chosen)).images
    expected = torch.from_numpy(pixels_of(NUM)).permute(0, 3, 1, 2)[chosen]
    assert torch.equal(images.whole(), expected) and torch.equal(images[2], expected[2]) and torch.equal(images[1:3], expected[1:3])
    assert torch.equal(torch.cat(list(images.split(4))), expected)


def test_row_groups_are_mixed_whole_and_small_ones_together(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is read as a whole, so its images stay together in the order of blocks; groups of one image are joined up to a block."""
    sizes = {kind: set(np.diff(loader_of(load(made[kind]))._firsts).tolist()) for kind in KINDS[1:]}
    assert sizes["parquet"] == {40, 35} and sizes["parquet, single rows"] == {40, 35} and sizes["parquet, one group"] == {75}
    assert load(made["parquet, one group"]).warnings == ()
    monkeypatch.setattr(shard_sources, "FEW_BLOCKS", 40)
    (line,) = load(made["parquet, one group"], buffer_mib=1).warnings
    assert line.startswith("a row group has up to 75 images, and 1,941 are shuffled at a time")


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(made: dict[str, Path], threads: int) -> None:
    images = load(made["webdataset"]).images
    images.file.num_threads = threads  # type: ignore[union-attr]
    assert torch.equal(images.whole(), torch.from_numpy(pixels_of(NUM)).permute(0, 3, 1, 2))


def changed_tar(folder: Path, change: Any) -> Path:
    """Write three tars of four images and let `change` edit the members of the second."""
    for shard in range(3):
        files = files_of(pixels_of(4, shard), labels_of(4), 4 * shard)
        write_tar(folder / f"train-{shard:03}.tar", (change(files) or files) if shard == 1 else files)
    return folder


def swap(place: int, name: str | None = None, content: bytes | None = None) -> Any:
    """Return a change of one member."""

    def change(files: Any) -> None:
        old_name, old = files[place]
        files[place] = (old_name if name is None else name, old if content is None else content)

    return change


def drop(place: int) -> Any:
    """Return a change that leaves one member out."""
    return lambda files: files[:place] + files[place + 1 :]


BIG = encoded(pixels_of(1, shape=(12, 10, 3))[0])
TAR_FAULTS: dict[str, tuple[Any, str, bool]] = {
    "no label": (drop(3), r"train-001\.tar: '000005\.png' has no label \(1 of 12 images have none\)", False),
    "no image": (drop(2), r"the sample '000005' has \.cls and no image", False),
    "text label": (swap(3, content=b"cat"), r"000005\.cls is 'cat', which is no whole number", False),
    "float label": (swap(3, content=b"1.5"), r"000005\.cls is '1\.5', which is no whole number", False),
    "label out of range": (swap(3, content=b"7"), r"'000005\.png': label 7, allowed 0\.\.4 \(1 such images\)", False),
    "negative label": (swap(3, content=b"-2"), r"'000005\.png': label -2, allowed 0\.\.4", False),
    "doubled stem": (lambda files: files + files[:2], "the files of '000004' do not lie together, or its name is there twice", False),
    "two images": (swap(3, name="000005.jpg"), r"two images, '000005\.png' and '000005\.jpg'; name one with data\.images_key", False),
    "leads out": (swap(2, name="../../etc/x.png"), r"the name '\.\./\.\./etc/x\.png' leads out of the archive", False),
    "absolute": (swap(2, name="/etc/x.png"), "leads out of the archive", False),
    "no image in it": (swap(2, content=b"not an image"), r"'000005\.png': no image in one of the formats", True),
    "half an image": (swap(2, content=encoded(pixels_of(4, 1)[1])[:150]), r"'000005\.png': damaged image", True),
    "another size": (swap(2, content=BIG), r"(differ in size|'000005\.png' has 10 x 12 pixels, others 10 x 9)", True),
    "a bomb": (swap(2, content=encoded(np.zeros((9000, 9000), np.uint8))), r"'000005\.png': 9000 x 9000 pixels; at most 64,000,000", True),
}


@pytest.mark.parametrize("what", TAR_FAULTS)
@pytest.mark.parametrize("looked", [True, False])
def test_what_is_wrong_in_a_tar_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, looked: bool) -> None:
    """Faults 30, 31, 32 and 42: one line with the shard and the sample; a bad image is named by the look at 64, and behind it."""
    change, message, is_image = TAR_FAULTS[what]
    folder = changed_tar(tmp_path / "shards", change)
    (folder / "class-names.txt").write_text("\n".join(NAMES))
    if not looked:
        monkeypatch.setattr(shard_sources, "LOOKS", 1)
        monkeypatch.setattr(shard_sources, "IMAGES_A_LOOK", 1)
    with pytest.raises(DataError, match=message) as error:
        load(folder).images.whole()
    assert "\n" not in str(error.value) and "train-001.tar" in str(error.value) and "; " in str(error.value)
    assert list(tmp_path.rglob("*.png")) == []
    if is_image and not looked:
        found = check_parts(lambda part: load(folder) if part == "train" else None, full=True)
        (line,) = [line for where, line in found.findings if where == "images of train"]
        assert "'000005.png'" in line


def test_tars_that_are_not_whole_are_named(tmp_path: Path) -> None:
    """Issue 7: cut inside a member, cut between two of them, a damaged header, gzip, no tar, nothing at all."""
    folder = changed_tar(tmp_path / "shards", lambda files: None)
    path = folder / "train-001.tar"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[2048:2148] = b"\xff" * 100  # the third header: a .png of some 400 bytes and a .cls lie before it
    for content, message in (
        (whole[:1200], r"(truncated|not a whole tar)"),
        (whole[:3072], r"(truncated|not a whole tar)"),
        (whole[:4096], r"(truncated|not a whole tar)"),
        (bytes(damaged), "damaged at byte 2,048, where a file should begin"),
        (gzip.compress(whole), "compressed, so that no image can be read by itself"),
        (b"PK\x03\x04" * 500, r"no tar \(it begins with b'PK"),
        (b"", r"no tar \(it begins with b''"),
        (bytes(10240), "holds no images"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as error:
            load(folder)
        assert "train-001.tar" in str(error.value) and "\n" not in str(error.value)


def test_tars_with_any_bytes_changed_end_in_a_line_or_in_images(tmp_path: Path) -> None:
    """Fault 42: forty tars with a header or more changed."""
    whole = write_tar(tmp_path / "whole.tar", files_of(pixels_of(4), labels_of(4))).read_bytes()
    random, told = np.random.default_rng(0), 0
    for number in range(40):
        content = bytearray(whole)
        for place in random.integers(0, 8 * 512 + 4 * 512, 6):
            content[place] = random.integers(256)
        path = tmp_path / f"{number}.tar"
        path.write_bytes(content)
        try:
            assert load_webdataset("train", Path(), path=str(path)).images.shape[1] in (1, 3)
        except DataError as error:
            told += 1
            assert "\n" not in str(error) and path.name in str(error)
    assert told >= 5


def test_a_shard_missing_in_the_middle_is_named(made: dict[str, Path], tmp_path: Path) -> None:
    """Issue 7."""
    for kind, name in (("webdataset", "train-000002.tar"), ("parquet", "train-00002-of-00004.parquet")):
        folder = tmp_path / kind
        folder.mkdir()
        for path in (made[kind] if kind == "webdataset" else made[kind] / "data").iterdir():
            if path.name != name:
                (folder / path.name).symlink_to(path)
        for pattern in (str(folder), str(folder / "train-*")):
            with pytest.raises(DataError, match=rf"{name} is missing \(4 shards belong together\); put it back"):
                LOAD[kind]("train", Path(), path=pattern)
    with pytest.raises(DataError, match=r"train-000004\.tar is missing \(2 of 6 shards are\)"):
        load_webdataset("train", Path(), path=str(made["webdataset"] / "train-{000000..000005}.tar"))


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_shard_that_is_replaced_while_it_is_read_is_noticed(tmp_path: Path, kind: str) -> None:
    """Issue 7: one line, at the next window; and a training that begins anew looks into it anew."""
    folder = (make_tars if kind == "webdataset" else make_parquets)(tmp_path / kind)
    dataset = load(folder, buffer=128)
    batches = loader_of(dataset).batches(0)
    next(batches)
    for path in folder.rglob("train-*"):
        path.with_name("new").write_bytes(path.read_bytes())
        path.with_name("new").replace(path)
    with pytest.raises(DataError, match=r"train-.* changed while it was read \(another file stands there\); put the old file back"):
        list(batches)
    assert torch.equal(load(folder).images[:], torch.from_numpy(pixels_of(NUM)).permute(0, 3, 1, 2))
    next(folder.rglob("train-*2*")).unlink()
    with pytest.raises(DataError, match="missing"):
        load(folder)


def parquets(folder: Path, second: Any) -> Path:
    """Write two good shards and what `second` is between them."""
    folder.mkdir()
    good = table_of([encoded(image) for image in pixels_of(4)], [0, 1, 2, 3], names=NAMES)
    for shard in (0, 2):
        write_parquet(folder / f"train-{shard}.parquet", good)
    path = write_parquet(folder / "train-1.parquet", second if not isinstance(second, bytes) else good)
    if isinstance(second, bytes):
        path.write_bytes(second or path.read_bytes()[:-100])
    return folder


def images_with(at: int, content: bytes | None) -> list[bytes | None]:
    return [content if row == at else encoded(image) for row, image in enumerate(pixels_of(4))]


GOOD = images_with(-1, None)
PARQUET_FAULTS: dict[str, tuple[Any, str]] = {
    "truncated": (b"", "cannot be read .*; it is damaged or no Parquet file"),
    "another format": (b"PK\x03\x04 something", "it is damaged or no Parquet file"),
    "no images": (table_of(GOOD, [0, 1, 2, 3]).rename_columns(["imag", "label"]), "it has no column 'image'; did you mean 'imag'"),
    "no labels": (table_of(GOOD, None), r"labels are None, those of train-0\.parquet label; keep one data set a folder"),
    "other names": (table_of(GOOD, [0, 1, 2, 3], names=["x", "y"]), r"class names are \['x', 'y'\], those of train-0\.parquet"),
    "plain in one": (table_of(GOOD, [0, 1, 2, 3], plain=True), r"struct are False, those of train-0\.parquet True"),
    "text labels": (
        table_of(GOOD, [0, 1, 2, 3]).set_column(1, "label", [["a", "b", "c", "d"]]),
        "the column 'label' is string; expected whole numbers",
    ),
    "float images": (table_of(GOOD, [0, 1, 2, 3]).set_column(0, "image", [[0.5] * 4]), "the column 'image' is double; expected encoded"),
    "null label": (table_of(GOOD, [0, None, 2, 3], names=NAMES), r"row 1 of 'label' is null \(1 such rows\)"),  # type: ignore[list-item]
    "label out of range": (table_of(GOOD, [0, 1, 9, 3], names=NAMES), r"row 2: label 9, allowed 0\.\.4"),
    "null image": (table_of(images_with(2, None), [0, 1, 2, 3], names=NAMES), "row 2 of 'image' is null, or a path without bytes"),
    "no image in it": (table_of(images_with(2, b"nothing"), [0, 1, 2, 3], names=NAMES), "row 2: no image in one of the formats"),
    "another size": (table_of(images_with(2, BIG), [0, 1, 2, 3], names=NAMES), r"differ in size: .*train-1\.parquet: row 2 10 x 12"),
    "no rows": (table_of([], [], names=NAMES), "holds no images"),
}


@pytest.mark.parametrize("what", PARQUET_FAULTS)
def test_what_is_wrong_in_a_parquet_file_is_named(tmp_path: Path, what: str) -> None:
    """Faults 30 to 32, 35 and 38: one line with the shard, the column and the row."""
    second, message = PARQUET_FAULTS[what]
    with pytest.raises(DataError, match=message) as error:
        load(parquets(tmp_path / "parquet", second)).images.whole()
    assert "\n" not in str(error.value) and "train-1.parquet" in str(error.value)


def test_a_row_group_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be read as a whole: more than 1 GiB by what the file says, told apart by the footer alone."""
    from firstlight.data import parquet_probe

    monkeypatch.setattr(parquet_probe, "MAX_GROUP_BYTES", 1000)
    path = write_parquet(tmp_path / "a.parquet", table_of(GOOD, [0, 1, 2, 3]))
    (found,) = parquet_probe.look({"paths": [str(path)], "images_key": None, "labels_key": None}, [])["shards"]
    assert "row group 0 has 4 images in 0 MiB, and is read as a whole" in found["error"] and "row_group_size=1000" in found["error"]


def test_labels_and_images_by_their_keys(tmp_path: Path) -> None:
    """Issue 7: json labels, other endings; a README is passed over, and so is what a Mac adds."""
    pixels = pixels_of(3)
    files = [("README.md", b"hello"), ("._x.png", b"no image")]
    for row in range(3):
        json = f'{{"label": {row}, "other": {{"deep": {2 - row}}}}}'.encode()
        files += [(f"./a/{row}.left.png", encoded(pixels[row])), (f"./a/{row}.right.png", BIG), (f"./a/{row}.json", json)]
    path = str(write_tar(tmp_path / "a.tar", files))
    with pytest.raises(DataError, match=r"has \.json and no image; set data\.images_key"):
        load_webdataset("train", Path(), path=path)
    left = load_webdataset("train", Path(), path=path, images_key="left.png")
    assert left.labels is not None and left.labels.tolist() == [0, 1, 2] and left.image_shape == (3, 9, 10)
    right = load_webdataset("train", Path(), path=path, images_key=".right.png", labels_key="json.other.deep")
    assert right.labels is not None and right.labels.tolist() == [2, 1, 0] and right.image_shape == (3, 12, 10)
    with pytest.raises(DataError, match=r"'a/0\.left\.png' has no label \(3 of 3 images have none\); set data\.labels_key"):
        load_webdataset("train", Path(), path=path, images_key="left.png", labels_key="json.no")


def test_grey_images_and_another_size(tmp_path: Path) -> None:
    """Grey where none of the training images has colour; the middle square where a size is asked for."""
    grey = pixels_of(6, shape=(9, 10))
    files = files_of(grey, [0, 1] * 3)
    path = str(write_tar(tmp_path / "a.tar", files))
    plain = load_webdataset("train", Path(), path=path)
    assert torch.equal(plain.images.whole(), torch.from_numpy(grey)[:, None])  # type: ignore[union-attr]
    assert load_webdataset("train", Path(), path=path, channels=3).image_shape == (3, 9, 10)
    small = load_webdataset("train", Path(), path=path, image_size=6)
    expected = np.stack([decode_image(files[2 * row][1], grey=True, image_size=6) for row in range(6)])
    assert torch.equal(small.images.whole(), torch.from_numpy(expected)[:, None])  # type: ignore[union-attr]
    colour = str(write_tar(tmp_path / "b.tar", files_of(pixels_of(6), [0, 1] * 3)))
    with pytest.raises(DataError, match=r"'000000\.png': it has colour, and others are grey; set data\.channels=3"):
        load_webdataset("train", Path(), path=colour, channels=1).images.whole()


def test_shards_are_looked_into_once(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is kept by shard until the shard changes; a damaged entry is found anew."""
    first = load(made["webdataset"])
    looked: list[int] = []
    look = shard_sources.look_into_tars
    monkeypatch.setattr(shard_sources, "look_into_tars", lambda paths, keys: (looked.append(len(paths)), look(paths, keys))[1])
    again = load(made["webdataset"])
    assert looked == [0] and again.labels.tolist() == first.labels.tolist()  # type: ignore[union-attr]
    entry = next((cache_dir() / "shards").glob("*.bin"))
    entry.write_bytes(entry.read_bytes()[:-8] + b"\0\0\0\0\0\0\0\1")
    assert torch.equal(load(made["webdataset"]).images.whole(), first.images.whole()) and looked == [0, 1]


def test_a_forked_process_reads_for_itself(made: dict[str, Path]) -> None:
    """Faults 29 and 37: nothing is open between two reads; a child that was forked in the midst gets the same bits."""
    code = f"""
import hashlib, os, sys
from pathlib import Path
from firstlight.data.shard_sources import load_parquet, load_webdataset
some = [load_webdataset("train", Path(), path={str(made["webdataset"])!r}), load_parquet("train", Path(), path={str(made["parquet"])!r})]
def digest():
    return [hashlib.sha256(dataset.images[:].numpy().tobytes()).hexdigest() for dataset in some]
mine = digest()
child = os.fork()
if child == 0:
    os._exit(0 if digest() == mine else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (digest() != mine))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_pyarrow_the_extra_is_named(made: dict[str, Path], tmp_path: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None\nfrom firstlight.__main__ import main\n"
    code += f"main(['data', 'check', {str(made['parquet'])!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == 'error: Parquet files need pyarrow, which is not installed; pip install "firstlight[parquet]"\n'
