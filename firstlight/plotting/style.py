"""How every picture looks: one palette that survives colour blindness, one set of sizes, no global state."""

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c2bee", "#662200", "#000000")
"""Okabe and Ito 2008, the order changed so that neighbours differ most. Yellow, orange and sky blue are left out, whose contrast to white
is below 3:1; violet and brown stand in, which are far from the others in the eyes of people with any of the three colour blindnesses."""
RIGHT, WRONG = "#0072b2", "#d55e00"
"""Colours of a right and a wrong answer."""
MAX_LEGEND = 12
"""Entries a legend has before it covers more than it explains."""
LONGEST_CLASS = 40
"""Characters of a class name beside a bar; longer ones leave the bars no room."""


def new_figure(rows: int = 1, columns: int = 1, *, width: float, height: float, **options: Any) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure of so many inches, and its axes in reading order; nothing of matplotlib's global state is used."""
    from firstlight.plotting.figure import ReadableFigure

    figure = ReadableFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def color_of(index: int) -> str:
    """Return the colour of the series number `index`."""
    return PALETTE[index % len(PALETTE)]


def marker_of(index: int) -> str:
    """Return the marker that tells a series from the earlier one of the same colour: none, a dot, a square, ..."""
    return ("", "o", "s", "^", "D")[index // len(PALETTE) % 5]


def shades(values: Sequence[float], *, log: bool) -> "ScalarMappable":
    """Return what turns numbers into colours that grow lighter with them, or with their logarithm; pale yellow is left out."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    low, high = min(values, default=0.0), max(values, default=1.0)
    norm = LogNorm(low, high) if log and 0 < low < high else Normalize(low, high if high > low else low + 1)
    return ScalarMappable(norm, ListedColormap(colormaps["viridis"]([step / 255 * 0.9 for step in range(256)])))


def tidy(axes: "Axes", *, x: str, y: str, title: str | None = None) -> None:
    """Label the axes, and take away what carries no information."""
    axes.set_xlabel(plain(x))
    axes.set_ylabel(plain(y))
    if title is not None:
        axes.set_title(plain(title), fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def set_title(figure: "Figure", title: str) -> None:
    """Say above the whole figure what it shows, in as many lines as its width asks for."""
    letters_per_inch = 12  # at this size; 13 run over the edge where many are digits or capitals
    figure.suptitle(textwrap.fill(plain(title), max(int(figure.get_figwidth() * letters_per_inch), 20)), fontsize=11)


def list_classes(axes: "Axes", class_names: Sequence[str], *, fontsize: float = 9) -> None:
    """Name the horizontal bars 0, 1, 2, ... from the top down."""
    axes.set_yticks(range(len(class_names)), [shorten(name, LONGEST_CLASS) for name in class_names], fontsize=fontsize)
    axes.set_ylim(len(class_names) - 0.4, -0.6)


def shorten(text: str, longest: int) -> str:
    """Return a text in so many characters at most, as `plain` does; what was cut ends in a dot of three."""
    return plain(text if len(text) <= longest else text[: longest - 1] + "…")


def plain(text: str) -> str:
    """Return a text so that a picture shows it as it is: matplotlib takes what is between two $ for a formula, and fails at a wrong one."""
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def in_legend(text: str) -> str:
    """Return a text as the label of a line, as `plain` does: matplotlib leaves those that begin with _ out of legends."""
    return f" {plain(text)}" if text.startswith("_") else plain(text)
