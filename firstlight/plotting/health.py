"""The checks of a training in one picture: how it starts, one batch by heart, gradients, updates and dead units by layer, the trials."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstlight.plotting.style import PALETTE, RIGHT, WRONG, color_of, list_classes, new_figure, set_title, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS = 24
"""Layers that are drawn; of more, as many, evenly spread."""
MAX_NAME = 22
"""Characters of a layer's name."""


def plot_health(found: Mapping[str, Any], *, title: str) -> "Figure":
    """Return six panels.

    found: `checks` (each with name, verdict and figures), `curves` (each with steps and losses, nats) and `ln_classes`, as plain data.
    """
    checks = {check["name"]: check for check in found["checks"]}
    figure, axes = new_figure(2, 3, width=15, height=8.6)
    _draw_start(axes[0], checks.get("initial loss"), found["ln_classes"])
    _draw_curves(axes[1], {key: value for key, value in found["curves"].items() if key == "one batch"}, found["ln_classes"], log=True)
    tidy(axes[1], x="optimizer step", y="loss (nats)", title=_headed("One batch by heart", checks.get("one batch")))
    _draw_curves(axes[2], {key: value for key, value in found["curves"].items() if key != "one batch"}, found["ln_classes"], log=False)
    tidy(axes[2], x="optimizer step", y="loss (nats)", title=_headed("Short trials", checks.get("learning rate"), checks.get("labels")))
    gradients = checks.get("gradients")
    _draw_layers(axes[3], _figures(gradients, "norm_by_layer"))
    tidy(axes[3], x="gradient norm at the start (log scale)", y="layer", title=_headed("Gradient by layer", gradients))
    updates = checks.get("update ratio")
    _draw_layers(axes[4], _figures(updates, "ratio_by_layer"), usual=1e-3)
    tidy(axes[4], x="change by a step / norm of the weights (log scale)", y="layer", title=_headed("Update by layer", updates))
    dead = checks.get("dead units")
    _draw_shares(axes[5], _figures(dead, "share_by_layer"), _figures(dead, "share_by_layer_after"))
    tidy(axes[5], x="dead units (share of the layer)", y="layer", title=_headed("Dead units", dead))
    set_title(figure, title)
    return figure


def _headed(text: str, *checks: Mapping[str, Any] | None) -> str:
    """Return a title with the worst verdict of its checks."""
    order = ("not applicable", "ok", "warning", "fault")
    verdicts = [check["verdict"] for check in checks if check is not None]
    return f"{text}: {max(verdicts, key=order.index)}" if verdicts else text


def _figures(check: Mapping[str, Any] | None, key: str) -> dict[str, float]:
    found: dict[str, float] = (check or {}).get("figures", {}).get(key, {})
    return found


def _draw_start(axes: "Axes", check: Mapping[str, Any] | None, chance: float) -> None:
    loss = (check or {}).get("figures", {}).get("loss", math.nan)
    shown = loss if _is_number(loss) else 0.0
    good = check is not None and check["verdict"] in ("ok", "not applicable")
    bars = axes.barh([0, 1], [shown, chance], color=[RIGHT if good else WRONG, PALETTE[4]])
    axes.bar_label(bars, [f"{loss:.3g}" if shown else "no number", f"{chance:.3g}"], padding=3, fontsize=9)
    list_classes(axes, ["loss of the\nuntrained network", "ln(classes):\nguessing"])
    axes.set_xlim(0, 1.18 * max(shown, chance))
    tidy(axes, x="cross-entropy loss (nats)", y="", title=_headed("Initial loss", check))
    axes.grid(visible=False, axis="y")


def _draw_curves(axes: "Axes", curves: Mapping[str, Mapping[str, Sequence[float]]], chance: float, *, log: bool) -> None:
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    for index, (name, curve) in enumerate(curves.items()):
        values = [value if _is_number(value) else math.nan for value in curve["losses"]]
        broke = "" if all(map(_is_number, curve["losses"])) else " (diverges)"
        axes.plot(curve["steps"], values, color=color_of(index), marker="o", markersize=3, label=f"{name}{broke}")
        if log and values and min(values) > 0 and max(values) < 10 * min(values):
            axes.yaxis.set_minor_formatter("{x:g}")
    axes.axhline(chance, color="#777777", linestyle=":", linewidth=1.4, label="guessing")
    if not log:
        axes.set_ylim(0, 2.5 * chance)
    axes.legend(frameon=False, fontsize=8, ncols=2 if len(curves) > 2 else 1)


def _draw_layers(axes: "Axes", values: Mapping[str, float], *, usual: float | None = None) -> None:
    shown = _thinned(values)
    if not any(_is_number(value) and value > 0 for value in shown.values()):
        _say_nothing(axes, "0 in every layer" if shown else "not measured")
        return
    positive = [value for value in shown.values() if _is_number(value) and value > 0]
    least = min(positive)
    places = range(len(shown))
    numbers = [value if _is_number(value) and value > 0 else least / 10 for value in shown.values()]
    axes.plot(numbers, places, color=PALETTE[0], marker="o", linestyle="-", linewidth=0.8)
    for place, (number, value) in enumerate(zip(numbers, shown.values(), strict=True)):
        text = "0" if value == 0 else f"{value:.2g}" if _is_number(value) else "no number"
        axes.annotate(text, (number, place), xytext=(6, -3), textcoords="offset points", fontsize=8)
    if usual is not None:
        axes.axvline(usual, color=PALETTE[2], linestyle="--", linewidth=1.2, label=f"usual: about {usual:g}")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xscale("log")
    ends = [*numbers, *([usual] if usual else [])]
    axes.set_xlim(min(ends) / 3, max(ends) * 6)
    list_classes(axes, [_short(name) for name in shown], fontsize=8)


def _draw_shares(axes: "Axes", before: Mapping[str, float], after: Mapping[str, float]) -> None:
    shown = _thinned(before)
    if not shown:
        _say_nothing(axes, "no ReLU, sigmoid or tanh")
        return
    places = list(range(len(shown)))
    for index, (label, values) in enumerate((("at the start", before), ("after the trial", after))):
        if values:
            shares = [values.get(name, 0.0) for name in shown]
            bars = axes.barh([place + 0.4 * index - 0.2 for place in places], shares, height=0.38, color=PALETTE[index], label=label)
            axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize=7)
    list_classes(axes, [_short(name) for name in shown], fontsize=8)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _say_nothing(axes: "Axes", why: str = "not measured") -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#777777")
    axes.set_xticks([])
    axes.set_yticks([])


def _thinned(values: Mapping[str, float]) -> dict[str, float]:
    names = list(values)
    if len(names) > MAX_LAYERS:
        names = [names[round(place * (len(names) - 1) / (MAX_LAYERS - 1))] for place in range(MAX_LAYERS)]
    return {name: values[name] for name in names}


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"
