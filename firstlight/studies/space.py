"""What a study varies: parameters with their values or ranges, some of them only where another one has a certain value.

A parameter turns a number in [0, 1) into a value (`at`), so that random draws and Sobol points share one mapping, and lists its grid.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from firstlight.config.yaml import brief, parse_yaml
from firstlight.errors import ConfigError

MAX_POINTS = 1_000_000
"""Points of a grid; nobody waits for more, and a slip of the keyboard asks for them."""
SCALES = ("log", "lin", "int", "logint")

Point = dict[str, Any]
"""The value of each parameter that applies, by its key in the config: {"optim.lr": 0.1, "model.hidden": [16]}."""


def number_of(value: Any) -> int | float | None:
    """Return the number that a value is, or the only one of a list such as `hidden: [16]`; None for anything else."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Choice:
    """One of several values, all equally likely."""

    values: tuple[Any, ...]

    scale = "values"

    def at(self, share: float) -> Any:
        """Return the value at a place in [0, 1)."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def grid(self) -> tuple[Any, ...]:
        """Return all values."""
        return self.values

    def edges(self) -> tuple[Any, ...]:
        """Return the ends of the range: the least and the largest value where all are numbers or lists of one number, else none."""
        numbers = all(number_of(value) is not None for value in self.values)
        return (min(self.values), max(self.values)) if numbers and len(self.values) > 2 else ()


@dataclass(frozen=True)
class Interval:
    """A number between two others; equal steps have equal weight, on a logarithmic scale equal factors.

    num: values on a grid, both ends included; None where only draws are asked for.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    num: int | None = None

    @property
    def scale(self) -> str:
        """The scale of an axis that shows it."""
        return "log" if self.log else "linear"

    def at(self, share: float) -> Any:
        """Return the value at a place in [0, 1)."""
        if self.integer:  # each whole number has its own stretch, half a step to both sides
            low, high = self.low - 0.5, self.high + 0.5
            value = low * (high / low) ** share if self.log else low + (high - low) * share
            return min(max(round(value), int(self.low)), int(self.high))
        return self.low * (self.high / self.low) ** share if self.log else self.low + (self.high - self.low) * share

    def grid(self) -> tuple[Any, ...]:
        """Return `num` values from low to high; whole numbers that fall together count once."""
        assert self.num is not None
        if self.num == 1:
            return (self._rounded(self.low),)
        steps = [step / (self.num - 1) for step in range(self.num)]
        values = [self.low * (self.high / self.low) ** step if self.log else self.low + (self.high - self.low) * step for step in steps]
        return tuple(dict.fromkeys(map(self._rounded, values)))

    def edges(self) -> tuple[Any, ...]:
        """Return both ends."""
        return (self._rounded(self.low), self._rounded(self.high))

    def _rounded(self, value: float) -> Any:
        return round(value) if self.integer else float(f"{value:.6g}")


Parameter = Choice | Interval


@dataclass(frozen=True)
class Space:
    """The parameters of a study by their key; `conditions` says of which values of another key one depends."""

    parameters: Mapping[str, Parameter]
    conditions: Mapping[str, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)

    def grid_size(self) -> int:
        """Return the points of the whole grid, those that a condition makes equal counted several times."""
        return math.prod(len(parameter.grid()) for parameter in self.parameters.values())

    def grid(self) -> Iterator[Point]:
        """Yield every combination once, the last parameter changing fastest."""
        seen = set()
        for values in itertools.product(*(parameter.grid() for parameter in self.parameters.values())):
            point = self._applying(dict(zip(self.parameters, values, strict=True)))
            if self.conditions and (key := repr(point)) in seen:
                continue
            seen |= {key} if self.conditions else set()
            yield point

    def at(self, shares: Sequence[float]) -> Point:
        """Return the point at a place in the unit cube, one share in [0, 1) for each parameter."""
        values = {key: parameter.at(share) for (key, parameter), share in zip(self.parameters.items(), shares, strict=True)}
        return self._applying(values)

    def at_edge(self, point: Point) -> list[str]:
        """Return the parameters whose value in `point` lies at an end of their range (C4: the best may lie beyond)."""
        return [key for key, value in point.items() if key in self.parameters and value in self.parameters[key].edges()]

    def _applying(self, values: Point) -> Point:
        """Leave out the parameters whose condition is not met; one may hang on another that does."""
        kept: Point = {}
        for key, value in values.items():
            other, allowed = self.conditions.get(key, ("", ()))
            if not other or (other in values and values[other] in allowed and self._holds(other, values)):
                kept[key] = value
        return kept

    def _holds(self, key: str, values: Point) -> bool:
        other, allowed = self.conditions.get(key, ("", ()))
        return not other or (values[other] in allowed and self._holds(other, values))


