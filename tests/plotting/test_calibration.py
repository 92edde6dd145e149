"""Reliability diagram and risk-coverage curve."""

import numpy as np

from firstlight.metrics import calibration as c
from firstlight.plotting.calibration import MOST_POINTS, Bars, plot_reliability, plot_risk_coverage


def bars_of(name: str, confidence: np.ndarray, correct: np.ndarray) -> Bars:
    found = c.reliability(confidence, correct)
    return Bars(name, found.lows, found.highs, found.counts, found.confidence, found.accuracy, found.ece)


RNG = np.random.default_rng(0)
CONFIDENCE = RNG.uniform(0.3, 1, 500)
CORRECT = RNG.random(500) < CONFIDENCE - 0.1


def test_a_column_for_each_set_of_probabilities():
    parts = [bars_of("as trained", CONFIDENCE, CORRECT), bars_of("at temperature 2", CONFIDENCE * 0.9, CORRECT)]
    figure = plot_reliability(parts, title="first")
    titles = [axes.get_title(loc="left") for axes in figure.axes[:2]]
    assert titles == [f"{bars.name}: calibration error {bars.ece:.2%}" for bars in parts]
    first, _, counts, _ = figure.axes
    accuracy = {round(bar.get_x(), 6): bar.get_height() for bar in first.patches if bar.get_hatch() is None}
    np.testing.assert_allclose(list(accuracy.values()), parts[0].accuracy[parts[0].counts > 0])
    assert (
        sum(bar.get_height() for bar in counts.patches) == 100 * (1 + 1e-12)
        or abs(sum(bar.get_height() for bar in counts.patches) - 100) < 1e-9
    )
    assert first.get_ylabel() == "accuracy (share right)" and counts.get_ylabel() == "% of images"


def test_bins_of_few_images_are_pale():
    confidence = np.concatenate([np.full(3, 0.5), np.full(30, 0.95)])
    figure = plot_reliability([bars_of("as trained", confidence, confidence > 0)], title="first")
    alphas = {round(bar.get_x(), 3): bar.get_alpha() for bar in figure.axes[0].patches if bar.get_hatch() is None}
    assert alphas == {0.467: 0.4, 0.933: 1.0}


def test_risk_against_coverage():
    coverage, risk = c.risk_coverage(CONFIDENCE, CORRECT)
    axes = plot_risk_coverage(coverage, risk, aurc=0.0123, title="first").axes[0]
    curve, whole, best = axes.lines
    np.testing.assert_allclose(curve.get_ydata(), 100 * risk)
    assert whole.get_ydata()[0] == 100 * risk[-1]
    assert (best.get_ydata() <= curve.get_ydata() + 1e-9).all() and best.get_ydata()[-1] == 100 * risk[-1]
    assert axes.get_ylabel() == "risk (% of them wrong)"


def test_a_long_curve_is_drawn_with_fewer_points_and_both_ends():
    num = 100_000
    coverage, risk = c.risk_coverage(np.linspace(1, 0.1, num), np.arange(num) % 10 > 0)
    x = plot_risk_coverage(coverage, risk, aurc=0.1, title="first").axes[0].lines[0].get_xdata()
    assert len(x) == MOST_POINTS and x[0] == 1 / num and x[-1] == 1


def test_no_errors_at_all_can_be_drawn():
    coverage, risk = c.risk_coverage(np.linspace(1, 0.5, 5), np.ones(5, bool))
    assert plot_risk_coverage(coverage, risk, aurc=0.0, title="first").axes[0].get_ylim()[1] > 0
