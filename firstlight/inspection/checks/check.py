"""One verdict: what was looked at, what was found, and what to do."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "fault", "not applicable"]


@dataclass(frozen=True)
class Check:
    """What a check found.

    says: the finding with its numbers, one sentence; advice: what to do about it, one sentence, none where all is well; figures: its
    numbers as plain data.
    """

    name: str
    verdict: Verdict
    says: str
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def not_applicable(name: str, why: str) -> Check:
    """Return a check that could not be made."""
    return Check(name, "not applicable", why)


def chance_of(labels: Any, num_classes: int) -> float:
    """Return the accuracy of always naming the commonest class; labels: int64 [N]."""
    counts = labels.bincount(minlength=num_classes)
    return float(counts.max()) / max(len(labels), 1)


def above_chance(accuracy: float, chance: float, num_images: int, *, deviations: float = 4.0) -> bool:
    """Tell whether an accuracy over so many images is more than guessing: by four standard deviations of a guesser's."""
    return accuracy > chance + deviations * math.sqrt(chance * (1 - chance) / max(num_images, 1))


def show_loss(loss: float) -> str:
    """Return a loss as a sentence says it."""
    return f"{loss:.3g}" if math.isfinite(loss) else "no number"
