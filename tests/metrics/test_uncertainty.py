"""Entropies and the area under the ROC curve, against scipy, scikit-learn and plain sums."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score

from firstlight.metrics.uncertainty import PassTotals, area_under_roc

PASSES = torch.randn(7, 30, 5, generator=torch.Generator().manual_seed(0)) * 4


def totals() -> PassTotals:
    added = PassTotals.of(PASSES[0])
    for logits in PASSES[1:]:
        added.add(PassTotals.of(logits))
    return added


def test_entropies_are_those_of_scipy() -> None:
    """B9: predictive and expected entropy in nats, and mutual information as their difference, to 1e-12."""
    probabilities = PASSES.double().softmax(2).numpy()
    found = totals()
    predictive, expected = entropy(probabilities.mean(0), axis=1), entropy(probabilities, axis=2).mean(0)
    np.testing.assert_allclose(found.mean, probabilities.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.predictive_entropy, predictive, atol=1e-12)
    np.testing.assert_allclose(found.expected_entropy, expected, atol=1e-12)
    np.testing.assert_allclose(found.mutual_information, predictive - expected, atol=1e-12)


def test_votes_count_the_passes_in_which_a_class_was_the_likeliest() -> None:
    """B9: histogram of predicted classes."""
    found = totals()
    wanted = np.stack([np.bincount(column, minlength=5) for column in PASSES.argmax(2).numpy().T])
    np.testing.assert_array_equal(found.votes, wanted)
    assert found.num_passes == 7 and bool((found.votes.sum(1) == 7).all())


def test_batches_are_joined_one_below_the_other() -> None:
    whole, parts = totals(), []
    for rows in (slice(0, 20), slice(20, 30)):
        parts.append(PassTotals.of(PASSES[0, rows]))
        for logits in PASSES[1:, rows]:
            parts[-1].add(PassTotals.of(logits))
    joined = PassTotals.joined(parts)
    torch.testing.assert_close(joined.predictive_entropy, whole.predictive_entropy, rtol=0, atol=0)
    assert joined.num_passes == 7


def test_passes_that_agree_have_no_mutual_information_and_certainty_has_no_entropy() -> None:
    sure = PassTotals.of(torch.tensor([[2000.0, 0.0, -2000.0]]))
    sure.add(PassTotals.of(torch.tensor([[2000.0, 0.0, -2000.0]])))
    assert (float(sure.predictive_entropy), float(sure.mutual_information)) == (0.0, 0.0)


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
def test_area_under_roc_is_that_of_scikit_learn(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (200,), generator=generator).double()
    positive = torch.rand(200, generator=generator) < 0.2
    assert area_under_roc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_area_under_roc_needs_both_kinds() -> None:
    assert area_under_roc(torch.arange(3.0), torch.zeros(3, dtype=torch.bool)) is None
    assert area_under_roc(torch.arange(3.0), torch.ones(3, dtype=torch.bool)) is None
