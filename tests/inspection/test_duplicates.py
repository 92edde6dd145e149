"""Images that are there twice, against a plain search over all pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight.config.schema import Kind
from firstlight.data.build import load_part
from firstlight.inspection import duplicates
from firstlight.inspection.duplicates import find_duplicates


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return load_part(Kind("digits"), "train", Path()).images


def plain_search(images: torch.Tensor) -> dict[tuple[int, int], float]:
    """Every pair with a correlation of 0.97 or more, by numpy in float64."""
    rows = images.flatten(1).double().numpy()
    rows = rows - rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = np.triu(rows @ rows.T, 1)
    return {(int(i), int(j)): float(found[i, j]) for i, j in np.argwhere(found >= 0.97)}


@pytest.mark.parametrize("block", [64, 2048])
def test_no_pair_is_missed(digits: torch.Tensor, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 33: the same pairs as a search over all, whatever the blocks."""
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    monkeypatch.setattr(duplicates, "DIRECTIONS", 8)
    monkeypatch.setattr(duplicates, "NEAR", 0.97)
    expected = plain_search(digits)
    found = find_duplicates({"train": digits})
    assert len(expected) > 10 and found.complete
    pairs = {(pair.first, pair.second): pair.correlation for pair in (*found.near, *found.exact)}
    sure = {pair for pair, value in expected.items() if value > 0.97 + 1e-5}
    assert sure <= pairs.keys() <= set(expected)
    for pair, correlation in pairs.items():
        assert correlation == pytest.approx(expected[pair], abs=1e-5)


def test_planted_copies_are_found_within_and_across_parts(digits: torch.Tensor) -> None:
    """Fault 33: duplicate images across splits."""
    train, val, test = digits[:300].clone(), digits[300:360].clone(), digits[360:400].clone()
    train[100], train[200] = train[3], train[3]
    val[7] = train[50]
    test[9] = train[51]
    test[10] = val[20]
    brighter = (train[60].float() * 0.9).round().to(torch.uint8)
    val[8] = brighter
    found = find_duplicates({"train": train, "val": val, "test": test})
    exact = {(pair.first_part, pair.first, pair.second_part, pair.second) for pair in found.exact}
    assert exact == {
        ("train", 3, "train", 100),
        ("train", 3, "train", 200),
        ("train", 50, "val", 7),
        ("train", 51, "test", 9),
        ("val", 20, "test", 10),
    }
    assert ("train", 60, "val", 8) in {(pair.first_part, pair.first, pair.second_part, pair.second) for pair in found.near}
    assert found.num(exact=True) == {
        ("train", "train"): 2,
        ("train", "val"): 1,
        ("train", "test"): 1,
        ("val", "val"): 0,
        ("val", "test"): 1,
        ("test", "test"): 0,
    }


def test_images_of_one_colour_are_like_no_other() -> None:
    images = torch.stack([torch.full((1, 6, 6), value, dtype=torch.uint8) for value in (0, 10, 10, 200)])
    found = find_duplicates({"train": images})
    assert [(pair.first, pair.second) for pair in found.exact] == [(1, 2)] and found.near == []


def test_large_colour_images_and_floats() -> None:
    """Thumbnails of 32 x 32 are compared; float images as well."""
    images = torch.rand(20, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    images[7] = (images[2] * 0.99).clamp(0, 1)
    found = find_duplicates({"train": images})
    assert [(pair.first, pair.second) for pair in found.near] == [(2, 7)]


def test_many_near_duplicates_are_counted_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 5)
    noise = torch.randint(0, 3, (30, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (torch.arange(64).view(1, 1, 8, 8) * 3 + noise).to(torch.uint8)
    found = find_duplicates({"train": images})
    assert len(found.near) == 5 and not found.complete


def test_more_images_than_are_compared_are_sampled(digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_IMAGES", 100)
    found = find_duplicates({"train": digits, "val": digits[:50]})
    assert found.num_sampled == {"train": 100, "val": 50}
    assert len(found.exact) >= 50, "exact copies are looked for among all"
