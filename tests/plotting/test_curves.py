import io
import math
import tracemalloc

import numpy as np
import pytest

from firstlight.plotting.curves import plot_curves, plot_steps, smooth
from firstlight.plotting.style import MAX_LEGEND, PALETTE

TRAIN = {"train_loss": 1.0, "train_accuracy": 0.5}
VAL = {"val_loss": 1.2, "val_accuracy": 0.4}


def history(num_epochs: int, *, validated: bool = True, best: int = 0) -> list[dict]:
    rows = [{"kind": "epoch", "epoch": epoch, **TRAIN, **(VAL if validated else {})} for epoch in range(1, num_epochs + 1)]
    return [row | {"val_accuracy": 0.4 + row["epoch"] / 100, "best": row["epoch"] <= best} if validated else row for row in rows]


def drawn(figure) -> str:
    """Draw the figure, so that matplotlib's complaints are heard, and return it as SVG."""
    picture = io.StringIO()
    figure.savefig(picture, format="svg")
    return picture.getvalue()


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_run_shows_training_validation_and_best_epoch():
    """B8, D14: train and validation curves."""
    figure = plot_curves({"lenet": history(3, best=2)})
    loss, accuracy = figure.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "cross-entropy loss (nats)")
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy (share of images)")
    assert legend_of(figure) == ["training", "validation", "best epoch"]
    train, val, best = accuracy.lines
    np.testing.assert_allclose(train.get_xydata(), [[1, 0.5], [2, 0.5], [3, 0.5]])
    np.testing.assert_allclose(val.get_xydata(), [[1, 0.41], [2, 0.42], [3, 0.43]])
    np.testing.assert_allclose(best.get_xydata(), [[2, 0.42]])
    assert figure.get_suptitle() == "lenet: validation accuracy 0.4200 at the best epoch, 2"


def test_several_runs_share_axes_with_a_colour_each():
    """D14: curves of several runs on the same axes."""
    figure = plot_curves({"a": history(3), "b": history(5), "c": history(2, validated=False)})
    assert len(figure.axes) == 2
    assert legend_of(figure) == ["a", "b", "c"]
    assert [line.get_color() for line in figure.axes[0].lines] == [PALETTE[0], PALETTE[0], PALETTE[1], PALETTE[1], PALETTE[2]]
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["--", "-", "--", "-", "--"]


def test_of_many_runs_the_first_are_named_and_none_looks_like_another():
    figure = plot_curves({f"run {index}": history(3) for index in range(14)})
    assert len(legend_of(figure)) == MAX_LEGEND
    assert figure.legends[0].get_title().get_text() == "the first 12 runs; 2 more are drawn"
    assert len({(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}) == 14


def test_a_single_epoch_is_a_point_in_the_middle():
    figure = plot_curves({"short": history(1)})
    assert figure.axes[0].get_xlim() == (0, 2)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o", "o"]
    drawn(figure)


def test_without_validation_only_training_is_drawn():
    figure = plot_curves({"all data": history(4, validated=False)})
    assert legend_of(figure) == ["training"]
    assert figure.get_suptitle() == "all data: loss and accuracy by epoch"


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_value_that_is_missing_or_not_finite_leaves_a_gap(value):
    rows = history(3)
    rows[1]["train_loss"] = value
    figure = plot_curves({"gap": rows})
    values = figure.axes[0].lines[0].get_ydata()
    assert not np.isfinite(values[1]) and np.isfinite(values[[0, 2]]).all()
    drawn(figure)


def test_no_runs_and_no_rows_give_empty_axes():
    drawn(plot_curves({}))
    drawn(plot_curves({"nothing yet": []}))


def test_steps_show_loss_and_the_learning_rate_that_was_used():
    """B6: the lr really used is plotted per step."""
    rows = [{"kind": "step", "step": step, "loss": 1 / step, "lr": step / 100} for step in range(1, 201)]
    figure = plot_steps(rows)
    loss, lr = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[row["step"], row["loss"]] for row in rows])
    np.testing.assert_allclose(lr.lines[0].get_xydata(), [[row["step"], row["lr"]] for row in rows])
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["each step", "mean of 4 steps"]
    assert (loss.get_ylabel(), lr.get_xlabel(), lr.get_ylabel()) == ("training loss (nats)", "optimizer step", "learning rate")
    assert loss.get_yscale() == "log"
    assert figure.get_suptitle() == "Training loss and learning rate up to step 200"


@pytest.mark.parametrize("losses", [[], [2.3], [math.nan, math.nan], [0.0, 0.0], [2.3, None, 2.1]])
def test_odd_losses_are_drawn(losses):
    drawn(plot_steps([{"step": step, "loss": loss, "lr": 0.1} for step, loss in enumerate(losses, 1)]))


def test_smooth_is_the_mean_of_what_is_there():
    np.testing.assert_allclose(smooth([1, 2, 3, 4], 2), [1, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(smooth([1, math.nan, 3], 2), [1, 1, 3])
    np.testing.assert_allclose(smooth([math.nan, math.nan], 1), [math.nan, math.nan])
    assert len(smooth([], 3)) == 0
    np.testing.assert_allclose(smooth([math.inf, 3, 5], 3), [math.nan, 3, 4])


def test_smooth_is_the_plain_mean_of_every_window():
    generator = np.random.default_rng(0)
    losses = np.exp(generator.normal(size=300)) * np.where(np.arange(300) < 5, 1e6, 1)
    losses[generator.random(300) < 0.2] = np.nan
    plain = [
        np.nanmean(losses[max(end - 7, 0) : end]) if np.isfinite(losses[max(end - 7, 0) : end]).any() else np.nan for end in range(1, 301)
    ]
    np.testing.assert_allclose(smooth(losses, 7), plain, rtol=1e-8)


def test_a_million_steps_are_smoothed_in_memory_of_their_size():
    """A window of 20,000 steps over a million of them was an array of 20,000,000,000 numbers."""
    losses = np.ones(1_000_000)
    losses[::1000] = np.nan
    tracemalloc.start()
    smoothed = smooth(losses, 20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(smoothed[1:], 1)
    assert peak < 200e6