def parse_space(entries: Mapping[str, Any], *, needs_grid: bool) -> Space:
    """Return the space that the `space` section of a study file, or its inline form, says.

    An entry is a list of values, a text such as `log:1e-4:1:9` (scale, low, high, values on a grid), or a mapping with `values`, or with
    `low`, `high`, `scale` and `num`; and in a mapping `when: {key: value or values}`. Raises ConfigError.
    """
    if not entries:
        raise ConfigError("space is empty; name what is varied, such as `space: {optim.lr: log:1e-4:1:9}` or --grid optim.lr=log:1e-4:1:9")
    parameters, conditions = {}, {}
    for key, entry in entries.items():
        parameters[key] = _parameter(key, entry)
        if isinstance(entry, Mapping) and "when" in entry:
            conditions[key] = _condition(key, entry["when"], entries)
    for key in conditions:
        _refuse_circles(key, conditions)
    space = Space(parameters, conditions)
    if needs_grid:
        for key, parameter in parameters.items():
            if isinstance(parameter, Interval) and parameter.num is None:
                raise ConfigError(
                    f"space: {key} has no number of values for the grid; write {key}=log:LOW:HIGH:NUM, or take sampler=random"
                )
        if (size := space.grid_size()) > MAX_POINTS:
            raise ConfigError(f"space: {size:,} grid points; at most {MAX_POINTS:,} are tried: take fewer values, or sampler=random")
    return space


def _parameter(key: str, entry: Any) -> Parameter:
    if isinstance(entry, str):
        return _from_text(key, entry)
    if isinstance(entry, list | tuple):
        return _choice(key, entry)
    if isinstance(entry, Mapping):
        if "values" in entry:
            _refuse_unknown(key, entry, {"values", "when"})
            return _choice(key, entry["values"])
        _refuse_unknown(key, entry, {"low", "high", "scale", "num", "when"})
        return _interval(key, entry.get("scale", "lin"), entry.get("low"), entry.get("high"), entry.get("num"))
    raise ConfigError(f"space: {key} is {brief(repr(entry))}; write a list of values, or a range such as log:1e-4:1:9")


def _from_text(key: str, text: str) -> Parameter:
    """Read `log:1e-4:1:9`, `int:1:100`, or values parted by commas."""
    scale, *rest = text.split(":")
    if scale in SCALES and 2 <= len(rest) <= 3:
        return _interval(key, scale, *(parse_yaml(part, f"space: {key}").value for part in rest))
    if scale in SCALES:
        raise ConfigError(f"space: {key} is {brief(repr(text))}; write {scale}:LOW:HIGH, or {scale}:LOW:HIGH:NUM for a grid")
    return _choice(key, parse_yaml(f"[{text}]", f"space: {key}").value)


def _choice(key: str, values: Any) -> Choice:
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"space: {key} has no values; write a list of them, or a range such as log:1e-4:1:9")
    doubles = [value for index, value in enumerate(values) if value in values[:index]]
    if doubles:
        raise ConfigError(f"space: {key} names {brief(repr(doubles[0]))} twice; name each value once (more seeds: `seeds`)")
    return Choice(tuple(values))


def _interval(key: str, scale: Any, low: Any, high: Any, num: Any = None) -> Interval:
    if scale not in SCALES:
        raise ConfigError(f"space: {key} has the scale {brief(repr(scale))}; allowed: {', '.join(SCALES)}")
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"space: {key}: {name} is {brief(repr(value))}; it must be a finite number")
    log, integer = scale.startswith("log"), scale.endswith("int")
    if low >= high:
        raise ConfigError(f"space: {key} goes from {low} to {high}; the first number must be the smaller one")
    if log and low <= 0:
        raise ConfigError(f"space: {key} goes from {low} on a logarithmic scale, which has no {low}; begin above 0, or write lin:")
    if integer and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError(f"space: {key} goes from {low} to {high}; whole numbers need whole ends")
    if num is not None and (isinstance(num, bool) or not isinstance(num, int) or num < 1):
        raise ConfigError(f"space: {key}: num is {brief(repr(num))}; it must be a whole number of 1 or more")
    return Interval(low, high, log=log, integer=integer, num=num)


def _condition(key: str, entry: Any, entries: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(
            f"space: {key}: when is {brief(repr(entry))}; write one key and its values, such as `when: {{model.name: lenet}}`"
        )
    ((other, allowed),) = entry.items()
    if other not in entries or other == key:
        raise ConfigError(
            f"space: {key} depends on {brief(repr(other))}, which is no other parameter of the space; it has {', '.join(entries)}"
        )
    return other, tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,)


def _refuse_circles(key: str, conditions: Mapping[str, tuple[str, tuple[Any, ...]]]) -> None:
    chain = [key]
    while chain[-1] in conditions:
        chain.append(conditions[chain[-1]][0])
        if chain[-1] in chain[:-1]:
            raise ConfigError(f"space: conditions lead back to themselves: {' -> '.join(chain)}; take one of them out")


def _refuse_unknown(key: str, entry: Mapping[str, Any], allowed: set[str]) -> None:
    if unknown := [name for name in entry if name not in allowed]:
        raise ConfigError(f"space: {key} has the unknown key {brief(repr(unknown[0]))}; allowed: {', '.join(sorted(allowed))}")
