"""The picture of a training's health: six panels, each with its verdict, also where nothing could be measured."""

import math
from typing import Any

import pytest

from firstlight.plotting.health import MAX_LAYERS, plot_health


def found(**more: Any) -> dict[str, Any]:
    """Plain data as `check_health` gives them; more: figures of checks by name."""
    figures: dict[str, dict[str, Any]] = {
        "initial loss": {"loss": 2.5},
        "one batch": {},
        "labels": {},
        "learning rate": {},
        "gradients": {"norm_by_layer": {"one": 1.0, "two": 0.0}},
        "update ratio": {"ratio_by_layer": {"one": 1e-3, "two": 2e-3}},
        "dead units": {"share_by_layer": {"one": 0.5}, "share_by_layer_after": {"one": 1.0}},
    }
    checks = [{"name": name, "verdict": "warning", "figures": more.get(name.replace(" ", "_"), values)} for name, values in figures.items()]
    curves = {name: {"steps": [0, 10, 20], "losses": [2.4, 1.0, 0.5]} for name in ("one batch", "real images")}
    return {"checks": checks, "curves": curves | {"lr x 10": {"steps": [0, 10], "losses": [2.4, math.inf]}}, "ln_classes": math.log(10)}


def test_each_panel_names_its_finding_and_its_axes() -> None:
    figure = plot_health(found(), title="small: 1 warning")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "Initial loss: warning",
        "One batch by heart: warning",
        "Short trials: warning",
        "Gradient by layer: warning",
        "Update by layer: warning",
        "Dead units: warning",
    ]
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == ["real images", "lr x 10 (diverges)", "guessing"]
    assert [text.get_text() for text in figure.axes[3].texts] == ["1", "0"]
    assert [text.get_text() for text in figure.axes[5].texts] == ["50%", "100%"]


@pytest.mark.parametrize(
    ("more", "panel", "says"),
    [
        ({"gradients": {}}, 3, "not measured"),
        ({"gradients": {"norm_by_layer": {"one": 0.0}}}, 3, "0 in every layer"),
        ({"dead_units": {}}, 5, "no ReLU, sigmoid or tanh"),
        ({"initial_loss": {"loss": math.nan}}, 0, "no number"),
        ({"initial_loss": {"loss": None}}, 0, "no number"),
    ],
)
def test_a_panel_without_figures_says_so(more: dict[str, Any], panel: int, says: str) -> None:
    figure = plot_health(found(**more), title="small")
    assert says in [text.get_text() for text in figure.axes[panel].texts]


def test_a_deep_network_is_thinned_out() -> None:
    layers = {f"a.very.long.name.of.a.layer.{number}": 1.0 for number in range(100)}
    axes = plot_health(found(gradients={"norm_by_layer": layers}), title="deep").axes[3]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == MAX_LAYERS and names[0].endswith("layer.0") and names[-1].endswith("layer.99")
