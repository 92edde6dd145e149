"""Figures as a report says them: with four decimals, with their interval, as people say a time."""

from typing import Any

from firstlight.metrics.evaluation import wilson_interval
from firstlight.tracking.values import number


def four(value: Any) -> str:
    """Return a number with four decimals; a number that broke by name."""
    shown = number(value)
    return "not finite" if shown is None else f"{shown:.4f}"


def interval_of(accuracy: Any, num_images: Any) -> str:
    """Return the 95 % interval of an accuracy over so many images (Wilson 1927), or nothing where either is not known."""
    found = low_and_high(accuracy, num_images)
    return f"95 % interval {found[0]:.4f} to {found[1]:.4f}, {round(num_images):,} images" if found else ""


def low_and_high(accuracy: Any, num_images: Any) -> tuple[float, float] | None:
    """Return the ends of that interval."""
    share, num = number(accuracy), number(num_images)
    if share is None or num is None or num < 1 or not 0 <= share <= 1:
        return None
    return wilson_interval(round(share * num), round(num))


def duration(seconds: Any) -> str:
    """Return seconds as people say them: `6.0 s`, `4 min 10 s`, `2 h 5 min`."""
    left = number(seconds)
    if left is None:
        return "not known"
    if left < 100:
        return f"{left:.1f} s"
    minutes, rest = divmod(round(left), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
