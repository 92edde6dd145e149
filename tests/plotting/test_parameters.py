"""Pictures of many parameters: what stands in them, read back from the figures."""

import pytest

from firstlight.plotting.parameters import Axis, plot_coverage, plot_importance, plot_parallel
from tests.plotting.conftest import texts


def test_coverage_counts_what_a_grid_and_draws_look_at() -> None:
    """E7: 9 points of a grid look at 3 values of each parameter, 9 draws at 9."""
    grid = (Axis("a", [1, 2, 3] * 3), Axis("b", [1] * 3 + [2] * 3 + [3] * 3))
    draws = (Axis("a", [1 + 0.1 * i for i in range(9)]), Axis("b", [3 - 0.1 * i for i in range(9)]))
    figure = plot_coverage([("grid", *grid), ("random", *draws)])
    written = texts(figure)
    assert written.count("a\n3 distinct values") == written.count("b\n3 distinct values") == 1
    assert written.count("a\n9 distinct values") == written.count("b\n9 distinct values") == 1
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert [len(line.get_xdata()) for line in left.lines] == [9, 9, 9]


def test_parallel_coordinates_have_a_line_a_trial_on_the_right_heights() -> None:
    """B19: log axes where factors count, names in order, trials without a figure dotted, the best on top."""
    axes = [Axis("lr", [0.01, 0.1, 1.0], log=True), Axis("name", ["x", "y", None]), Axis("n", [1, 5, 3])]
    figure = plot_parallel(axes, [0.5, 0.9, None], name="val_accuracy", higher_is_better=True, title="t")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    heights = [[float(value) for value in line.get_ydata()] for line in lines]
    assert heights[-1] == pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert lines[-1].get_linewidth() > 2
    assert heights[0][:3] == pytest.approx([1.0, 1.0, 0.5])  # a name that does not apply is a name: -
    assert lines[0].get_linestyle() == ":"
    assert {"lr", "name", "n", "val_accuracy"} <= set(texts(figure))
    lower = plot_parallel(axes, [0.5, 0.9, None], name="val_loss", higher_is_better=False, title="t")
    best = [line for line in lower.axes[0].lines if len(line.get_xdata()) == 4][-1]
    assert float(best.get_ydata()[0]) == 0.0


def test_a_parameter_that_does_not_apply_lies_below() -> None:
    """A line is never broken: momentum does not apply to adam."""
    axes = [Axis("optim", ["sgd", "adam"]), Axis("momentum", [0.9, None]), Axis("never", [None, None])]
    figure = plot_parallel(axes, [0.5, 0.9], name="o", higher_is_better=True, title="t")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert [list(line.get_ydata()) for line in lines] == [[0.0, 0.5, -0.1, 0.0], [1.0, -0.1, -0.1, 1.0]]
    assert figure.axes[0].get_ylim()[0] < -0.1


@pytest.mark.parametrize("values", [[1e-5 * 1.2**i for i in range(60)], [2.0, 2.1, 2.11, 9.0], [3, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 900]])
def test_ticks_of_a_vertical_axis_do_not_overlap(values: list[float]) -> None:
    figure = plot_parallel([Axis("a", values, log=0 < min(values) < 1e-4)], list(values), name="o", higher_is_better=True, title="t")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not [
        1 for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.x0 < b.x1 and b.x0 < a.x1 and a.y0 + 2 < b.y1 and b.y0 + 2 < a.y1
    ]


def test_importance_shows_bars_spread_and_chance() -> None:
    figure = plot_importance(["a", "b"], [0.6, 0.1], [0.5, 0.0], [0.7, 0.2], chance=[0.2, 0.2], remark="share", title="t")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.6, 0.1]
    assert "what noise alone would give" in texts(figure)
