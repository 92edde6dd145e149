"""Principal components, neighbours and silhouette, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from firstlight.metrics import embedding
from firstlight.metrics.embedding import neighbour_accuracy, principal_components, silhouette


def clouds(num: int, size: int, *, apart: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points of four overlapping classes."""
    generator = torch.Generator().manual_seed(num + size)
    labels = torch.randint(4, (num,), generator=generator)
    centres = torch.randn(4, size, generator=generator) * apart
    return centres[labels] + torch.randn(num, size, generator=generator) * 2, labels


@pytest.mark.parametrize(("num", "size"), [(200, 12), (40, 90)], ids=["tall", "wide"])
def test_components_are_those_of_scikit_learn(num: int, size: int) -> None:
    """B17: PCA."""
    features, _ = clouds(num, size)
    pca = PCA(3, svd_solver="full")
    wanted = pca.fit_transform(features.double().numpy())
    found = principal_components(features, 3)
    np.testing.assert_allclose(found.points, wanted, atol=1e-8)
    np.testing.assert_allclose(found.shares, pca.explained_variance_ratio_, atol=1e-10)


def test_features_without_spread_stay_at_one_place() -> None:
    found = principal_components(torch.ones(5, 1), 2)
    assert found.points.shape == (5, 2) and not found.points.any() and not found.shares.any()


def test_neighbours_vote_as_in_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """B17: each point's neighbours without itself; in blocks of any size."""
    monkeypatch.setattr(embedding, "BLOCK", 64)
    features, labels = clouds(150, 6)
    nearest = NearestNeighbors(n_neighbors=5).fit(features.double().numpy()).kneighbors(return_distance=False)
    votes = np.array([np.bincount(labels[row]).argmax() for row in nearest])
    assert neighbour_accuracy(features, labels, k=5) == np.mean(votes == labels.numpy())


def test_silhouette_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BLOCK", 64)
    features, labels = clouds(150, 6)
    labels[0] = 7  # a class of one point, and numbers that are not used
    assert silhouette(features, labels) == pytest.approx(silhouette_score(features.double().numpy(), labels.numpy()), abs=1e-6)


def test_one_class_has_no_silhouette_and_one_point_no_neighbours() -> None:
    assert silhouette(torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)) is None
    assert neighbour_accuracy(torch.rand(1, 2), torch.zeros(1, dtype=torch.int64)) == 0
