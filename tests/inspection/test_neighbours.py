"""Nearest neighbours in blocks against scikit-learn."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from firstlight.inspection.neighbours import nearest

GENERATOR = torch.Generator().manual_seed(0)
QUERIES, FEATURES = torch.randn(7, 16, generator=GENERATOR), torch.randn(203, 16, generator=GENERATOR)


def in_blocks(features: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(features.split(size), torch.arange(len(features)).split(size), strict=True)


@pytest.mark.parametrize("size", [1, 50, 1000])
def test_the_nearest_are_those_of_scikit_learn(size: int) -> None:
    """C9: to 1e-6, however the set is parted into blocks."""
    found = nearest(QUERIES, in_blocks(FEATURES, size), num=5)
    distances, indices = NearestNeighbors(n_neighbors=5, metric="cosine").fit(FEATURES.double()).kneighbors(QUERIES.double())
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarity, 1 - distances, atol=1e-6)


def test_a_query_that_is_in_the_set_is_not_its_own_neighbour() -> None:
    places = torch.tensor([3, 100])
    found = nearest(FEATURES[places], in_blocks(FEATURES, 50), num=5, left_out=places)
    _, indices = NearestNeighbors(n_neighbors=6, metric="cosine").fit(FEATURES).kneighbors(FEATURES[places])
    np.testing.assert_array_equal(found.indices, indices[:, 1:])


def test_of_equally_near_ones_the_first_counts_in_any_blocks() -> None:
    same = torch.ones(9, 4)
    assert all(nearest(same[:1], in_blocks(same, size), num=3).indices.tolist() == [[0, 1, 2]] for size in (1, 2, 9))


def test_a_small_set_has_fewer_neighbours_and_features_of_zero_do_no_harm() -> None:
    found = nearest(QUERIES, in_blocks(FEATURES[:3], 2), num=5)
    assert found.indices.shape == (7, 3)
    assert nearest(FEATURES[:1], in_blocks(FEATURES[:1], 1), num=5, left_out=torch.tensor([0])).indices.shape == (1, 0)
    assert nearest(torch.zeros(1, 16), in_blocks(FEATURES, 50), num=2).similarity.tolist() == [[0.0, 0.0]]
