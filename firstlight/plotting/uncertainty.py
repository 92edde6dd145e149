"""What Monte-Carlo dropout says: the votes of the passes on one image, and how unsure right and wrong answers are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.images import MAX_BARS, show_image
from firstlight.plotting.style import PALETTE, RIGHT, WRONG, in_legend, list_classes, new_figure, set_title, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LETTERS = 14
"""Letters of a class name beside a bar."""
NUM_BINS = 25


def plot_image_uncertainty(
    image: Any, class_names: Sequence[str], votes: NDArray[Any], probabilities: NDArray[Any], *, label: str | None, title: str
) -> "Figure":
    """Return one image beside the classes that the passes chose, and the probabilities that each pass gave the two foremost ones.

    votes: int [K]; probabilities: float [T, K]; label: the true class, marked, where it is known.
    """
    order = sorted(range(len(class_names)), key=lambda number: (-votes[number], -probabilities[:, number].mean()))
    foremost = order[:2]
    if label is not None and class_names.index(label) not in foremost:
        foremost = [order[0], class_names.index(label)]
    shown = sorted({*order[: MAX_BARS - 1], *foremost})
    figure, (left, middle, right) = new_figure(1, 3, width=11, height=max(3.4, 0.26 * len(shown) + 1.2), width_ratios=(1, 1.3, 1.5))
    show_image(left, image)
    left.axis("off")
    bars = middle.barh(range(len(shown)), [votes[number] for number in shown], color=[_color(number, foremost) for number in shown])
    middle.bar_label(bars, [f"{votes[number]}" if votes[number] else "" for number in shown], padding=3, fontsize=8)
    list_classes(
        middle, [shorten(class_names[number], MAX_LETTERS) + (" (true)" if class_names[number] == label else "") for number in shown]
    )
    middle.set_xlim(0, 1.15 * len(probabilities))
    tidy(middle, x=f"passes that chose it (of {len(probabilities)})", y="class")
    middle.grid(visible=False, axis="y")
    bins = np.linspace(0, 1, NUM_BINS + 1)
    for place, number in enumerate(foremost):
        name = shorten(class_names[number], MAX_LETTERS) + (" (true)" if class_names[number] == label else "")
        options: dict[str, Any] = {"color": PALETTE[place], "bins": bins, "histtype": "stepfilled"}
        right.hist(
            probabilities[:, number], alpha=0.55, label=f"{in_legend(name)}: median {np.median(probabilities[:, number]):.2f}", **options
        )
    right.set_xlim(0, 1)
    right.legend(frameon=False, fontsize=9, loc="upper center", title="probability of")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])
    tidy(right, x="probability in a pass", y="passes")
    set_title(figure, title)
    return figure


def plot_uncertainty(scores: Mapping[str, NDArray[Any]], wrong: NDArray[Any], areas: Mapping[str, float | None], *, title: str) -> "Figure":
    """Return how predictive entropy and mutual information spread over right and wrong answers, and how well each score tells them apart.

    scores: float [N], in nats, by name; wrong: bool [N]; areas: area under the ROC curve of each score, None where there is none.
    """
    figure, (entropy, information, area) = new_figure(1, 3, width=12, height=4, width_ratios=(1, 1, 0.8))
    _spread(entropy, scores["predictive_entropy"], wrong, x="predictive entropy (nats)")
    _spread(information, scores["mutual_information"], wrong, x="mutual information (nats)")
    known = {name: value for name, value in areas.items() if value is not None}
    names = [name.replace("_", " ").replace(" without", "\nwithout") for name in areas]
    bars = area.barh(range(len(areas)), [known.get(name, 0) for name in areas], color=PALETTE[2], height=0.6)
    area.bar_label(bars, [f"{known[name]:.3f}" if name in known else "no mistakes" for name in areas], padding=3, fontsize=9)
    list_classes(area, names)
    area.axvline(0.5, color="black", linewidth=1, linestyle=":")
    area.set_xlim(0, 1.25)
    area.set_xticks([0, 0.5, 1], ["0", "0.5\nchance", "1"])
    tidy(area, x="AUROC of finding mistakes", y="")
    area.grid(visible=False)
    set_title(figure, title)
    return figure


def _spread(axes: "Axes", values: NDArray[Any], wrong: NDArray[Any], *, x: str) -> None:
    bins = np.linspace(0, max(float(values.max()), 1e-6), NUM_BINS + 1)
    for group, color, name in ((~wrong, RIGHT, "right"), (wrong, WRONG, "wrong")):
        if group.any():
            weights = np.full(int(group.sum()), 100 / group.sum())
            options: dict[str, Any] = {"bins": bins, "weights": weights, "color": color}
            axes.hist(values[group], histtype="stepfilled", alpha=0.35, **options)
            axes.hist(values[group], histtype="step", linewidth=1.6, label=f"{name} ({int(group.sum()):,})", **options)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(axes, x=x, y="share of the right / wrong (%)")


def _color(number: int, foremost: Sequence[int]) -> str:
    return PALETTE[foremost.index(number)] if number in foremost else "#888888"
