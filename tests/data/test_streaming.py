"""The streamed loader against the plain way: the same order, one image at a time by h5py, in a Python loop."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from firstlight.data import stored
from firstlight.data.augment import Augment
from firstlight.data.augment_reference import reference_augment
from firstlight.data.dataset import Dataset
from firstlight.data.hdf5 import load_hdf5
from firstlight.data.loader import Batch, Loader
from firstlight.data.normalize import Normalize
from firstlight.data.streaming import StreamLoader
from firstlight.errors import DataError
from tests.data.hdf5_files import NUM, SIZE, make_file, read_plainly

NORMALIZE = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
BATCH = 32
ROW = SIZE * (SIZE + 1) * 3
WHOLE = (9, 10, 3)
STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (60, *WHOLE)},
    "chunks across": {"chunks": (50, 4, 6, 2)},
    "gzip": {"chunks": (64, *WHOLE), "compression": "gzip"},
    "gzip+shuffle+fletcher32": {"chunks": (45, *WHOLE), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "fletcher32": {"chunks": (70, *WHOLE), "fletcher32": True},
    "odd fletcher32": {"chunks": (7, 3, 5, 3), "fletcher32": True},
    "lzf": {"chunks": (64, *WHOLE), "compression": "lzf"},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of about 40 images, so that small files have many."""
    monkeypatch.setattr(stored, "BLOCK_BYTES", 40 * ROW)


def streamed(path: Path, part: str = "train", *, buffer: int = 140, size: int | None = None) -> Dataset:
    """Return a part that is streamed through a buffer for so many images."""
    dataset = load_hdf5(part, Path(), path=str(path), stream="on")
    dataset.images.buffer_bytes = buffer * ROW
    if size is not None:
        dataset = Dataset(dataset.images.resized(size), dataset.labels, dataset.class_names, dataset.source)
    return dataset


def loader_of(dataset: Dataset, **settings: Any) -> StreamLoader:
    return StreamLoader(dataset, **{"batch_size": BATCH, "seed": 3, "normalize": NORMALIZE, "shuffle": True, **settings})


def plain_batches(path: Path, order: list[int], epoch: int, augment: Augment, *, seed: int = 3) -> list[torch.Tensor]:
    """Return the images in this order, one after the other, in batches."""
    images = [
        reference_augment(read_plainly(path, "train", row), row, epoch=epoch, seed=seed, augment=augment, normalize=NORMALIZE)
        for row in order
    ]
    return list(torch.stack(images).split(BATCH))


