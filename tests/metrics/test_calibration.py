"""Calibration figures against scikit-learn, scipy and plain loops, to 1e-6."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from firstlight.metrics import calibration as c

RNG = np.random.default_rng(0)


def made_up(num: int = 2000, num_classes: int = 5, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of an overconfident network and labels drawn from the softmax of a third of them."""
    logits = RNG.normal(size=(num, num_classes)) * sharpness
    labels = np.array([RNG.choice(num_classes, p=row) for row in softmax(logits / 3, axis=1)])
    return logits.astype(np.float32), labels.astype(np.int64)


LOGITS, LABELS = made_up()
PROBABILITIES = softmax(LOGITS.astype(np.float64), axis=1)
CONFIDENCE, CORRECT = PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == LABELS


def test_confidences_are_the_largest_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "BLOCK", 300)
    np.testing.assert_allclose(c.confidences(LOGITS), CONFIDENCE, atol=1e-12)
    np.testing.assert_allclose(c.confidences(LOGITS, 2.5), softmax(LOGITS / 2.5, axis=1).max(axis=1), atol=1e-6)


def test_scores_agree_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """B8, C9: negative log likelihood and Brier score, also where the rows come in several blocks."""
    monkeypatch.setattr(c, "BLOCK", 300)
    classes = list(range(5))
    assert c.negative_log_likelihood(LOGITS, LABELS) == pytest.approx(log_loss(LABELS, PROBABILITIES, labels=classes), abs=1e-6)
    expected = brier_score_loss(LABELS, PROBABILITIES, labels=classes, scale_by_half=False)
    assert c.brier_score(LOGITS, LABELS) == pytest.approx(expected, abs=1e-6)


def test_reliability_agrees_with_scikit_learn() -> None:
    found = c.reliability(CONFIDENCE, CORRECT)
    accuracy, confidence = calibration_curve(CORRECT, CONFIDENCE, n_bins=15)
    there = found.counts > 0
    np.testing.assert_allclose(found.accuracy[there], accuracy, atol=1e-6)
    np.testing.assert_allclose(found.confidence[there], confidence, atol=1e-6)
    assert not there.all()  # with 5 classes no confidence lies below 0.2
    assert np.isnan(found.accuracy[~there]).all() and found.rows()[0] == {
        "above": 0,
        "up_to": 1 / 15,
        "images": 0,
        "confidence": None,
        "accuracy": None,
    }


def plain_ece(confidence: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> tuple[float, float]:
    """ECE and MCE as the formulas of Guo et al. 2017 say them: bins ((m - 1) / M, m / M]."""
    ece, mce = 0.0, 0.0
    for m in range(1, num_bins + 1):
        inside = (confidence > (m - 1) / num_bins) & (confidence <= m / num_bins)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            ece, mce = ece + inside.mean() * gap, max(mce, gap)
    return ece, mce


def test_calibration_errors_are_those_of_the_paper() -> None:
    found = c.reliability(CONFIDENCE, CORRECT)
    ece, mce = plain_ece(CONFIDENCE, CORRECT)
    assert (found.ece, found.mce) == (pytest.approx(ece, abs=1e-6), pytest.approx(mce, abs=1e-6))
    assert ece > 0.2 and found.bias == pytest.approx(CONFIDENCE.mean() - CORRECT.mean(), abs=1e-6)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    found = c.reliability(np.array([0.2, 0.5, 1.0, 1.0]), np.array([True, False, True, False]), num_bins=2)
    assert found.counts.tolist() == [2, 2]
    assert found.rows()[1] == {"above": 0.5, "up_to": 1.0, "images": 2, "confidence": 1.0, "accuracy": 0.5}
    assert found.ece == pytest.approx((2 * abs(0.5 - 0.35) + 2 * 0.5) / 4)


def test_adaptive_bins_hold_equally_many_images() -> None:
    found = c.adaptive_reliability(CONFIDENCE, CORRECT, num_bins=10)
    assert found.counts.tolist() == [200] * 10
    order = np.argsort(CONFIDENCE)
    gaps = [abs(CONFIDENCE[part].mean() - CORRECT[part].mean()) for part in order.reshape(10, 200)]
    assert found.ece == pytest.approx(np.mean(gaps), abs=1e-6)


def test_adaptive_bins_of_equal_confidences_are_fewer() -> None:
    found = c.adaptive_reliability(np.ones(40), np.arange(40) % 4 > 0)
    assert found.counts.tolist() == [40] and found.ece == pytest.approx(0.25)


def test_temperature_is_the_one_that_scipy_finds() -> None:
    """The labels were drawn at temperature 3."""
    found = c.fit_temperature(LOGITS, LABELS)
    best = minimize_scalar(
        lambda t: log_loss(LABELS, softmax(LOGITS.astype(np.float64) / t, axis=1)),
        bounds=(0.5, 10),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(best.x, abs=1e-5) and 2.5 < found < 3.5
    assert c.negative_log_likelihood(LOGITS, LABELS, found) <= best.fun + 1e-12


@pytest.mark.parametrize(("labels", "expected"), [([0, 1], c.LEAST_TEMPERATURE), ([1, 0], c.MOST_TEMPERATURE)])
def test_temperature_stays_within_bounds_where_all_is_right_or_wrong(labels: list[int], expected: float) -> None:
    logits = np.array([[2.0, -2.0], [-2.0, 2.0]], dtype=np.float32)
    assert c.fit_temperature(logits, np.array(labels)) == expected


def test_temperature_of_huge_logits_is_found_without_overflow() -> None:
    scaled = LOGITS * 20
    assert c.fit_temperature(scaled, LABELS) == pytest.approx(20 * c.fit_temperature(LOGITS, LABELS), rel=1e-5)


def test_risk_coverage_is_that_of_a_plain_loop() -> None:
    coverage, risk = c.risk_coverage(CONFIDENCE, CORRECT)
    order = np.argsort(-CONFIDENCE)
    expected = [1 - CORRECT[order[:i]].mean() for i in range(1, len(order) + 1)]
    np.testing.assert_allclose(risk, expected, atol=1e-9)
    assert coverage[-1] == 1 and risk[-1] == pytest.approx(1 - CORRECT.mean())
    assert c.area_under_risk_coverage(risk) == pytest.approx(np.mean(expected), abs=1e-9)
    assert c.least_area(1 - CORRECT.mean(), len(CORRECT)) < c.area_under_risk_coverage(risk) < 1 - CORRECT.mean()


def test_equal_confidences_have_no_order() -> None:
    correct = np.array([True, False, False, True])
    for turned in (correct, correct[::-1]):
        _, risk = c.risk_coverage(np.full(4, 0.7), turned)
        assert risk.tolist() == [0.5] * 4


def test_the_least_area_is_that_of_errors_at_the_end() -> None:
    correct = np.array([True] * 7 + [False] * 3)
    _, risk = c.risk_coverage(np.linspace(1, 0.1, 10), correct)
    assert c.least_area(0.3, 10) == pytest.approx(c.area_under_risk_coverage(risk))
