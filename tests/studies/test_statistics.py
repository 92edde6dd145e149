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


@pytest.mark.parametrize("n", [2, 3, 5])
def test_accuracies_on_few_images_raise_no_false_alarms(n: int) -> None:
    """F2: accuracies come in steps of 1 / images, so that differences may be equal by chance; at most 5.5 % of 2,000 cases alarm."""
    draws = np.random.default_rng(0).binomial(100, 0.9, (2_000, 2, n)) / 100
    assert sum(compare_paired(list(a), list(b)).is_more_than_noise() for a, b in draws) / 2_000 <= 0.055


def draw_studies(num_points: int, seeds: int) -> np.ndarray:
    """2,000 studies of equal settings, each seed easier or harder for all: [study, point, seed]."""
    generator = np.random.default_rng(0)
    return generator.normal(0.9, 0.01, (2_000, num_points, seeds)) + generator.normal(0, 0.01, (2_000, 1, seeds))


def false_alarms(studies: np.ndarray, *, against_best: bool, num_tests: int | None) -> float:
    """The share of studies in which a comparison with the best point (or the first) is called more than noise."""
    alarms = 0
    for study in studies:
        chosen = int(study.mean(1).argmax()) if against_best else 0
        others = [point for index, point in enumerate(study) if index != chosen]
        alarms += min(holm([compare_paired(list(point), list(study[chosen])).p for point in others], num_tests)) < 0.05
    return alarms / len(studies)


def test_holm_keeps_the_family_wise_error() -> None:
    """F2: of 2,000 studies of ten equal settings, 5 % (and what 2,000 leave open) find anything against one named before."""
    assert false_alarms(draw_studies(10, 5), against_best=False, num_tests=None) <= 0.06


def test_the_best_was_chosen_among_all_pairs() -> None:
    """F2: against the best the plain correction gives false alarms in about 11 % of studies; with all pairs counted in at most 5 %."""
    studies = draw_studies(10, 5)
    assert false_alarms(studies, against_best=True, num_tests=None) > 0.08
    assert false_alarms(studies, against_best=True, num_tests=45) <= 0.05


def test_what_the_bootstrap_covers() -> None:
    """F2: stated honestly: of normal figures with n = 5 the bootstrap's 95 % interval covers the truth in 82 to 87 % of 500 cases."""
    draws = np.random.default_rng(0).normal(0.9, 0.01, (500, 5))
    covered = sum(found.low <= 0.9 <= found.high for found in (bootstrap(list(case), resamples=1_000) for case in draws))
    assert 0.82 <= covered / 500 <= 0.87


def test_an_interval_is_cut_to_what_is_possible() -> None:
    found = estimate([0.2, 0.98, 0.99]).within(0, 1)
    assert found.high == 1.0
    assert found.low > 0 or found.low == 0.0
    assert math.isnan(estimate([0.5]).within(0, 1).low)


def test_a_corrected_p_decides_the_sentence() -> None:
    found = compare_paired([0.90, 0.91, 0.92], [0.93, 0.938, 0.95])
    assert found.is_more_than_noise()
    assert found.sentence("a", "b", corrected=0.2).startswith("no difference beyond seed noise between a and b")
    assert "(0.2 corrected for all comparisons" in found.sentence("a", "b", corrected=0.2)


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
    """Differences that are all the same come of coarse steps: two of them are no certainty."""
    assert compare_paired([0.5, 0.6], [0.5, 0.6]).p == 1.0
    assert compare_paired([0.5, 0.6], [0.75, 0.85]).p == 0.5
    assert compare_paired([0.5] * 6, [0.75] * 6).is_more_than_noise()
    assert math.isnan(estimate([0.5]).low)


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, math.inf]])
def test_what_is_not_finite_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="diverged"):
        estimate(values)
