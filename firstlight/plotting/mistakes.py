"""Mistakes side by side: each image, the training images nearest to it, and the pixels that the answer hangs on."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from firstlight.plotting.images import show_image
from firstlight.plotting.style import RIGHT, WRONG, new_figure, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_BY_SIDE = 2
"""Mistakes in a row."""
LONGEST_NAME = 12
GREY = "#555555"


def plot_mistakes(mistakes: Sequence[Mapping[str, Any]], *, title: str) -> "Figure":
    """Return a row of pictures a mistake, two mistakes side by side, read row by row.

    A mistake holds `image` (uint8 [H, W] or [H, W, 3]), `label`, `predicted`, `probability`, `label_probability`, `index`, `neighbours`
    (images), `neighbour_labels`, `neighbour_similarity`, `saliency` (float [H, W]) and `suspect` (whether the label may be wrong).
    """
    num_near = max((len(mistake["neighbours"]) for mistake in mistakes), default=0)
    each = num_near + 2
    rows, across = math.ceil(len(mistakes) / SIDE_BY_SIDE), min(SIDE_BY_SIDE, len(mistakes))
    widths = ([1.0] * each + [0.25]) * across
    figure, axes = new_figure(rows, (each + 1) * across, width=max(1.12 * sum(widths), 6), height=1.52 * rows + 0.9, width_ratios=widths)
    for panel in axes:
        panel.axis("off")
    for number, mistake in enumerate(mistakes):
        start = number // across * (each + 1) * across + number % across * (each + 1)
        _draw(axes[start : start + each], mistake)
    set_title(figure, title)
    return figure


def _draw(panels: "Sequence[Axes]", mistake: Mapping[str, Any]) -> None:
    """Draw one mistake: the image, its nearest training images, the saliency map."""
    show_image(panels[0], mistake["image"])
    guess, label = shorten(mistake["predicted"], LONGEST_NAME), shorten(mistake["label"], LONGEST_NAME)
    said = f"{guess} {mistake['probability']:.2f}\ntrue: {label} {mistake['label_probability']:.2f}"
    panels[0].set_title(said, fontsize=8, color=WRONG)
    doubted = mistake["suspect"]
    _below(panels[0], f"image {mistake['index']:,}{': label?' if doubted else ''}", color=WRONG if doubted else GREY)
    near = zip(panels[1:-1], mistake["neighbours"], mistake["neighbour_labels"], mistake["neighbour_similarity"], strict=False)
    for place, (panel, image, name, similarity) in enumerate(near):
        show_image(panel, image)
        head = "nearest in training" if place == 0 else ""
        panel.set_title(f"{head}\n{shorten(name, LONGEST_NAME)}", fontsize=8, color=RIGHT if name == mistake["label"] else "black")
        _below(panel, f"cosine {similarity:.3f}")
    strength = np.asarray(mistake["saliency"])
    most = float(np.quantile(strength, 0.995)) or float(strength.max()) or 1.0
    panels[-1].imshow(strength, cmap="inferno", vmin=0, vmax=most, interpolation="nearest")
    panels[-1].set_title("saliency\n(bright: it counts)", fontsize=8)


def _below(panel: "Axes", text: str, *, color: str = GREY) -> None:
    panel.text(0.5, -0.04, text, transform=panel.transAxes, ha="center", va="top", fontsize=7, color=color)
