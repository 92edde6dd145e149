import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.data.splits import carve, split_hash, take
from firstlight.errors import ConfigError

LABELS = torch.arange(1000) % 10
SOME_LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


def test_carve_parts_without_overlap_in_order():
    train, val = carve(LABELS, 0.1, seed=0)
    assert torch.equal(torch.cat((train, val)).sort().values, torch.arange(1000))
    assert torch.equal(train, train.sort().values) and torch.equal(val, val.sort().values)
    assert train.dtype == val.dtype == torch.int64


def test_carve_is_stratified():
    train, val = carve(LABELS, 0.1, seed=0)
    assert torch.bincount(LABELS[val]).tolist() == [10] * 10
    assert torch.bincount(LABELS[train]).tolist() == [90] * 10


def test_carve_follows_uneven_classes():
    labels = torch.tensor([0] * 800 + [1] * 150 + [2] * 50)
    assert torch.bincount(labels[carve(labels, 0.2, seed=3)[1]]).tolist() == [160, 30, 10]


def test_carve_with_fraction_0_holds_out_nothing():
    train, val = carve(LABELS, 0.0, seed=0)
    assert len(train) == 1000 and len(val) == 0


def test_carve_leaves_one_image_of_each_class_to_train():
    labels = torch.tensor([0, 0, 1, 1, 2])
    train, val = carve(labels, 0.99, seed=0)
    assert labels[train].unique().tolist() == [0, 1, 2]
    assert len(val) == 2


def test_carve_of_a_seed_never_changes():
    assert [split_hash(part) for part in carve(LABELS, 0.1, seed=0)] == ["326c1ab0304dba5b", "a587f13152a87ddc"]


def test_carve_depends_on_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    assert torch.equal(carve(LABELS, 0.1, seed=1)[1], carve(LABELS, 0.1, seed=1)[1])
    assert not torch.equal(carve(LABELS, 0.1, seed=1)[1], carve(LABELS, 0.1, seed=2)[1])
    assert torch.equal(torch.get_rng_state(), state)


@given(labels=SOME_LABELS, fraction=st.floats(0, 0.99), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_carve_always_parts_everything_and_keeps_every_class(labels, fraction, seed):
    train, val = carve(labels, fraction, seed)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(labels)))
    assert labels[train].unique().tolist() == labels.unique().tolist()
    assert abs(len(val) - len(labels) * fraction) <= max(1, len(labels.unique()))


@given(labels=SOME_LABELS, seed=st.integers(0, 99), data=st.data())
@settings(deadline=None, max_examples=50)
def test_take_gives_nested_parts_of_exactly_that_size(labels, seed, data):
    """A4, A5: a smaller number of training images is a subset of a larger one."""
    larger = data.draw(st.integers(1, len(labels)))
    smaller = data.draw(st.integers(1, larger))
    small, large = take(labels, smaller, seed), take(labels, larger, seed)
    assert (len(small), len(large)) == (smaller, larger)
    assert set(small.tolist()) <= set(large.tolist())
    assert torch.equal(large, large.unique())


def test_take_is_stratified_and_has_every_class():
    assert torch.bincount(LABELS[take(LABELS, 50, seed=0)]).tolist() == [5] * 10
    rare = torch.tensor([0] * 997 + [1, 2, 3])
    assert rare[take(rare, 4, seed=0)].tolist() == [0, 1, 2, 3]


def test_take_of_more_than_there_is_names_the_key():
    with pytest.raises(ConfigError, match=r"split\.num_train: 1,001 images asked for, but 1,000 are there .* use 1000 or less"):
        take(LABELS, 1001, seed=0)


def test_the_hash_names_the_indices_in_their_order():
    assert split_hash(torch.tensor([0, 1, 2])) == split_hash(torch.tensor([0, 1, 2], dtype=torch.int32))
    assert split_hash(torch.tensor([0, 1, 2])) != split_hash(torch.tensor([0, 2, 1]))
    assert split_hash(torch.tensor([], dtype=torch.int64)) == "e3b0c44298fc1c14"  # SHA-256 of nothing
