"""What a browser sends of four pads: checked number by number before anything is drawn."""

import math
from typing import Any

from firstlight.dashboard.lock import NUM_DIGITS
from firstlight.dashboard.strokes import Stroke
from firstlight.errors import ConfigError

MAX_STROKES, MAX_POINTS = 50, 5000
"""Of a pad: strokes, and points of all of them."""
EDGE = 0.2
"""How far a pen may go over the edge of a pad, as a share of its side."""


def parse_pads(sent: Any) -> list[list[Stroke]]:
    """Return the strokes of each pad: a list of strokes a pad, a list of points [x, y] a stroke, 0 to 1 from the top left corner.

    Raises ConfigError that names the pad, from 1, for anything else, and for a pad on which nothing is drawn.
    """
    if not isinstance(sent, list) or len(sent) != NUM_DIGITS:
        raise ConfigError(f"pads must be a list of {NUM_DIGITS} pads; draw one digit on each")
    pads = [_parse_pad(pad, number) for number, pad in enumerate(sent, 1)]
    if empty := [str(number) for number, pad in enumerate(pads, 1) if not pad]:
        raise ConfigError(
            f"nothing is drawn on pad {' and '.join(empty) if len(empty) < 3 else ', '.join(empty)}; draw a digit on each of the four"
        )
    return pads


def _parse_pad(pad: Any, number: int) -> list[Stroke]:
    if not isinstance(pad, list) or len(pad) > MAX_STROKES:
        raise ConfigError(f"pad {number} must be a list of at most {MAX_STROKES} strokes; clear it and draw again")
    if not all(isinstance(stroke, list) for stroke in pad) or sum(map(len, pad)) > MAX_POINTS:
        raise ConfigError(f"pad {number}: a stroke is a list of points, and a pad has at most {MAX_POINTS} points; clear it and draw again")
    return [[_parse_point(point, number) for point in stroke] for stroke in pad if stroke]


def _parse_point(point: Any, number: int) -> tuple[float, float]:
    if isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) and _is_near(value) for value in point):
        return float(point[0]), float(point[1])
    raise ConfigError(f"pad {number}: a point is [x, y] with numbers from 0 to 1; clear it and draw again")


def _is_near(value: float) -> bool:
    return -EDGE <= value <= 1 + EDGE and math.isfinite(value)
