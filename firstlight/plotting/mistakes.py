"""Mistakes side by side: each image, the training images nearest to it, and the pixels that the answer hangs on."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from firstlight.plotting.style import RIGHT, WRONG, new_figure, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_BY_SIDE = 2
"""Mistakes in a row."""
LONGEST_NAME = 12
GREY = "#555555"
INCHES = 1.05
"""Side of a picture on paper. The other lengths are shares of it: between pictures, between mistakes, of a title, of a row."""
GAP, APART, HEAD, TALL = 0.1, 0.3, 0.36, 1.6


def plot_mistakes(mistakes: Sequence[Mapping[str, Any]], *, title: str) -> "Figure":
    """Return a row of pictures a mistake, two mistakes side by side, read row by row.

    A mistake holds `image` (uint8 [H, W] or [H, W, 3]), `label`, `predicted`, `probability`, `label_probability`, `index`, `neighbours`
    (images), `neighbour_labels`, `neighbour_similarity`, `saliency` (float [H, W]) and `suspect` (whether the label may be wrong).
    All stands on one pair of axes, in units of a picture's side; 20 mistakes on 100 axes took many times as long to lay out and draw.
    """
    each = 2 + max(len(mistake["neighbours"]) for mistake in mistakes)
    across = min(SIDE_BY_SIDE, len(mistakes))
    rows = math.ceil(len(mistakes) / across)
    wide = each * (1 + GAP) * across + APART * (across - 1)
    width, height = INCHES * (wide + GAP), INCHES * TALL * rows
    figure, (axes,) = new_figure(width=max(width, 5.5), height=height)
    figure.set_layout_engine("none")
    set_title(figure, title)
    above = 0.19 * (figure.get_suptitle().count("\n") + 1) + 0.15
    figure.set_size_inches(figure.get_figwidth(), height + above)
    figure.suptitle(figure.get_suptitle(), y=1 - 0.06 / (height + above), va="top", fontsize=11)
    axes.set_position((0, 0, 1, height / (height + above)))
    axes.axis("off")
    for number, mistake in enumerate(mistakes):
        row, place = divmod(number, across)
        _draw(axes, mistake, place * (each * (1 + GAP) + APART), row * TALL)
    axes.set_xlim(-GAP, wide)
    axes.set_ylim(rows * TALL, 0)
    return figure


def _draw(axes: "Axes", mistake: Mapping[str, Any], left: float, top: float) -> None:
    """Draw one mistake from its left upper corner: the image, its nearest training images, the saliency map."""
    guess, label = shorten(mistake["predicted"], LONGEST_NAME), shorten(mistake["label"], LONGEST_NAME)
    said = f"{guess} {mistake['probability']:.2f}\ntrue: {label} {mistake['label_probability']:.2f}"
    doubted = mistake["suspect"]
    below = f"image {mistake['index']:,}{': label?' if doubted else ''}"
    _show(axes, mistake["image"], left, top, said, below, colors=(WRONG, WRONG if doubted else GREY))
    near = zip(mistake["neighbours"], mistake["neighbour_labels"], mistake["neighbour_similarity"], strict=True)
    for place, (image, name, similarity) in enumerate(near, start=1):
        head = f"{'nearest in training' if place == 1 else ''}\n{shorten(name, LONGEST_NAME)}"
        color = RIGHT if name == mistake["label"] else "black"
        _show(axes, image, left + place * (1 + GAP), top, head, f"cosine {similarity:.3f}", colors=(color, GREY))
    strength = np.asarray(mistake["saliency"])
    most = float(np.quantile(strength, 0.995)) or float(strength.max()) or 1.0
    place = len(mistake["neighbours"]) + 1
    heat: dict[str, Any] = {"cmap": "inferno", "vmin": 0, "vmax": most}
    _show(axes, strength, left + place * (1 + GAP), top, "saliency\n(bright: it counts)", "", colors=("black", GREY), **heat)


def _show(axes: "Axes", image: Any, left: float, top: float, above: str, below: str, *, colors: tuple[str, str], **look: Any) -> None:
    """Draw one image, grey or colour, into a square of side 1, below its title and above a remark."""
    height, width = np.asarray(image).shape[:2]
    half_wide, half_high = width / max(height, width) / 2, height / max(height, width) / 2
    x, y = left + 0.5, top + HEAD + 0.5
    extent = (x - half_wide, x + half_wide, y + half_high, y - half_high)
    colors_of: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} | look
    layer = len(axes.images)  # images that follow each other in one layer would be blended into one large one, which takes seconds
    axes.imshow(image, extent=extent, interpolation="nearest", zorder=layer, **colors_of)
    words: dict[str, Any] = {"ha": "center", "zorder": layer + 0.5}
    axes.text(x, top + HEAD - 0.04, above, va="bottom", fontsize=8, color=colors[0], linespacing=1.1, **words)
    axes.text(x, top + HEAD + 1.03, below, va="top", fontsize=7, color=colors[1], **words)
