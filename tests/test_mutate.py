"""The damage of the fuzz tests is real, bounded and repeatable."""

from tests.mutate import MAX_SPAN, mutate

CONTENT = bytes(range(256)) * 8


def test_a_seed_is_one_damage():
    assert [mutate(CONTENT, seed) for seed in range(50)] == [mutate(CONTENT, seed) for seed in range(50)]


def test_seeds_damage_differently_and_nearly_always():
    damaged = [mutate(CONTENT, seed) for seed in range(500)]
    assert sum(content != CONTENT for content in damaged) > 480
    assert len(set(damaged)) > 470


def test_sizes_stay_bounded_and_nothing_can_be_mutated():
    assert max(len(mutate(CONTENT, seed)) for seed in range(500)) <= len(CONTENT) + 4 * 100 * MAX_SPAN
    assert all(isinstance(mutate(b"", seed), bytes) for seed in range(500))
