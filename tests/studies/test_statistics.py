"""Statistics against scipy as oracle, and on synthetic figures whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from firstlight.studies.statistics import bootstrap, compare_paired, estimate, holm, proportion, t_cdf, t_quantile

FIGURES = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


@settings(deadline=None)
@given(share=st.floats(0.001, 0.999), freedom=st.integers(1, 500))
def test_t_is_that_of_scipy(share: float, freedom: int) -> None:
    t = stats.t.ppf(share, freedom)
    assert t_quantile(share, freedom) == pytest.approx(t, rel=1e-8, abs=1e-8)
    assert t_cdf(t, freedom) == pytest.approx(share, rel=1e-8)


@settings(deadline=None)
@given(values=FIGURES)
def test_interval_is_that_of_scipy(values: list[float]) -> None:
    """F2, C6: mean, deviation and 95 % interval."""
    found, data = estimate(values), np.array(values)
    assert found.mean == pytest.approx(data.mean())
    assert found.std == pytest.approx(data.std(ddof=1))
    if found.std > 1e-9:
        low, high = stats.t.interval(0.95, len(data) - 1, loc=data.mean(), scale=stats.sem(data))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-7, abs=1e-9)


@settings(deadline=None)
@given(values=FIGURES)
def test_paired_test_is_that_of_scipy(values: list[float]) -> None:
    others = [value * 1.01 + math.sin(index) for index, value in enumerate(values)]
    found, oracle = compare_paired(values, others), stats.ttest_rel(others, values)
    if found.difference.std > 1e-9:
        assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-9)


def test_bootstrap_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=25)
    found = bootstrap(list(values))
    oracle = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", random_state=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=0.02)


def test_wilsons_interval_is_that_of_scipy() -> None:
    """D21: the interval of an accuracy."""
    for successes, n in ((0, 10), (9, 10), (850, 1000), (9_812, 10_000)):
        found, oracle = proportion(successes, n), stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5]
    assert holm([]) == []


@pytest.mark.parametrize("n", [3, 5, 10])
def test_interval_covers_the_truth_and_the_test_raises_no_false_alarms(n: int) -> None:
    """F2: a 95 % interval covers the true mean in 95 +- 1.5 % of 2,000 cases; the paired test raises at most 5.5 % false alarms
    (plus what 2,000 cases leave open)."""
    draws = np.random.default_rng(0).normal(0.9, 0.01, (2_000, 2, n))
    covered = sum(found.low <= 0.9 <= found.high for found in (estimate(list(case[0])) for case in draws))
    alarms = sum(compare_paired(list(case[0]), list(case[1])).is_more_than_noise() for case in draws)
    assert 0.935 <= covered / 2_000 <= 0.965
    assert alarms / 2_000 <= 0.055


def test_a_real_difference_is_found_and_said() -> None:
    seeds = np.random.default_rng(0).normal(0, 0.02, 5)
    worse, better = list(0.90 + seeds), list(0.91 + seeds + [0.001, -0.001, 0.0, 0.001, 0.0])
    found = compare_paired(worse, better)
    assert found.is_more_than_noise()
    assert found.sentence("sgd", "adam").startswith("adam has 0.0102 more accuracy than sgd (95 % interval +0.0")
    same = compare_paired(worse, list(reversed(worse)))
    assert same.sentence("sgd", "adam").startswith("no difference beyond seed noise between sgd and adam")
    assert "run more seeds" in compare_paired([0.9], [0.8]).sentence("a", "b")


def test_equal_figures_are_no_finding() -> None:
    assert compare_paired([0.5, 0.6], [0.5, 0.6]).p == 1.0
    assert compare_paired([0.5, 0.6], [0.75, 0.85]).is_more_than_noise()
    assert math.isnan(estimate([0.5]).low)


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, math.inf]])
def test_what_is_not_finite_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="diverged"):
        estimate(values)
