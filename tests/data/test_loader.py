import gc
import weakref

import pytest
import torch

from firstlight.data.augment import Augment
from firstlight.data.augment_reference import reference_augment
from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.draws import permutation
from firstlight.data.loader import Batch, Loader
from firstlight.data.normalize import Normalize

EXACT = {
    "plain": Augment(),
    "flip": Augment(flip=True),
    "alternating": Augment(flip="alternating"),
    "crop": Augment(crop=3),
    "flip+crop": Augment(flip=True, crop=3),
    "flip+crop+cutout": Augment(flip=True, crop=2, cutout=4),
}
CLOSE = {
    "rotation": Augment(rotation=20),
    "color jitter": Augment(color_jitter=0.5),
    "all": Augment(flip=True, crop=2, rotation=15, color_jitter=0.3, cutout=3),
}


def some_data(num: int = 53, channels: int = 3, dtype: torch.dtype = torch.uint8) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, channels, 8, 9), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (num,), generator=generator)
    return make_dataset(images if dtype == torch.uint8 else images / 256, labels, [str(digit) for digit in range(10)], "noise")


def make_loader(dataset: Dataset, **options) -> Loader:
    return Loader(dataset, **{"batch_size": 10, "seed": 4, "normalize": Normalize.measure(dataset.images), **options})


def plain_batches(loader: Loader, dataset: Dataset, epoch: int) -> list[Batch]:
    """What a loader must give, image by image."""
    order = permutation(len(dataset), loader.seed, epoch) if loader.shuffle else torch.arange(len(dataset))
    batches = []
    for indices in order.split(loader.batch_size):
        images = [
            reference_augment(
                dataset.images[index], int(index), epoch=epoch, seed=loader.seed, augment=loader.augment, normalize=loader.normalize
            )
            for index in indices
        ]
        batches.append(Batch(torch.stack(images), dataset.labels[indices], indices))
    return batches


def assert_same(ours: list[Batch], theirs: list[Batch], atol: float = 0.0) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our.labels, their.labels) and torch.equal(our.indices, their.indices)
        torch.testing.assert_close(our.images, their.images, rtol=0, atol=atol, check_stride=False)


@pytest.mark.parametrize("augment", EXACT.values(), ids=EXACT.keys())
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batches_equal_a_plain_loop_to_the_bit(augment, channels_last, dtype):
    dataset = some_data(dtype=dtype)
    loader = make_loader(dataset, augment=augment, channels_last=channels_last, shuffle=True)
    assert_same(list(loader.batches(3)), plain_batches(loader, dataset, 3))


@pytest.mark.parametrize("augment", CLOSE.values(), ids=CLOSE.keys())
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_with_arithmetic_on_pixels_equal_a_plain_loop(augment, channels):
    dataset = some_data(channels=channels)
    loader = make_loader(dataset, augment=augment, shuffle=True, channels_last=True, normalize=Normalize.identity(channels))
    assert_same(list(loader.batches(3)), plain_batches(loader, dataset, 3), atol=1e-5)


def test_uint8_and_float_images_give_the_same_batches():
    """A12: uint8 and float input give the same result."""
    whole = some_data()
    floats = make_dataset(whole.images / 255, whole.labels, whole.class_names, "floats")
    augment = Augment(flip=True, crop=2)
    assert_same(list(make_loader(floats, augment=augment).batches(0)), list(make_loader(whole, augment=augment).batches(0)))


@pytest.mark.parametrize("start", [0, 1, 5, 6, 9])
def test_starting_later_gives_the_tail(start):
    """F3: the position in the data is two integers."""
    loader = make_loader(some_data(), augment=Augment(flip=True, crop=2, cutout=2), shuffle=True)
    assert_same(list(loader.batches(7, start=start)), list(loader.batches(7))[start:])


def test_an_augmented_image_does_not_depend_on_the_batch_size():
    dataset, augment = some_data(), Augment(flip=True, crop=2, rotation=10, color_jitter=0.2, cutout=2)

    def by_index(batch_size: int) -> torch.Tensor:
        batches = list(make_loader(dataset, augment=augment, shuffle=True, batch_size=batch_size).batches(1))
        images = torch.cat([batch.images for batch in batches])
        return images[torch.cat([batch.indices for batch in batches]).argsort()]

    torch.testing.assert_close(by_index(7), by_index(53), rtol=0, atol=1e-6)


