import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.data.draws import Stream, integers, permutation, uniform

MANY = torch.arange(100_000)
SEEDS = st.integers(0, 2**63)


def split_mix_64(state: int) -> int:
    """The first output of the published generator, in Python's whole numbers."""
    word = (1 << 64) - 1
    bits = (state + 0x9E3779B97F4A7C15) & word
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & word
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & word
    return bits ^ (bits >> 31)


def plain_hash(seed: int, epoch: int, index: int, stream: int) -> int:
    key = 0
    for word in (seed, epoch, stream):
        key = split_mix_64((key + word) & ((1 << 64) - 1))
    return split_mix_64((key + (index - 1) * 0x9E3779B97F4A7C15) & ((1 << 64) - 1))


def test_split_mix_64_gives_the_published_numbers():
    assert split_mix_64(0) == 0xE220A8397B1DCDAF  # the first number of the generator seeded with 0


@given(seed=SEEDS, epoch=st.integers(0, 10_000), index=st.integers(0, 2**40), stream=st.sampled_from(Stream))
@settings(deadline=None, max_examples=100)
def test_draws_equal_the_same_hash_in_plain_python(seed, epoch, index, stream):
    bits, indices = plain_hash(seed, epoch, index, stream), torch.tensor([index])
    assert uniform(seed, epoch, indices, stream).item() == (bits >> 40) / 2**24
    assert integers(seed, epoch, indices, stream, 9).item() == ((bits >> 32) * 9) >> 32


@given(seed=SEEDS, order=st.permutations(range(20)))
@settings(deadline=None, max_examples=30)
def test_a_draw_does_not_depend_on_the_other_indices_of_the_batch(seed, order):
    together = uniform(seed, 3, torch.arange(20), Stream.FLIP)
    assert torch.equal(uniform(seed, 3, torch.tensor(order), Stream.FLIP), together[torch.tensor(order)])
    assert uniform(seed, 3, torch.tensor([7]), Stream.FLIP).item() == together[7]


@pytest.mark.parametrize("stream", Stream)
def test_uniform_is_uniform(stream):
    numbers = uniform(0, 0, MANY, stream)
    assert numbers.dtype == torch.float32 and numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, 100, 0, 1)
    chi_squared = ((counts - 1000) ** 2 / 1000).sum().item()
    assert 60 < chi_squared < 149  # 99 degrees of freedom: outside once in a thousand, on both sides


@pytest.mark.parametrize("bound", [1, 2, 9, 1000])
def test_integers_are_even_over_their_range(bound):
    counts = torch.bincount(integers(1, 2, MANY, Stream.CROP_TOP, bound))
    expected = len(MANY) / bound
    assert len(counts) == bound
    assert ((counts - expected).abs() < 5 * expected**0.5 + 1e-9).all()


def test_other_seeds_epochs_streams_and_indices_are_uncorrelated():
    base = uniform(0, 0, MANY, Stream.FLIP)
    others = [
        uniform(1, 0, MANY, Stream.FLIP),
        uniform(0, 1, MANY, Stream.FLIP),
        uniform(0, 0, MANY, Stream.ANGLE),
        uniform(0, 0, MANY + 1, Stream.FLIP),
    ]
    correlation = torch.corrcoef(torch.stack([base, *others]))[0, 1:]
    assert correlation.abs().max() < 5 / len(MANY) ** 0.5


@given(num=st.integers(1, 300), seed=SEEDS, epoch=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_permutation_holds_every_number_once(num, seed, epoch):
    assert torch.equal(permutation(num, seed, epoch).sort().values, torch.arange(num))


def test_permutation_is_a_function_of_seed_and_epoch():
    state = torch.get_rng_state()
    assert torch.equal(permutation(100, 0, 1), permutation(100, 0, 1))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 0, 2))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 1, 1))
    assert not torch.equal(permutation(100, 0, 1), permutation(100, 1, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_stream_numbers_are_fixed():
    """A stream that changed its number would change the results of every seed."""
    assert [stream.value for stream in Stream] == list(range(11))
    assert (uniform(0, 0, torch.arange(3), Stream.FLIP) * 2**24).tolist() == [5555937, 6626018, 4772605]
