"""Inside a network: figures by depth, sizes of gradients, filters, and feature maps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.plotting.images import show_image
from firstlight.plotting.style import color_of, in_legend, new_figure, set_title, shades, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    ("mean", 1.0, "linear", "mean of the activations"),
    ("std", 1.0, "log", "standard deviation\nof the activations"),
    ("zeros", 100.0, "linear", "activations that are zero (%)"),
    ("dead", 100.0, "linear", "dead units, zero\nfor all images (%)"),
    ("output_gradient", 1.0, "log", "gradient of an image's loss\nby the layer's output (RMS)"),
    ("relative_gradient", 1.0, "log", "gradient by the weights\n(norm, over that of the weights)"),
)
"""Key of the figure, its factor, its scale, and its name on the axis."""
MAX_TICKS = 12
"""Layers that are all named on an axis."""
LEAST_RANGE = 10
"""Factor between the ends of a logarithmic axis."""
MAX_ROWS = 8
"""Convolutions whose feature maps are drawn."""
EXPONENTS = (-12.0, 2.0)
"""Powers of ten that the histograms of gradients reach over."""


@dataclass(frozen=True)
class Series:
    """A network at one moment. color: number of its colour; layers: figures of each, by name; histograms: of its weights' gradients."""

    label: str
    color: int
    dashed: bool
    layers: Sequence[Mapping[str, Any]]
    histograms: Sequence[Sequence[float]]


def plot_depth(series: Sequence[Series], *, title: str) -> "Figure":
    """Return activations and gradients over the depth of one network or several."""
    figure, panels = new_figure(2, 3, width=12, height=7.4)
    names = layer_names(series)
    for panel, (key, factor, scale, text) in zip(panels, PANELS, strict=True):
        for one in series:
            values = [_value(layer, key, factor) for layer in one.layers]
            look: dict[str, Any] = {
                "color": color_of(one.color),
                "linestyle": "--" if one.dashed else "-",
                "label": in_legend(one.label.replace("\n", ", ")),
            }
            drawn = np.where(np.array(values) > 0, values, np.nan) if scale == "log" else np.array(values)
            panel.plot(range(1, len(values) + 1), drawn, marker="o", markersize=4, linewidth=1.6, **look)
        if scale == "log":
            _scale_log(panel)
        elif key == "mean":
            panel.axhline(0, color="black", linewidth=0.8)  # so that the axis reaches to zero
        elif key in ("zeros", "dead"):
            panel.set_ylim(-3, 103)
        if not any(_known(_value(layer, key, factor)) for one in series for layer in one.layers):
            panel.text(0.5, 0.5, "no activation functions", transform=panel.transAxes, ha="center", va="center")
            panel.set_yticks([])
        _name_layers(panel, names)
        tidy(panel, x="layer, from the images on", y=text)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", frameon=False, fontsize=9, ncols=min(len(labels), 2 if len(labels) > 3 else 3)
    )
    set_title(figure, title)
    return figure


def plot_gradients(series: Sequence[Series], *, title: str) -> "Figure":
    """Return how large the gradients of the weights are in each layer, a panel a network and moment."""
    columns = min(len(series), 2 if len(series) < 5 else 4)
    rows = math.ceil(len(series) / columns)
    figure, panels = new_figure(rows, columns, width=max(3.4 * columns + 1, 7.5), height=2.7 * rows + 1.4, sharex=True, sharey=True)
    depth = max(len(one.histograms) for one in series)
    mapped = shades([1, max(depth, 2)], log=False)
    edges = np.linspace(*EXPONENTS, len(series[0].histograms[0]) + 1)
    for panel, one in zip(panels, series, strict=False):
        for place, shares in enumerate(one.histograms, start=1):
            panel.stairs(np.array(shares) * 100, edges, color=mapped.to_rgba(np.array([place]))[0], linewidth=1.5)
        tidy(panel, x="size of a weight's gradient\n(power of ten)", y="share of the layer's weights (%)", title=one.label)
    for panel in panels[len(series) :]:
        panel.axis("off")
    for place, panel in enumerate(panels[: len(series)]):
        panel.label_outer()
        if place + columns >= len(series):  # nothing stands below it
            panel.set_xlabel("size of a weight's gradient\n(power of ten)")
            panel.tick_params(labelbottom=True)
    panels[0].set_xlim(*_occupied(series, edges))
    if depth > 1:
        bar = figure.colorbar(mapped, ax=panels, pad=0.02)
        bar.set_label("layer, from the images on")
        bar.set_ticks([1, depth])
    set_title(figure, title)
    return figure


