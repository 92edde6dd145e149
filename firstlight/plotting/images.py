"""Sheets of images with their labels, and one image beside the probabilities of its classes."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.style import LONGEST_CLASS, PALETTE, RIGHT, WRONG, list_classes, new_figure, plain, set_title, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TITLE = 18
"""Characters of a title above an image of the sheet; more would run into its neighbour."""
MAX_BARS = 20
"""Classes beside one image; of more, the likeliest are shown."""


def plot_images(
    images: Sequence[Any], titles: Sequence[str], *, columns: int = 5, title: str, colors: Sequence[str] | None = None
) -> "Figure":
    """Return a sheet of images, each below its title.

    images: uint8 arrays [H, W] or [H, W, 3]. colors: of the titles, such as RIGHT and WRONG.
    """
    rows = max(math.ceil(len(images) / columns), 1)
    figure, axes = new_figure(rows, columns, width=1.15 * columns, height=1.4 * rows + 0.5)
    for panel in axes:
        panel.axis("off")
    for index, (panel, image, text) in enumerate(zip(axes, images, titles, strict=False)):
        show_image(panel, image)
        shown = "\n".join(shorten(line, MAX_TITLE) for line in text.split("\n"))
        panel.set_title(shown, fontsize=8, color="black" if colors is None else colors[index])
    set_title(figure, title)
    return figure


def plot_predictions(
    images: Sequence[Any],
    labels: Sequence[str] | None,
    predicted: Sequence[str],
    probabilities: Sequence[float],
    *,
    title: str,
    columns: int = 5,
) -> "Figure":
    """Return a sheet of images with predicted label and probability, and below it the true label where it is known.

    Right answers have titles in RIGHT, others in WRONG.
    """
    room = MAX_TITLE - 5  # of `0.98` behind a class, and of `true:` ahead of one
    titles = [f"{shorten(guess, room)} {probability:.2f}" for guess, probability in zip(predicted, probabilities, strict=True)]
    if labels is None:
        return plot_images(images, titles, columns=columns, title=title)
    titles = [f"{text}\ntrue: {shorten(label, room - 1)}" for text, label in zip(titles, labels, strict=True)]
    colors = [RIGHT if label == guess else WRONG for label, guess in zip(labels, predicted, strict=True)]
    return plot_images(images, titles, columns=columns, title=title, colors=colors)


def plot_class_bars(
    image: Any, class_names: Sequence[str], probabilities: Sequence[float], *, title: str, label: str | None = None
) -> "Figure":
    """Return one image beside a bar for the probability of each class (the likeliest MAX_BARS), the largest marked.

    label: the true class, where it is known; its name says so.
    """
    likeliest = sorted(range(len(probabilities)), key=lambda label: -probabilities[label])[:MAX_BARS]
    shown = sorted(likeliest)
    figure, (left, right) = new_figure(1, 2, width=8, height=max(2.8, 0.28 * len(shown) + 1), width_ratios=(1, 1.6))
    show_image(left, image)
    left.axis("off")
    bars = right.barh(
        range(len(shown)), [probabilities[label] for label in shown], color=[PALETTE[label == likeliest[0]] for label in shown]
    )
    right.bar_label(bars, [f"{probabilities[label]:.2f}" for label in shown], padding=3, fontsize=8)
    list_classes(
        right, [shorten(class_names[place], LONGEST_CLASS - 7) + (" (true)" if class_names[place] == label else "") for place in shown]
    )
    right.set_xlim(0, 1.1)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1])
    tidy(right, x="probability", y="class")
    right.grid(visible=False, axis="y")
    set_title(figure, title)
    return figure


def plot_nothing(reason: str, *, title: str) -> "Figure":
    """Return a figure that says why there is nothing to see."""
    figure, (axes,) = new_figure(width=6, height=2.2)
    axes.axis("off")
    axes.text(0.5, 0.5, plain(reason), ha="center", va="center", fontsize=12, color="#555555", wrap=True)
    set_title(figure, title)
    return figure


def show_image(axes: "Axes", image: Any) -> None:
    """Draw one image, grey or colour, with its pixels as squares."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
