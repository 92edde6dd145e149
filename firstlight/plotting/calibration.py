"""How far probabilities can be trusted: the reliability diagram, and what is gained by leaving the least sure images out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.style import PALETTE, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
MOST_POINTS = 2000
"""Points of a curve; more cannot be told apart, and make an SVG large."""
FEW = 10
"""Images of a bin below which its accuracy says little; its bar is pale."""


@dataclass(frozen=True)
class Bars:
    """A reliability diagram's bins, float64 [M] each: edges, images, mean confidence, accuracy (NaN in an empty bin).

    name: what the probabilities are, such as `as trained`; ece: their calibration error.
    """

    name: str
    lows: Array
    highs: Array
    counts: NDArray[np.int64]
    confidence: Array
    accuracy: Array
    ece: float


def plot_reliability(parts: Sequence[Bars], *, title: str) -> "Figure":
    """Return accuracy against confidence above the share of images in each bin, a column for each of one or more sets of probabilities."""
    figure, axes = new_figure(2, len(parts), width=4.6 * len(parts) + 0.4, height=5.6, height_ratios=(3, 1), sharex=True)
    for place, bars in enumerate(parts):
        _draw_bars(axes[place], bars, first=place == 0)
        _draw_counts(axes[len(parts) + place], bars, first=place == 0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * len(parts), frameon=False, fontsize=9)
    set_title(figure, title)
    return figure


def plot_risk_coverage(coverage: Array, risk: Array, *, aurc: float, title: str) -> "Figure":
    """Return the error among the most confident images against the share of images that are answered."""
    figure, (axes,) = new_figure(width=8, height=4.6)
    kept = np.unique(np.linspace(0, len(risk) - 1, min(len(risk), MOST_POINTS)).round().astype(int))
    axes.plot(coverage[kept], 100 * risk[kept], color=PALETTE[0], linewidth=1.8, label=f"this network (area {aurc:.3%})")
    axes.axhline(100 * risk[-1], color="#555555", linestyle="--", linewidth=1, label=f"all images answered ({risk[-1]:.2%})")
    num_right = len(risk) - round(risk[-1] * len(risk))
    places = np.arange(1, len(risk) + 1)
    best = np.maximum(places - num_right, 0) / places
    axes.plot(coverage[kept], 100 * best[kept], color=PALETTE[1], linewidth=1.2, linestyle=":", label="less sure of every error (best)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(100 * float(risk.max()) * 1.08, 0.1))
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, borderaxespad=0, handlelength=1.6)
    tidy(axes, x="coverage (share of images that are answered, the most confident first)", y="risk (% of them wrong)")
    set_title(figure, title)
    return figure


def _draw_bars(axes: "Axes", bars: Bars, *, first: bool) -> None:
    there = bars.counts > 0
    lows, widths = bars.lows[there], (bars.highs - bars.lows)[there]
    accuracy, confidence = bars.accuracy[there], bars.confidence[there]
    few = bars.counts[there] < FEW
    for rows, alpha, label in ((~few, 1.0, "accuracy"), (few, 0.4, f"accuracy, fewer than {FEW} images")):
        look: dict[str, Any] = {"align": "edge", "color": PALETTE[0], "edgecolor": "white", "linewidth": 0.8, "alpha": alpha}
        axes.bar(lows[rows], accuracy[rows], widths[rows], label=label, **look)
    low, high = np.minimum(accuracy, confidence), np.maximum(accuracy, confidence)
    axes.bar(
        lows, high - low, widths, bottom=low, align="edge", color="none", edgecolor=PALETTE[1], hatch="////", linewidth=0.8,
        label="gap to the mean confidence",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="#555555", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    tidy(axes, x="", y="accuracy (share right)" if first else "", title=f"{bars.name}: calibration error {bars.ece:.2%}")


def _draw_counts(axes: "Axes", bars: Bars, *, first: bool) -> None:
    shares = 100 * bars.counts / max(bars.counts.sum(), 1)
    axes.bar(bars.lows, shares, bars.highs - bars.lows, align="edge", color="#999999", edgecolor="white", linewidth=0.8)
    axes.set_ylim(0, max(float(shares.max(initial=0)) * 1.1, 1))
    tidy(axes, x="confidence (probability of the predicted class)", y="% of images" if first else "")