def plot_filters(moments: Mapping[str, NDArray[Any]], *, title: str) -> "Figure":
    """Return the filters of the first layer at several moments, the same filter at the same place.

    moments: float [M, h, w], or [M, h, w, 3] in colour, by name. Blue is negative, red positive, white zero; in colour grey is zero.
    """
    columns = 8
    rows = math.ceil(len(next(iter(moments.values()))) / columns)
    figure, panels = new_figure(1, len(moments), width=4.6 * len(moments) + 1, height=0.56 * rows + 1.2)
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    for panel, (name, filters) in zip(panels, moments.items(), strict=True):
        largest = float(np.abs(filters).max()) or 1.0
        image = panel.imshow(tiled(filters / largest, columns), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        panel.axis("off")
        panel.set_title(f"{name} (weights from {-largest:.2g} to {largest:.2g})", fontsize=10)
        if filters.ndim == 3 and panel is panels[-1]:
            figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02, ticks=[-1, 0, 1]).set_label("weight, over the largest")
    set_title(figure, title)
    return figure


def tiled(filters: NDArray[Any], columns: int) -> NDArray[Any]:
    """Return filters of values in [-1, 1] as one picture, rows below each other, with a gap of no value (in colour: white) between them.

    filters: [M, h, w] or [M, h, w, 3], which is brought into [0, 1].
    """
    num, height, width = filters.shape[:3]
    gap = max(1, round(height / 8))
    colored = filters.ndim == 4
    shape = (math.ceil(num / columns) * (height + gap) - gap, columns * (width + gap) - gap, *filters.shape[3:])
    sheet = np.full(shape, 1.0 if colored else np.nan)
    for place, values in enumerate(filters):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = (values + 1) / 2 if colored else values
    return sheet


def plot_feature_maps(image: Any, layers: Sequence[tuple[str, int, NDArray[Any]]], *, title: str) -> "Figure":
    """Return one image and, a row a convolution (at most MAX_ROWS, spread evenly), its strongest feature maps on a scale of the row's own.

    layers: name, channels, and maps float [M, h, w].
    """
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), MAX_ROWS)).round().astype(int))
    layers = [layers[place] for place in chosen]
    columns = max(len(maps) for _, _, maps in layers)
    figure, panels = new_figure(len(layers) + 1, columns + 1, width=1.05 * columns + 2.2, height=1.08 * (len(layers) + 1) + 0.7)
    for panel in panels:
        panel.axis("off")
    show_image(panels[1], image)
    panels[0].text(1, 0.5, "the image", ha="right", va="center", transform=panels[0].transAxes, fontsize=9)
    for row, (name, channels, maps) in enumerate(layers, start=1):
        low, high = min(float(maps.min()), 0.0), float(maps.max())
        text = f"{name}\n{len(maps)} of {channels} maps\n{maps.shape[1]} x {maps.shape[2]} pixels\n{low:.2g} to {high:.2g}"
        head = panels[row * (columns + 1)]
        head.text(1, 0.5, text, ha="right", va="center", transform=head.transAxes, fontsize=8)
        for place, values in enumerate(maps, start=1):
            panels[row * (columns + 1) + place].imshow(
                values, cmap="gray", vmin=low, vmax=high if high > low else low + 1, interpolation="nearest"
            )
    set_title(figure, title)
    return figure


def layer_names(series: Sequence[Series]) -> list[str]:
    """Return what to call the layers at each depth: by their kind where all networks have the same kinds, else by number."""
    kinds = [[layer["kind"] for layer in one.layers] for one in series]
    longest = max(kinds, key=len)
    if all(one == longest[: len(one)] for one in kinds):
        return [f"{'conv' if kind == 'convolution' else kind} {place}" for place, kind in enumerate(longest, start=1)]
    return [str(place) for place in range(1, len(longest) + 1)]


def _scale_log(panel: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_yscale("log")
    low, high = panel.get_ylim()
    wider = max(math.sqrt(LEAST_RANGE * low / high), 1.0)  # small differences stay small to the eye
    low, high = low / wider, high * wider
    panel.set_ylim(low, high)
    narrow = high < 50 * low
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if narrow else range(2, 10)))
    panel.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}") if narrow else NullFormatter())


def _name_layers(panel: "Axes", names: Sequence[str]) -> None:
    every = math.ceil(len(names) / MAX_TICKS)
    places = range(1, len(names) + 1, every)
    panel.set_xticks(places, [names[place - 1] for place in places], rotation=45, ha="right", fontsize=8)
    panel.set_xlim(0.7, len(names) + 0.3)


def _value(layer: Mapping[str, Any], key: str, factor: float) -> float:
    if key == "dead":
        return math.nan if layer["num_dead"] is None else factor * layer["num_dead"] / layer["num_units"]
    return math.nan if layer[key] is None else factor * layer[key]


def _known(value: float) -> bool:
    return not math.isnan(value)


def _occupied(series: Sequence[Series], edges: NDArray[Any]) -> tuple[float, float]:
    """Return the powers of ten between which the histograms have something to see."""
    most = np.max([shares for one in series for shares in one.histograms], axis=0)
    filled = np.nonzero(most > 0.005)[0]
    if len(filled) == 0:
        return float(edges[0]), float(edges[-1])
    return float(edges[max(filled[0] - 1, 0)]), float(edges[min(filled[-1] + 2, len(edges) - 1)])
