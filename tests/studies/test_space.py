"""What is varied: grids, draws, conditions, and every way to say it wrong."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.errors import ConfigError
from firstlight.studies.samplers import points
from firstlight.studies.space import Choice, Interval, Space, parse_space


def test_grid_of_two_parameters() -> None:
    """C5: two overlapping parameters, 10 x 10, the last one changing fastest."""
    space = parse_space({"optim.lr": "log:1e-4:1:10", "model.init_scale": "lin:0:0.9:10"}, needs_grid=True)
    grid = list(space.grid())
    assert len(grid) == space.grid_size() == 100
    assert grid[0] == {"optim.lr": 1e-4, "model.init_scale": 0.0}
    assert grid[1] == {"optim.lr": 1e-4, "model.init_scale": 0.1}
    assert grid[-1] == {"optim.lr": 1.0, "model.init_scale": 0.9}
    ratios = [grid[10 * (place + 1)]["optim.lr"] / grid[10 * place]["optim.lr"] for place in range(9)]
    assert ratios == pytest.approx([10 ** (4 / 9)] * 9, rel=1e-4)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("0.1,0.2,0.3", (0.1, 0.2, 0.3)),
        ("relu,gelu", ("relu", "gelu")),
        ("[16],[16, 16]", ([16], [16, 16])),
        ([None, 4], (None, 4)),
        ("int:1:5:5", (1, 2, 3, 4, 5)),
        ("logint:1:2000:12", (1, 2, 4, 8, 16, 32, 63, 126, 252, 502, 1002, 2000)),
        ("logint:1:4:9", (1, 2, 3, 4)),
        ("lin:0:1:3", (0.0, 0.5, 1.0)),
        ("log:1e-3:1e-1:3", (0.001, 0.01, 0.1)),
        ({"low": 1, "high": 9, "num": 3, "scale": "int"}, (1, 5, 9)),
        ({"values": ["a", "b"]}, ("a", "b")),
    ],
)
def test_ways_to_say_values(entry: Any, values: tuple[Any, ...]) -> None:
    """C4: among them hidden sizes 1, 2, 4, ..., 2000."""
    assert parse_space({"key": entry}, needs_grid=True).parameters["key"].grid() == values


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "space is empty; name what is varied"),
    ({"a": "log:0:1:3"}, "space: a goes from 0 on a logarithmic scale, which has no 0; begin above 0"),
    ({"a": "lin:2:1:3"}, "space: a goes from 2 to 1; the first number must be the smaller one"),
    ({"a": "lin:1:1:3"}, "space: a goes from 1 to 1; the first"),
    ({"a": "log:1e-3:1"}, "space: a has no number of values for the grid; write a=log:LOW:HIGH:NUM, or take sampler=random"),
    ({"a": "lin:0:.inf:3"}, "space: a: high is inf; it must be a finite number"),
    ({"a": "lin:x:1:3"}, "space: a: low is 'x'; it must be a finite number"),
    ({"a": "log:1"}, "space: a is 'log:1'; write log:LOW:HIGH"),
    ({"a": "int:0.5:2:3"}, "space: a goes from 0.5 to 2; whole numbers need whole ends"),
    ({"a": "lin:0:1:0"}, "space: a: num is 0; it must be a whole number of 1 or more"),
    ({"a": []}, "space: a has no values; write a list"),
    ({"a": [1, 2, 1]}, "space: a names 1 twice; name each value once"),
    ({"a": 3}, "space: a is 3; write a list of values"),
    ({"a": {"low": 0, "hi": 1}}, "space: a has the unknown key 'hi'; allowed: high, low, num, scale, when"),
    ({"a": {"low": 0, "high": 1, "scale": "cubic"}}, "space: a has the scale 'cubic'; allowed: log, lin, int, logint"),
    ({"a": {"values": [1], "when": {"b": 1}}}, "space: a depends on 'b', which is no other parameter"),
    ({"a": {"values": [1], "when": 3}}, "space: a: when is 3; write one key and its values"),
    (
        {"a": {"values": [1], "when": {"b": 1}}, "b": {"values": [1], "when": {"a": 1}}},
        "space: conditions lead back to themselves: a -> b -> a; take one of them out",
    ),
    (dict.fromkeys("abc", "lin:0:1:1000"), "space: 1,000,000,000 grid points; at most 1,000,000 are tried"),
]


@pytest.mark.parametrize(("entries", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_space_is_one_line(entries: dict[str, Any], message: str) -> None:
    """Empty space, a range the wrong way round, log of zero, 10^9 points: one line that says what to write."""
    with pytest.raises(ConfigError) as caught:
        parse_space(entries, needs_grid=True)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_conditions_leave_out_what_does_not_apply() -> None:
    entries = {"optim": ["sgd", "adam"], "optim.momentum": {"values": [0, 0.9], "when": {"optim": "sgd"}}, "seed2": [1, 2]}
    grid = list(parse_space(entries, needs_grid=True).grid())
    assert len(grid) == 6
    assert [point for point in grid if point["optim"] == "adam"] == [{"optim": "adam", "seed2": 1}, {"optim": "adam", "seed2": 2}]
    deeper = {**entries, "optim.nesterov": {"values": [True], "when": {"optim.momentum": 0.9}}}
    assert all(("optim.nesterov" in point) == (point.get("optim.momentum") == 0.9) for point in parse_space(deeper, needs_grid=True).grid())


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_draws_do_not_depend_on_how_many_there_are(sampler: str) -> None:
    """More points of a finished study: the first ones stay."""
    space = parse_space({"a": "log:1e-4:1", "b": "int:1:9", "c": ["x", "y"]}, needs_grid=False)
    few, many = list(points(sampler, space, 5, seed=3)), list(points(sampler, space, 20, seed=3))
    assert many[:5] == few
    assert list(points(sampler, space, 5, seed=4)) != few
    assert all(1e-4 <= point["a"] <= 1 and point["b"] in range(1, 10) and point["c"] in ("x", "y") for point in many)


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_a_small_space_is_drawn_without_repetition_and_then_used_up(sampler: str) -> None:
    space = parse_space({"a": [1, 2, 3], "b": ["x", "y"]}, needs_grid=False)
    found = [tuple(point.values()) for point in points(sampler, space, 100)]
    assert sorted(found) == [(a, b) for a in (1, 2, 3) for b in "xy"]


def test_sobol_covers_better_than_random() -> None:
    """E7: of 64 draws, each of 64 stretches of an axis holds one; random leaves a third of them empty."""
    space = Space({"a": Interval(0, 1), "b": Interval(0, 1)})
    filled = {name: len({int(point["a"] * 64) for point in points(name, space, 64)}) for name in ("sobol", "random")}
    assert filled["sobol"] == 64
    assert filled["random"] < 50


def test_whole_numbers_are_equally_likely() -> None:
    counts = Counter(Interval(1, 4, integer=True).at(share) for share in np.random.default_rng(0).random(4_000))
    assert sorted(counts) == [1, 2, 3, 4]
    assert min(counts.values()) > 900


@given(low=st.floats(1e-6, 1), factor=st.floats(1.001, 1e6), share=st.floats(0, 1, exclude_max=True))
def test_a_draw_lies_in_its_range(low: float, factor: float, share: float) -> None:
    for log in (True, False):
        value = Interval(low, low * factor, log=log).at(share)
        assert low * (1 - 1e-9) <= value <= low * factor * (1 + 1e-9)


def test_the_edges_of_a_range_are_known() -> None:
    """C4: a best value at an end of its range is worth a warning."""
    space = Space({"lr": Interval(1e-4, 1, log=True, num=5), "size": Choice((16, 32, 64)), "kind": Choice(("a", "b", "c"))})
    assert space.at_edge({"lr": 1.0, "size": 32, "kind": "a"}) == ["lr"]
    assert space.at_edge({"lr": 0.01, "size": 64, "kind": "c"}) == ["size"]
    assert not math.isnan(space.parameters["lr"].at(0.5))


def test_lists_of_one_number_have_edges_too() -> None:
    """C4: a hidden layer is written as a list; lists of several sizes have no order."""
    assert Choice(([1], [2000], [30])).edges() == ([1], [2000])
    assert Choice(([64], [64, 64], [64, 64, 64])).edges() == ()


def test_a_sampler_without_end_needs_a_number() -> None:
    with pytest.raises(ConfigError, match=r"sampler random has no end of its own; say how many points: budget\.trials=N"):
        points("random", Space({"a": Interval(0, 1)}), None)
