"""Curves of few and many trials."""

import pytest

from firstlight.plotting.trials import plot_trials
from tests.plotting.conftest import texts


def history(level: float, epochs: int = 3) -> list[dict[str, float]]:
    return [
        {"epoch": e, "train_loss": level / e, "val_loss": level / e, "train_accuracy": 0.2 * e, "val_accuracy": 0.2 * e}
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(("number", "training"), [(5, True), (100, False), (200, False)])
def test_curves_of_few_and_many_trials(number: int, training: bool) -> None:
    """D15: all trials on one graph; of few also training; the seeds of the best point black and on top; a colour bar for many values."""
    values = [10 ** (-4 + 4 * index / number) for index in range(number)]
    figure = plot_trials([history(1 + index / 50) for index in range(number)], values, num_best=2, parameter="lr", log=True, title="study")
    loss = figure.axes[0]
    assert len(loss.lines) == number * (2 if training else 1)
    black = [line for line in loss.lines if str(line.get_color()) == "black"]
    assert len(black) == 2 * (2 if training else 1)
    assert min(line.get_zorder() for line in black) > max(line.get_zorder() for line in loss.lines if line not in black)
    assert (len(figure.axes) == 3) == (number > 12)
    assert "best point" in texts(figure)


def test_a_loss_that_explodes_does_not_flatten_the_others() -> None:
    rows = [history(1.0), history(2.0), history(1e30)]
    figure = plot_trials(rows, ["a", "b", "c"], num_best=1, parameter="name", log=False, title="study")
    bottom, top = figure.axes[0].get_ylim()
    assert 0 < bottom < 1 / 3 < 2.0 < top < 100
    assert "larger losses are cut off" in texts(figure)


@pytest.mark.parametrize("rows", [[], [{"epoch": 1, "train_loss": 1.0}], [{"epoch": 1, "val_loss": None, "val_accuracy": 0.1}]])
def test_trials_without_figures_are_drawn_as_nothing(rows: list[dict[str, float]]) -> None:
    assert texts(plot_trials([rows], [0.1], num_best=1, parameter="lr", log=True, title="study"))