@pytest.mark.parametrize("order", ["nhwc", "nchw"])
@pytest.mark.parametrize("storage", STORAGE)
def test_batches_have_the_bits_of_the_plain_reader(tmp_path: Path, storage: str, order: str) -> None:
    """D8, D9: contiguous, chunked, compressed, with checksums; either order of axes; odd blocks and an odd batch at the end."""
    how = dict(STORAGE[storage])
    if "chunks" in how and order == "nchw":
        rows, height, width, channels = how["chunks"]
        how["chunks"] = (rows, channels, height, width)
    path = make_file(tmp_path / "a.h5", order=order, **how)
    augment = Augment(flip=True, crop=2)
    loader = loader_of(streamed(path), augment=augment)
    batches = list(loader.batches(1))
    drawn = torch.cat([batch.indices for batch in batches])
    assert sorted(drawn.tolist()) == list(range(NUM)) and len(batches[-1].labels) == NUM % BATCH
    for batch, expected in zip(batches, plain_batches(path, drawn.tolist(), 1, augment), strict=True):
        assert torch.equal(batch.images, expected)
        assert torch.equal(batch.labels, batch.indices * 7 % 5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("augment", [Augment(), Augment(flip="alternating", crop=3, cutout=4), Augment(rotation=10, color_jitter=0.3)])
def test_a_streamed_image_is_the_resident_one(tmp_path: Path, augment: Augment, channels_last: bool) -> None:
    """D8: what an image looks like depends on (seed, epoch, index), not on where its pixels lie."""
    path = make_file(tmp_path / "a.h5")
    dataset = streamed(path)
    settings: dict[str, Any] = {"augment": augment, "channels_last": channels_last}
    whole = Loader(dataset.subset(torch.arange(NUM)).__class__(dataset.images.whole(), dataset.labels, (), ""), batch_size=NUM, seed=3,
                   normalize=NORMALIZE, **settings)  # fmt: skip
    (resident,) = whole.batches(2)
    for batch in loader_of(dataset, **settings).batches(2):
        assert torch.allclose(batch.images, resident.images[batch.indices], atol=1e-6)
        assert batch.images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def same(some: Batch, other: Batch) -> bool:
    return all(torch.equal(one, two) for one, two in zip(some, other, strict=True))


@pytest.mark.parametrize("start", [0, 1, 3, 9])
@pytest.mark.parametrize("storage", ["contiguous", "gzip"])
def test_an_epoch_goes_on_from_any_batch_to_the_same_bits(tmp_path: Path, storage: str, start: int) -> None:
    """F3, fault 1: the position in the data is two integers here too."""
    path = make_file(tmp_path / "a.h5", **STORAGE[storage])
    loader = loader_of(streamed(path), augment=Augment(crop=1))
    whole = list(loader.batches(4))
    rest = [Batch(batch.images.clone(), batch.labels, batch.indices) for batch in loader.batches(4, start, reuse_buffers=True)]
    assert len(rest) == loader.num_batches - start
    assert all(map(same, rest, whole[start:]))
    assert torch.equal(loader.indices(4, start), whole[start].indices)
    assert list(loader.batches(4, loader.num_batches)) == []


def test_begin_in_the_midst_reads_one_window_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume costs one window and not the epoch: counted in bytes that are asked of the file, up to the first batch."""
    loader = loader_of(streamed(make_file(tmp_path / "a.h5")))
    asked: list[int] = []
    read = stored.ImageFile._pread
    monkeypatch.setattr(stored.ImageFile, "_pread", lambda self, place, target: (asked.append(target.nbytes), read(self, place, target))[1])
    batches = loader.batches(0, loader.num_batches - 1)
    next(batches)
    batches.close()
    assert 0 < sum(asked) <= 2 * loader.window_size * ROW < NUM * ROW


def test_drop_last_and_order(tmp_path: Path) -> None:
    loader = loader_of(streamed(make_file(tmp_path / "a.h5")), drop_last=True)
    sizes = [len(batch.labels) for batch in loader.batches(0)]
    assert sizes == [BATCH] * (NUM // BATCH)
    assert loader.num_images == NUM // BATCH * BATCH == len(set(loader.order(0).tolist()))
    assert loader.order(0).tolist() != loader.order(1).tolist() == loader.order(1).tolist()
    in_order = loader_of(streamed(make_file(tmp_path / "b.h5")), shuffle=False)
    assert torch.cat([batch.indices for batch in in_order.batches(0)]).tolist() == list(range(NUM))


def test_a_subset_in_any_order(tmp_path: Path) -> None:
    """Validation that is carved out has gaps, and a subset may come in any order and hold an image twice."""
    path = make_file(tmp_path / "a.h5")
    chosen = torch.tensor([299, 3, 3, 200, 0, 41, 40, 39, 250])
    dataset = streamed(path).subset(chosen)
    (batch,) = loader_of(dataset, shuffle=False, normalize=Normalize.identity(3)).batches(0)
    expected = torch.stack([read_plainly(path, "train", int(row)) for row in chosen])
    assert torch.equal((batch.images * 255).round().to(torch.uint8), expected)
    assert torch.equal(dataset.images[2], expected[2]) and torch.equal(dataset.images[1:3], expected[1:3])
    assert torch.equal(dataset.images.whole(), expected)
    assert torch.equal(torch.cat(list(dataset.images.split(4))), expected)
    (shuffled,) = loader_of(dataset).batches(0)
    assert sorted(shuffled.indices.tolist()) == list(range(9))


def test_resize_on_the_way_equals_the_resident_resize(tmp_path: Path) -> None:
    from firstlight.data.resize import resize

    path = make_file(tmp_path / "a.h5")
    dataset = streamed(path)
    plain = resize(Dataset(dataset.images.whole(), dataset.labels, (), ""), 6)
    small = resize(dataset, 6)
    assert small.image_shape == (3, 6, 6)
    for batch in loader_of(small, normalize=Normalize.identity(3)).batches(0):
        assert torch.equal((batch.images * 255).round().to(torch.uint8), plain.images[batch.indices])


def test_the_order_is_well_shuffled(tmp_path: Path) -> None:
    """Blocks come mixed, and the images of a window too: in a whole window neighbours rarely come from one block, or in its order."""
    loader = loader_of(streamed(make_file(tmp_path / "a.h5"), buffer=300))
    order = loader.order(0)
    begin = 3 * BATCH  # behind the two short windows of an epoch's beginning
    window = order[begin : begin + loader.window_size]
    assert len(window) == 4 * BATCH
    blocks = window // 40
    assert len(blocks.unique()) >= 4
    assert float((blocks[1:] == blocks[:-1]).float().mean()) < 0.5
    assert int((window.diff() == 1).sum()) < 8
    assert len((order // 40).unique_consecutive()) > NUM // 2
    assert abs(float(np.corrcoef(order.numpy(), np.arange(NUM))[0, 1])) < 0.3


def test_blocks_of_a_file_sorted_by_class_are_cut(tmp_path: Path) -> None:
    """Issue 7, quality of the shuffle: where neighbours in the file have one class, fewer of them stay together."""
    path = make_file(tmp_path / "a.h5")
    shuffled = loader_of(streamed(path))
    assert [int(size) for size in np.diff(shuffled._firsts)[:2]] == [40, 40]
    with h5py.File(path, "r+") as file:
        file["labels-train"][:] = np.arange(NUM) * 5 // NUM
    in_order = loader_of(streamed(path))
    assert [int(size) for size in np.diff(in_order._firsts)[:2]] == [5, 5]
    assert sorted(in_order.order(0).tolist()) == list(range(NUM))


@pytest.mark.parametrize("change", ["replaced", "appended", "touched", "gone"])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, change: str) -> None:
    """Issue 7, bad input: one line, at the next window."""
    path = make_file(tmp_path / "a.h5")
    batches = loader_of(streamed(path, buffer=128)).batches(0)
    next(batches)
    if change == "replaced":
        make_file(tmp_path / "new.h5").replace(path)
    elif change == "appended":
        with path.open("ab") as handle:
            handle.write(b"more")
    elif change == "touched":
        import os

        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"a\.h5") as error:
        list(batches)
    assert "\n" not in str(error.value) and "; put the" in str(error.value)


@pytest.mark.parametrize("storage", ["gzip", "fletcher32", "gzip+shuffle+fletcher32"])
def test_a_damaged_chunk_is_named(tmp_path: Path, storage: str) -> None:
    """Fault 36: what carries a checksum is compared when it is read. (lzf carries none, and may unpack what was changed.)"""
    path = make_file(tmp_path / "a.h5", **STORAGE[storage])
    with h5py.File(path) as file:
        info = file["images-train"].id.get_chunk_info(3)
    damaged = bytearray(path.read_bytes())
    damaged[info.byte_offset + info.size // 2 : info.byte_offset + info.size // 2 + 8] = b"\xff\x00\xff\x00\xff\x00\xff\x00"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"images-train.*(damaged|cannot be read)"):
        list(loader_of(streamed(path)).batches(0))


def test_what_needs_all_pixels_at_once_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"streamed, and this looks at all of them at once; train with data\.stream=off"):
        streamed(make_file(tmp_path / "a.h5")).images.permute(0, 2, 3, 1)


@pytest.mark.parametrize("storage", ["contiguous", "lzf"])
def test_a_forked_process_reads_for_itself(tmp_path: Path, storage: str) -> None:
    """Faults 29 and 37: a handle is opened by each process; a child that was forked in the midst gets the same bits."""
    path = make_file(tmp_path / "a.h5", **STORAGE[storage])
    code = f"""
import hashlib, os, sys
from pathlib import Path
from firstlight.data.hdf5 import load_hdf5
images = load_hdf5("train", Path(), path={str(path)!r}, stream="on").images
def digest():
    return hashlib.sha256(images[:].numpy().tobytes()).hexdigest()
mine = digest()
child = os.fork()
if child == 0:
    os._exit(0 if digest() == mine else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (digest() != mine))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_memory_stays_flat_on_a_file_larger_than_the_buffer(tmp_path: Path) -> None:
    """Issue 7: 200 MB through a buffer of 32 MiB; the peak grows by the buffer and some blocks, not by the file."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images-train", (8000, 96, 96, 3), np.uint8)
        for first in range(0, 8000, 1000):
            images[first : first + 1000] = np.full((1000, 96, 96, 3), first // 1000, np.uint8)
        file.create_dataset("labels-train", data=np.arange(8000) % 5)
    code = f"""
import resource
from pathlib import Path
from firstlight.data.hdf5 import load_hdf5
from firstlight.data.normalize import Normalize
from firstlight.data.streaming import StreamLoader
dataset = load_hdf5("train", Path(), path={str(path)!r}, stream="on", buffer_mib=32)
loader = StreamLoader(dataset, batch_size=64, seed=0, normalize=Normalize.identity(3), shuffle=True)
before, seen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
for batch in loader.batches(0, reuse_buffers=True):
    seen += len(batch.labels)
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    seen, grown = map(int, done.stdout.split())
    assert seen == 8000
    assert grown < 80 * 1024, f"{grown / 1024:.0f} MiB more"
