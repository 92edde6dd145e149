"""What the finders draw."""

from firstlight.plotting.finders import plot_batch_sizes, plot_lr_range
from tests.plotting.conftest import texts


def test_finders_mark_what_they_found() -> None:
    lrs, losses = [10.0**e for e in range(-5, 1)], [2.3, 2.2, 1.0, 0.5, 0.6, 9.0]
    figure = plot_lr_range(lrs, losses, losses, steepest=1e-3, largest=1e-2, title="t")
    assert figure.axes[0].get_xscale() == "log"
    assert {"falls fastest: 0.001", "largest that trains: 0.01"} <= set(texts(figure))
    assert figure.axes[0].get_ylim()[1] < 9
    figure = plot_batch_sizes([(1, 10.0), (2, 19.0)], failed=[4, 3], title="t")
    assert "out of memory" in texts(figure)
    assert texts(plot_lr_range([], [], [], steepest=None, largest=None, title="t"))
