"""How parameters and floating-point operations are spread over the layers of a network."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.style import PALETTE, list_classes, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LITTLE = 0.005
"""Share of the parameters, or of the FLOPs, from which on a layer has a row of its own."""
MAX_NAME = 28
"""Characters of a layer's name; of a longer one the end is shown, which tells it from its neighbours."""


def plot_layers(layers: Sequence[Mapping[str, Any]], *, title: str) -> "Figure":
    """Return two bars for each layer: its parameters, and its FLOPs of one image. Those with next to nothing of either share a row.

    layers: rows with `layer`, `kind`, `parameters` and `flops`, from the images to the logits.
    """
    shown = _joined(layers)
    figure, axes = new_figure(1, 2, width=9.6, height=0.24 * len(shown) + 1.8, sharey=True)
    for panel, key, color, label in zip(
        axes, ("parameters", "flops"), (PALETTE[0], PALETTE[1]), ("parameters", "FLOPs of one image (2 a multiply-add)"), strict=True
    ):
        values = [row[key] for row in shown]
        total = max(sum(values), 1)
        bars = panel.barh(range(len(shown)), values, color=color)
        panel.bar_label(bars, [f"{value / total:.0%}" if value / total >= 0.005 else "" for value in values], padding=3, fontsize=8)
        panel.set_xlim(0, 1.12 * max([*values, 1]))
        panel.xaxis.set_major_formatter(_short)
        list_classes(panel, [_name(row) for row in shown], fontsize=8)
        tidy(panel, x=label, y="layer" if key == "parameters" else "")
        panel.grid(visible=False, axis="y")
    set_title(figure, title)
    return figure


def _joined(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the layers with more than the share LITTLE of the parameters or of the FLOPs, and behind them one row for all others."""
    totals = {key: sum(row[key] for row in layers) for key in ("parameters", "flops")}
    large = [row for row in layers if any(row[key] > LITTLE * total for key, total in totals.items())]
    rest = [row for row in layers if row not in large and (row["parameters"] or row["flops"])]
    if len(rest) < 2:
        return [row for row in layers if row in large or row in rest] or list(layers)
    return [*large, {"layer": f"{len(rest)} small layers", "kind": "", **{key: sum(row[key] for row in rest) for key in totals}}]


def _name(row: Mapping[str, Any]) -> str:
    name = str(row["layer"])
    name = name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"
    return f"{name}  {row['kind']}".rstrip()


def _short(value: float, _: Any) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g}"
