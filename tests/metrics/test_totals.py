"""The totals and all that follows from them, with scikit-learn as the oracle."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from torch import Tensor

from firstlight.errors import ConfigError, DataError
from firstlight.metrics.evaluation import Evaluation, wilson_interval
from firstlight.metrics.totals import Totals


def _evaluate(logits: Tensor, labels: Tensor, top_k: int = 2, batch_size: int = 7) -> Evaluation:
    totals = Totals.zeros(logits.shape[1], top_k)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    for batch in torch.arange(len(labels)).split(batch_size):
        totals.add(logits[batch], labels[batch], losses[batch])
    return totals.result()


@settings(max_examples=25, deadline=None)
@given(num_classes=st.integers(2, 6), num_images=st.integers(1, 60), seed=st.integers(0, 999), absent=st.booleans())
def test_everything_agrees_with_scikit_learn(num_classes: int, num_images: int, seed: int, absent: bool) -> None:
    """B8: also with K=2, classes without images, and classes that nothing is taken for; without a warning."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_classes, generator=generator)
    labels = torch.randint(1 if absent else 0, num_classes, (num_images,), generator=generator)
    if absent:
        logits[:, -1] -= 10
    found, predicted, classes = _evaluate(logits, labels), logits.argmax(1), range(num_classes)
    assert found.num_images == num_images
    assert found.accuracy == oracle.accuracy_score(labels, predicted)
    assert found.loss == pytest.approx(oracle.log_loss(labels, logits.double().softmax(1), labels=classes), rel=1e-5)
    assert np.array_equal(found.matrix, oracle.confusion_matrix(labels, predicted, labels=classes))
    expected = oracle.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        assert ours == pytest.approx(theirs)
    assert found.macro_f1 == pytest.approx(oracle.f1_score(labels, predicted, average="macro", zero_division=0))
    if num_classes > 2:
        assert found.top_k_accuracy == pytest.approx(oracle.top_k_accuracy_score(labels, logits, k=2, labels=classes))


def test_a_last_odd_batch_counts_by_its_images() -> None:
    """D11: 10 images in batches of 7 and 3 give what one batch of 10 gives."""
    logits, labels = torch.randn(10, 3), torch.randint(3, (10,))
    whole, parts = _evaluate(logits, labels, batch_size=10), _evaluate(logits, labels, batch_size=7)
    assert parts.confusion == whole.confusion
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)


def test_rows_are_true_classes_and_columns_predicted() -> None:
    found = _evaluate(torch.eye(3)[[1, 1, 2]], torch.tensor([0, 1, 2]))
    assert found.confusion == ((0, 1, 0), (0, 1, 0), (0, 0, 1))
    assert found.recall.tolist() == [0, 1, 1]
    assert found.precision.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_k_outside_the_classes_is_refused(top_k: int) -> None:
    with pytest.raises(ConfigError, match=rf"top_k is {top_k}; with 3 classes it must be 1..3"):
        Totals.zeros(3, top_k)


def test_top_1_is_the_accuracy_and_top_all_is_1() -> None:
    logits, labels = torch.randn(20, 3), torch.randint(3, (20,))
    logits[:5] = 0  # ties
    top1 = _evaluate(logits, labels, top_k=1)
    assert top1.top_k_accuracy == top1.accuracy
    assert _evaluate(logits, labels, top_k=3).top_k_accuracy == 1


def test_no_image_is_a_data_error() -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        Totals.zeros(3, 1).result()


def test_logits_that_are_not_numbers_are_counted_and_the_loss_says_so() -> None:
    found = _evaluate(torch.full((4, 3), math.nan), torch.tensor([0, 1, 2, 2]))
    assert math.isnan(found.loss)
    assert found.num_images == 4


def test_bfloat16_losses_add_up_in_full_precision() -> None:
    totals = Totals.zeros(2, 1)
    totals.add(torch.zeros(4096, 2), torch.zeros(4096, dtype=torch.int64), torch.full((4096,), 1.0, dtype=torch.bfloat16))
    assert totals.result().loss == 1.0


def test_totals_made_outside_inference_mode_can_be_added_to_inside() -> None:
    totals = Totals.zeros(2, 1)
    with torch.inference_mode():
        totals.add(torch.eye(2), torch.arange(2), torch.ones(2))
    assert totals.result().accuracy == 1


def test_json_holds_a_row_a_class() -> None:
    """D13."""
    found = _evaluate(torch.randn(30, 3), torch.randint(3, (30,)))
    record = json.loads(json.dumps(found.to_json(["cat", "dog", "eel"])))
    assert (record["accuracy"], record["num_images"]) == (found.accuracy, 30)
    assert record["confusion"] == found.matrix.tolist()
    assert [row["class"] for row in record["classes"]] == ["cat", "dog", "eel"]
    assert record["classes"][1]["recall"] == found.recall[1]
    assert [row["class"] for row in found.to_json()["classes"]] == ["0", "1", "2"]


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 1), (87, 100), (9_912, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_is_that_of_scipy(correct: int, total: int, confidence: float) -> None:
    """D21."""
    binomtest = pytest.importorskip("scipy.stats").binomtest
    expected = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    assert wilson_interval(correct, total, confidence) == pytest.approx((expected.low, expected.high))


def test_accuracy_interval_holds_the_accuracy() -> None:
    found = _evaluate(torch.randn(50, 3), torch.randint(3, (50,)))
    low, high = found.accuracy_interval()
    assert 0 <= low < found.accuracy < high <= 1
