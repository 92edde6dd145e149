"""What a browser may send of four pads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.dashboard.drawing import MAX_POINTS, MAX_STROKES, parse_pads
from firstlight.dashboard.strokes import as_mnist, draw
from firstlight.errors import ConfigError

STROKE = [[0.1, 0.2], [1, 0]]


def test_four_pads_are_taken() -> None:
    assert parse_pads([[STROKE], [STROKE, [[0.5, 0.5]]], [STROKE], [[], STROKE]])[1] == [[(0.1, 0.2), (1.0, 0.0)], [(0.5, 0.5)]]


@pytest.mark.parametrize(
    ("pads", "says"),
    [
        ([[], [STROKE], [STROKE], [STROKE]], "on pad 1;"),
        ([[STROKE], [], [STROKE], [[]]], "on pad 2 and 4;"),
        ([[]] * 4, "on pad 1, 2, 3, 4;"),
    ],
)
def test_all_four_must_be_drawn(pads: Any, says: str) -> None:
    """E13: it refuses until all four are drawn, and says which are not."""
    with pytest.raises(ConfigError, match=f"nothing is drawn {says} draw a digit on each of the four"):
        parse_pads(pads)


POINTS: list[Any] = [
    [],
    [1],
    [0, 0, 0],
    [True, 0],
    ["0", 0],
    [None, 0],
    [float("nan"), 0],
    [float("inf"), 0],
    [1.3, 0],
    [0, -0.3],
    [10**400, 0],
    {},
    "ab",
    3,
]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {},
        "pads",
        [],
        [[STROKE]] * 3,
        [[STROKE]] * 5,
        [[STROKE]] * 3 + [None],
        [[STROKE]] * 3 + [{}],
        [[STROKE]] * 3 + [["x"]],
        [[STROKE]] * 3 + [[STROKE] * (MAX_STROKES + 1)],
        [[STROKE]] * 3 + [[[[0, 0]] * (MAX_POINTS + 1)]],
        *([[STROKE]] * 3 + [[[point]]] for point in POINTS),
    ],
)
def test_anything_else_is_one_line(sent: Any) -> None:
    """Fault 52: a malformed drawing names its pad."""
    with pytest.raises(ConfigError, match="; ") as caught:
        parse_pads(sent)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=30,
)
NUMBERS = st.floats(-0.2, 1.2)
PADS = st.lists(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS).map(list), max_size=6), max_size=4), min_size=4, max_size=4)


@settings(max_examples=150, deadline=None)
@given(JSON | PADS)
def test_whatever_comes_is_drawn_or_refused(sent: Any) -> None:
    """Fault 52: a drawing is an image or one line."""
    try:
        pads = parse_pads(sent)
    except ConfigError:
        return
    assert all(as_mnist(draw(strokes)).dtype == np.uint8 for strokes in pads)
