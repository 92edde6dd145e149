"""What the pictures of a profile say."""

from typing import Any

from firstlight.plotting.layers import plot_layers
from firstlight.plotting.memory import plot_memory
from firstlight.plotting.throughput import plot_throughput
from tests.plotting.conftest import texts


def point(batch_size: int, speed: float) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "images_per_second": speed,
        "slowest_images_per_second": 0.9 * speed,
        "fastest_images_per_second": 1.2 * speed,
        "part_seconds": {"data wait": 1.0, "forward": 2.0, "backward": 4.0, "optimizer": 2.0, "rest": 1.0},
        "cause_seconds": {"data wait": 1.0, "overhead": 2.0, "memory": 3.0, "compute": 4.0},
        "ceilings": {"data wait": 10 * speed, "overhead": 5 * speed, "memory": 3 * speed, "compute": 2.5 * speed},
    }


def test_throughput_shows_roofs_parts_and_causes() -> None:
    """D17 F6: a batch axis by powers of two, units on both, the knee, running out of memory, and shares that fill each bar."""
    figure = plot_throughput([point(1, 10.0), point(2, 19.0), point(4, 30.0), point(5, 31.0)], failed=[6, 8], knee=4, title="t")
    speed, parts, causes = figure.axes
    assert speed.get_xaxis().get_scale() == "log"
    assert (speed.get_xlabel(), speed.get_ylabel()) == ("batch size (images)", "training speed (images/s)")
    assert {"measured", "compute roof", "memory roof", "overhead alone", "data wait alone", "out of memory", "knee: 4"} <= set(
        texts(figure)
    )
    for axes, names in ((parts, 5), (causes, 4)):
        assert len(axes.containers) == names
        assert [round(sum(bars[place].get_height() for bars in axes.containers), 9) for place in range(3)] == [1, 1, 1]
        assert len(axes.containers[0]) == 3  # a bar of 5 would stand on that of 4
        assert axes.get_xlim() == speed.get_xlim()


def test_one_batch_size_is_a_picture_too() -> None:
    found = texts(plot_throughput([point(1, 10.0)], failed=[], knee=None, title="t"))
    assert "1" in found
    assert not [text for text in found if text.startswith("knee")]


def test_memory_shows_what_there_is() -> None:
    """D7: no moving average, no entry for it."""
    counted = ("parameters", "gradients", "optimizer", "average", "activations")
    rows = [{"network": name, **dict.fromkeys(counted, 2**20), "average": 0, "peak": 3 * 2**20} for name in ("lenet", "alexnet")]
    figure = plot_memory(rows, counted=counted, title="t")
    found = texts(figure)
    assert {"lenet", "alexnet", "measured peak", "memory of a training step (MiB)", "share of what was counted"} <= set(found)
    assert "moving average" not in found
    assert figure.axes[0].containers[0][0].get_width() == 1.0


def layer(name: str, kind: str, parameters: int, flops: int) -> dict[str, Any]:
    return {"layer": name, "kind": kind, "parameters": parameters, "flops": flops}


def test_layers_with_next_to_nothing_share_a_row() -> None:
    rows = [
        layer("a", "Linear", 30_000, 60_000),
        layer("b", "ReLU", 0, 0),
        layer("norm1", "BatchNorm2d", 20, 0),
        layer("norm2", "BatchNorm2d", 30, 0),
        layer("stages." * 9, "Linear", 10_000, 20_000),
    ]
    figure = plot_layers(rows, title="t")
    found = texts(figure)
    assert {"a  Linear", "75%", "25%", "2 small layers"} <= set(found)
    assert not [text for text in found if "ReLU" in text or "norm1" in text]
    assert [text for text in found if text.startswith("…") and text.endswith("stages.  Linear")]
    assert [bar.get_width() for bar in figure.axes[0].containers[0]] == [30_000, 10_000, 50]
    assert "norm1  BatchNorm2d" in texts(plot_layers(rows[:3], title="t"))
