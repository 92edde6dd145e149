"""Which parameter mattered: exact shares of grids by hand, the forest against scikit-learn."""

import itertools

import numpy as np
import pytest

from firstlight.studies.importance import encode, grow, importance, predict, variance_shares


def test_shares_of_a_grid_by_hand() -> None:
    """A16, E7: y = 3 a + b on a 2 x 2 grid has variance 2.25 from a and 0.25 from b, nothing else."""
    found = variance_shares(["b", "a"], np.array([[[0.0, 3.0], [1.0, 4.0]]]))
    assert found is not None
    assert found.names == ("a", "b")
    assert found.shares == pytest.approx((0.9, 0.1))
    assert found.chance == pytest.approx((1 / 3, 1 / 3))
    assert found.remark == "0% of the variance are interactions and seed noise"


def test_pure_interaction_is_no_main_effect() -> None:
    found = variance_shares(["a", "b"], np.array([[[0.0, 1.0], [1.0, 0.0]]]))
    assert found is not None
    assert found.shares == (0.0, 0.0)
    assert found.remark.startswith("100% of the variance are interactions")


def test_shares_agree_with_the_analysis_of_variance() -> None:
    """On a random 3 x 4 x 2 table the main effects and all interactions of the decomposition add up to the whole."""
    table = np.random.default_rng(0).normal(size=(3, 4, 2))
    found = variance_shares(["a", "b", "c"], table[None])
    assert found is not None
    mean, rest = table.mean(), table.copy()
    for axes in ((1, 2), (0, 2), (0, 1)):
        rest -= table.mean(axes, keepdims=True) - mean
    assert sum(found.shares) == pytest.approx(1 - ((rest - mean) ** 2).mean() / table.var())


def test_a_grid_is_answered_exactly_and_seeds_give_the_spread() -> None:
    points = [{"lr": lr, "name": name} for lr, name in itertools.product((0.1, 0.01), ("x", "y", "z"))]
    values = [{seed: 10 * point["lr"] + seed * (point["name"] == "x") for seed in (0, 1)} for point in points]
    found = importance(points, values, {"lr": True, "name": False})
    assert found is not None
    assert found.names[0] == "lr"
    assert (found.low[0], found.high[0]) != (1.0, 1.0)
    assert found.high[0] == pytest.approx(1.0)
    assert found.low[1] == 0.0
    assert "exact for this grid" in found.method


def test_one_parameter_or_few_points_say_nothing() -> None:
    assert importance([{"a": 1}, {"a": 2}], [{0: 0.1}, {0: 0.2}], {"a": False}) is None
    draws = [{"a": index, "b": index % 3} for index in range(5)]
    assert importance(draws, [{0: 0.1 * index} for index in range(5)], {"a": False, "b": False}) is None
    assert importance([{"a": 1, "b": 2}], [{}], {"a": False, "b": False}) is None


def test_a_tree_is_that_of_scikit_learn() -> None:
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(0)
    columns = rng.random((80, 3))  # compared where it was grown: elsewhere splits that are equally good may differ
    values = np.sin(6 * columns[:, 0]) + columns[:, 1] ** 2
    oracle = DecisionTreeRegressor(min_samples_leaf=2, random_state=0).fit(columns, values)
    assert predict(grow(columns, values, leaf=2), columns) == pytest.approx(oracle.predict(columns))


def test_the_forest_sees_what_scikit_learns_forest_sees() -> None:
    """Draws of four parameters, of which one matters most, one somewhat and two not at all: the same order."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    rng = np.random.default_rng(0)
    points = [{key: float(value) for key, value in zip("abcd", row, strict=True)} for row in rng.random((120, 4))]
    values = [{0: 3 * (point["a"] - 0.5) ** 2 + 0.3 * point["b"] + 0.02 * rng.normal()} for point in points]
    found = importance(points, values, dict.fromkeys("abcd", False))
    assert found is not None
    assert found.names[:2] == ("a", "b")
    assert max(abs(share) for share in found.shares[2:]) < 0.05
    columns, truth = np.array([list(point.values()) for point in points]), np.array([value[0] for value in values])
    oracle = RandomForestRegressor(200, min_samples_leaf=2, random_state=0, oob_score=True).fit(columns[:60], truth[:60])
    theirs = permutation_importance(oracle, columns[60:], truth[60:], random_state=0, n_repeats=20)["importances_mean"]
    assert list(np.argsort(-theirs)[:2]) == [0, 1]


def test_a_forest_without_a_pattern_says_so() -> None:
    rng = np.random.default_rng(1)
    points = [{"a": float(a), "b": float(b)} for a, b in rng.random((30, 2))]
    found = importance(points, [{0: float(rng.normal())} for _ in points], {"a": False, "b": False})
    assert found is not None
    assert found.remark.endswith("too little for the bars to mean much")


def test_what_is_no_number_or_does_not_apply_has_its_place() -> None:
    points = [{"optim": "sgd", "momentum": 0.9}, {"optim": "adam"}, {"optim": "sgd", "momentum": 0.0}]
    columns, groups = encode(points, ["optim", "momentum"], {"optim": False, "momentum": False})
    assert groups == [[0, 1], [2]]
    assert columns.tolist() == [[1, 0, 0.9], [0, 1, -1.0], [1, 0, 0.0]]
