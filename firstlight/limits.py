"""Annotated number types for settings: the range stands where the parameter is declared.

A constructor says `dropout: Fraction = 0.0` and the config loader refuses 1.5 with that range in the message.
Plain Python sees an ordinary float or int; pydantic is imported only where a config is validated.
"""

from dataclasses import dataclass
from typing import Annotated, Any

LARGEST = 2**31 - 1
"""The largest count or factor that a setting takes; what is made of it stays finite in float32 and below int64."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number; `above` and `below` are excluded from the range, `least` and `most` belong to it.

    As text it leaves out an upper bound of LARGEST and more, which nobody meets by design.
    """

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        return self._words(technical=False)

    def _words(self, *, technical: bool) -> str:
        signs = {">": self.above, ">=": self.least, "<": self.below, "<=": self.most}
        return " and ".join(f"{sign} {bound}" for sign, bound in signs.items() if bound is not None and (technical or bound < LARGEST))

    def check(self, value: float) -> float:
        """Return the value, or raise ValueError with the range that is allowed."""
        fits = (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )
        if not fits:  # NaN fails every comparison, so it lands here too
            raise ValueError(f"must be {self._words(technical=value >= LARGEST)}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


PositiveInt = Annotated[int, Range(least=1, most=LARGEST)]
NonNegativeInt = Annotated[int, Range(least=0, most=LARGEST)]
Seed = Annotated[int, Range(least=0, most=2**63 - 1)]
Size = Annotated[int, Range(least=1, most=2**20)]
"""Pixels or units along one dimension: the bytes of a tensor of two of them and a number of images still fit int64."""
Threads = Annotated[int, Range(least=1, most=1024)]
Positive = Annotated[float, Range(above=0, most=LARGEST)]
NonNegative = Annotated[float, Range(least=0, most=LARGEST)]
Fraction = Annotated[float, Range(least=0, below=1)]
Probability = Annotated[float, Range(least=0, most=1)]
