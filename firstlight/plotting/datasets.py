"""Pictures of whole data sets: mean images, duplicates, two sets beside each other; and the least-squares warm-up."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.images import show_image
from firstlight.plotting.style import PALETTE, in_legend, list_classes, new_figure, plain, set_title, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS_SEEN = 64
"""Pixels of an image to which each is drawn as a square; larger images are smoothed to the size of the picture."""
MAX_NAME = 12
"""Characters of a class name above a small image."""


def plot_sheet(rows: Sequence[Sequence[Any]], row_names: Sequence[str], *, column_names: Sequence[str] = (), title: str) -> "Figure":
    """Return images in rows that are named at their left; None leaves a gap.

    rows: uint8 arrays [H, W] or [H, W, 3] of one shape. All are drawn as one picture: a hundred axes of their own took 20 times as long.
    """
    import numpy as np

    first = next(image for row in rows for image in row if image is not None)
    height, width = first.shape[:2]
    gap = max(1, max(height, width) // 10)
    num_columns = max(map(len, rows))
    canvas = np.full((len(rows) * (height + gap) - gap, num_columns * (width + gap) - gap, *first.shape[2:]), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            if image is not None:
                top, left = row * (height + gap), column * (width + gap)
                canvas[top : top + height, left : left + width] = image
    size = 0.92 * min(1.0, 10 / num_columns)
    figure, (axes,) = new_figure(width=size * num_columns + 1.3, height=size * len(rows) * height / width + (0.9 if column_names else 0.7))
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if max(height, width) <= PIXELS_SEEN else "auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(
        [row * (height + gap) + height / 2 - 0.5 for row in range(len(rows))], [shorten(name, MAX_NAME) for name in row_names], fontsize=9
    )
    axes.set_ylabel("class")
    axes.xaxis.tick_top()
    places = [column * (width + gap) + width / 2 - 0.5 for column in range(len(column_names))]
    axes.set_xticks(places, [shorten(name, MAX_NAME) for name in column_names], fontsize=8)
    set_title(figure, title)
    return figure


def plot_image_rows(rows: Sequence[tuple[str, Sequence[Any]]], class_names: Sequence[str], *, title: str) -> "Figure":
    """Return images in rows that are named at their left, a column a class; None leaves a gap.

    rows: each a name and an array [H, W] or [H, W, 3] for each class. Float arrays are drawn by their own range, brighter is more.
    """
    figure, axes = new_figure(len(rows), len(class_names), width=1.7 + 1.0 * len(class_names), height=1.15 * len(rows) + 0.9)
    for place, panel in enumerate(axes):
        row, column = divmod(place, len(class_names))
        name, images = rows[row]
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
        if row == 0:
            panel.set_title(shorten(class_names[column], MAX_NAME), fontsize=9)
        if column == 0:
            panel.set_ylabel(plain(name), fontsize=9, rotation=0, ha="right", va="center")
        _draw(panel, images[column])
    set_title(figure, title)
    return figure


def _draw(panel: "Axes", image: Any) -> None:
    if image is None:
        panel.text(0.5, 0.5, "no image", ha="center", va="center", fontsize=7, transform=panel.transAxes)
    elif image.dtype.kind == "f" and image.ndim == 2:
        panel.imshow(image, cmap="gray", interpolation="nearest", vmin=0)
    else:
        show_image(panel, image)


def plot_pairs(pairs: Sequence[tuple[Any, str, Any, str]], *, title: str) -> "Figure":
    """Return pairs of images above each other, up to ten a row of pairs, each image below its title; a sentence where there are none."""
    if not pairs:
        figure, (panel,) = new_figure(width=8, height=1.6)
        panel.axis("off")
        panel.text(0.5, 0.5, "no such pair", ha="center", va="center", fontsize=11)
        set_title(figure, title)
        return figure
    columns = min(len(pairs), 8)
    blocks = -(-len(pairs) // columns)
    figure, axes = new_figure(2 * blocks, columns, width=max(1.45 * columns, 8), height=3.6 * blocks + 0.7)
    for panel in axes:
        panel.axis("off")
    for place, (first, first_title, second, second_title) in enumerate(pairs):
        block, column = divmod(place, columns)
        for row, (image, text) in enumerate(((first, first_title), (second, second_title))):
            panel = axes[(2 * block + row) * columns + column]
            show_image(panel, image)
            panel.set_title(plain(text), fontsize=8)
    set_title(figure, title)
    return figure


def plot_two_histograms(
    names: tuple[str, str], histograms: tuple[Any, Any], spectra: tuple[Any, Any], *, fitted: tuple[Any, Any] | None = None, title: str
) -> "Figure":
    """Return the pixel values of two sets and their power by spatial frequency, on logarithmic scales.

    histograms: shares [bins] of pixel values in [0, 1]; spectra: mean power at 0, 1, 2, ... cycles an image; fitted: both of the first set
    after what was named is done to it.
    """
    figure, (left, right) = new_figure(1, 2, width=11, height=4)
    drawn = [(names[0], PALETTE[0], "-", 0), (names[1], PALETTE[1], "-", 1)]
    for name, color, line, place in drawn:
        _steps(left, histograms[place], color, line, name)
        _waves(right, spectra[place], color, line, name)
    if fitted is not None:
        label = f"{names[0]}, with what was named done to it"
        _steps(left, fitted[0], PALETTE[6], ":", label)
        _waves(right, fitted[1], PALETTE[6], ":", label)
    left.set_yscale("log")
    right.set_yscale("log")
    tidy(left, x="pixel value (0 is black, 1 is white)", y="share of all pixels", title="pixel values")
    tidy(
        right,
        x="spatial frequency (cycles an image)",
        y="mean power",
        title="power by frequency: less at the right is softer, more is noisier",
    )
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    set_title(figure, title)
    return figure


def _steps(axes: "Axes", shares: Any, color: str, line: str, label: str) -> None:
    num = len(shares)
    values = [share if share > 0 else float("nan") for share in shares]
    places = [(place + 0.5) / num for place in range(num)]
    axes.plot(places, values, color=color, linestyle=line, drawstyle="steps-mid", label=in_legend(label))


def _waves(axes: "Axes", power: Any, color: str, line: str, label: str) -> None:
    axes.plot(range(1, len(power)), power[1:], color=color, linestyle=line, label=in_legend(label))


def plot_distances(left: Mapping[str, float], before: float, floor: float, after: float, *, title: str) -> "Figure":
    """Return a bar for the distance between two sets that each kind of corruption leaves when it is done alone.

    before: with nothing done; floor: two draws of the first set; after: with everything that was named.
    """
    rows = [("nothing done", before), *sorted(left.items(), key=lambda entry: -entry[1]), ("all that was named", after)]
    figure, (axes,) = new_figure(width=8, height=0.32 * len(rows) + 1.6)
    colors = [PALETTE[0]] * len(rows)
    colors[0] = colors[-1] = "#888888"
    if left:
        colors[-2] = PALETTE[1]
    most = max(1.4 * before, after, floor)  # an inversion leaves so much that the others would not be told apart
    bars = axes.barh(range(len(rows)), [min(value, most) for _, value in rows], color=colors)
    axes.bar_label(bars, [f"{value:.2f}" + (" (cut off)" if value > most else "") for _, value in rows], padding=3, fontsize=8)
    list_classes(axes, [name for name, _ in rows])
    axes.axvline(floor, color="black", linestyle="--", label=f"two draws of the first set, {floor:.2f}")
    axes.set_xlim(0, most * 1.14)
    axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    tidy(axes, x="distance that is left (within-class deviations of a feature, averaged)", y="done to the first set")
    axes.grid(visible=False, axis="y")
    set_title(figure, title)
    return figure


def plot_warmup(image: Any, label: str, weights: Any, *, title: str) -> "Figure":
    """Return an image with its label beside the weight of each of its pixels (float [H, W]), positive ones speak for odd."""
    figure, (left, right) = new_figure(1, 2, width=8.4, height=3.9, width_ratios=(1, 1.15))
    show_image(left, image)
    left.set_title(f"a random image, labelled {label}", fontsize=10, loc="left")
    most = float(abs(weights).max()) or 1.0
    shown = right.imshow(weights, cmap="PuOr", vmin=-most, vmax=most, interpolation="nearest")
    right.set_title("the weight of each pixel", fontsize=10, loc="left")
    for panel in (left, right):
        panel.set_xlabel("column (pixels)")
        panel.set_ylabel("row (pixels)")
    bar = figure.colorbar(shown, ax=right)
    bar.set_label("even  ←  weight  →  odd")
    set_title(figure, title)
    return figure