def test_an_epoch_changes_order_and_draws():
    dataset = some_data()
    loader = make_loader(dataset, augment=Augment(flip=True, crop=3), shuffle=True, batch_size=100)
    first, second = (next(loader.batches(epoch)) for epoch in (0, 1))
    assert not torch.equal(first.indices, second.indices)
    assert not torch.equal(first.images[first.indices.argsort()], second.images[second.indices.argsort()])
    assert_same([first], [next(loader.batches(0))])


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    list(make_loader(some_data(), augment=CLOSE["all"], shuffle=True).batches(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [(20, False, [20, 20, 13]), (20, True, [20, 20]), (53, True, [53]), (1000, False, [53]), (1000, True, [53])],
)
def test_sizes_of_batches(batch_size, drop_last, sizes):
    loader = make_loader(some_data(), batch_size=batch_size, drop_last=drop_last, shuffle=True)
    assert [len(batch.labels) for batch in loader.batches(0)] == sizes
    assert (loader.num_batches, loader.num_images) == (len(sizes), sum(sizes))


def test_a_batch_has_the_types_and_layout_that_were_asked_for():
    for channels_last, layout in ((True, torch.channels_last), (False, torch.contiguous_format)):
        images, labels, indices = next(make_loader(some_data(), channels_last=channels_last).batches(0))
        assert images.is_contiguous(memory_format=layout) and images.shape == (10, 3, 8, 9)
        assert (images.dtype, labels.dtype, indices.dtype) == (torch.float32, torch.int64, torch.int64)


def test_labels_that_nobody_has_are_minus_1():
    """D11: predict works without labels."""
    dataset = some_data()
    unlabelled = Dataset(dataset.images, None, dataset.class_names, "test")
    assert next(make_loader(unlabelled).batches(0)).labels.tolist() == [-1] * 10


@pytest.mark.parametrize("augment", [*EXACT.values(), *CLOSE.values()], ids=[*EXACT.keys(), *CLOSE.keys()])
def test_reused_buffers_hold_the_same_images_in_the_same_memory(augment, monkeypatch):
    loader = make_loader(some_data(), augment=augment, shuffle=True)
    places = set()
    monkeypatch.setattr("firstlight.data.loader._CHUNK_PIXELS", 20 * 3 * 8 * 9)  # two batches at a time
    for ours, theirs in zip(loader.batches(0, reuse_buffers=True), list(loader.batches(0)), strict=True):
        assert_same([ours], [theirs])
        places.add(ours.images.data_ptr())
    assert len(places) == 2


@pytest.mark.parametrize("augment", [*EXACT.values(), *CLOSE.values()], ids=[*EXACT.keys(), *CLOSE.keys()])
@pytest.mark.parametrize("batches_at_a_time", [1, 2, 4])
def test_how_many_batches_are_made_at_a_time_changes_none(augment, batches_at_a_time, monkeypatch):
    loader = make_loader(some_data(), augment=augment, shuffle=True, channels_last=True)
    whole = list(loader.batches(2))
    monkeypatch.setattr("firstlight.data.loader._CHUNK_PIXELS", batches_at_a_time * 10 * 3 * 8 * 9)
    for start in (0, 1, 3):
        tail = list(loader.batches(2, start=start))
        assert_same(tail, whole[start:])
        assert [batch.images.storage_offset() for batch in tail] == [
            number % batches_at_a_time * 10 * 3 * 8 * 9 for number in range(start, 6)
        ]  # a resume finds every batch as it was aligned before


def test_gradients_are_right_with_reused_buffers():
    """Autograd keeps the input of a layer; a step is over before the next batch overwrites it."""
    loader = make_loader(some_data(), shuffle=True)

    def gradients(reuse_buffers: bool) -> list[torch.Tensor]:
        weight = torch.ones(4, 3, 3, 3, requires_grad=True)
        losses = (torch.conv2d(batch.images, weight).square().mean() for batch in loader.batches(0, reuse_buffers=reuse_buffers))
        return [torch.autograd.grad(loss, weight)[0] for loss in losses]

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("options", [{"augment": Augment(crop=2)}, {"channels_last": True}])
def test_the_pixels_of_the_data_set_are_let_go(options):
    """A12: at most one copy of the data in memory."""
    dataset = some_data()
    pixels = weakref.ref(dataset.images)
    loader = make_loader(dataset, **options)
    del dataset
    gc.collect()
    assert pixels() is None
    assert len(list(loader.batches(0))) == 6
