"""Throughput explained: three constructed cases by the real command function, running out of memory, and the rules by hand."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import firstlight as fl
from firstlight.data.build import load_training_data
from firstlight.engine.children import OUT_OF_MEMORY
from firstlight.errors import ConfigError, OutOfMemoryError
from firstlight.profiling.kernels import Kernel
from firstlight.profiling.subject import find_subject
from firstlight.profiling.throughput import (
    Point,
    _child,
    explain,
    is_past_the_knee,
    knee_of,
    profile_throughput,
    remarks,
    still_grows,
    with_fixed_seconds,
)
from tests.profiling.conftest import ROOFS


def measured(source: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    return profile_throughput(str(source), *overrides, out=source.parent / "profile", **options)


def test_a_slow_loader_is_told_from_a_slow_network(tiny: Path) -> None:
    """D17 F6: turning and recolouring large images takes far longer than a linear network."""
    found = measured(
        tiny, "model=linear", "input.image_size=320", "augment={rotation: 30, color_jitter: 0.5}", "split.num_train=40", limit=2
    )
    last = found["points"][-1]
    assert (last["batch_size"], last["binds"]) == (2, "data wait")
    assert sum(last["cause_seconds"].values()) == pytest.approx(last["step_seconds"], rel=1e-6)
    assert last["part_seconds"]["data wait"] > last["part_seconds"]["forward"] + last["part_seconds"]["backward"]
    assert last["says"].startswith("batch 2: data wait binds, ")
    assert "data wait takes" in found["says"] or "data wait there" in found["says"]


def test_a_tiny_network_waits_for_python(tiny: Path, tmp_path: Path) -> None:
    """D17 F6: at batch 1 the calls take longer than what they compute; the parts make up the step.

    It is a run by its name, whose folder gets the files; nothing of the run itself changes.
    """
    run = fl.train(tiny, "train.epochs=1", name="mine", runs_dir=tmp_path)
    before = (run.path / "run.json").read_bytes()
    found = profile_throughput("mine", limit=2, runs_dir=tmp_path)
    assert [point["batch_size"] for point in found["points"]] == [1, 2]
    first = found["points"][0]
    assert first["binds"] == "overhead"
    assert sum(first["cause_seconds"].values()) == pytest.approx(first["step_seconds"], rel=1e-6)
    assert set(first["part_seconds"]) == {"data wait", "forward", "backward", "optimizer", "rest"}
    assert first["slowest_images_per_second"] <= first["images_per_second"] <= first["fastest_images_per_second"]
    assert (found["largest"], found["out_of_memory"], found["num_images"]) == (2, [], 200)
    assert (found["run"], found["what"], found["split"]) == (str(run.path), "throughput", "train")
    assert sorted(path.name for path in (run.path / "profile").iterdir()) == [f"throughput.{kind}" for kind in ("json", "png", "svg")]
    assert (run.path / "run.json").read_bytes() == before
    with Image.open(found["files"][0]) as image:
        assert image.width > 1000
    assert json.loads(Path(found["files"][2]).read_text())["says"] == found["says"]


def test_a_large_network_computes(tiny: Path) -> None:
    """D17 F6: convolutions of 64 to 128 channels on 96x96 pixels leave nothing else to wait for."""
    found = measured(tiny, "model={name: small_cnn, widths: [64, 128, 128]}", "input.image_size=96", "split.num_train=60", limit=2)
    last = found["points"][-1]
    assert (last["batch_size"], last["binds"]) == (2, "compute")
    assert sum(last["cause_seconds"].values()) == pytest.approx(last["step_seconds"], rel=1e-6)
    assert "multiply-adds, at" in last["says"]


def test_memory_ends_as_a_result(tiny: Path) -> None:
    """D17, fault 25: the child dies, the largest batch that fits is found, and the picture is drawn."""
    cnn = ("model={name: small_cnn, widths: [32, 32, 32]}", "input.image_size=160", "split.num_train=20")
    found = measured(tiny, *cnn, memory_mib=80)
    assert found["out_of_memory"]
    taken = {point["batch_size"]: point["step_mib"] for point in found["points"] if "why" not in point}
    assert 16 < taken[1] < taken[found["largest"]] <= 80  # an image's activations are some 16 MiB
    assert found["largest"] < min(found["out_of_memory"]) <= 16
    assert f"the largest batch that fits is {found['largest']}" in found["says"]
    assert next(point["says"] for point in found["points"] if "why" in point).endswith(": out of memory")


def test_a_killed_child_is_a_result(tiny: Path) -> None:
    """Fault 27: the system may kill what takes too much."""
    subject = find_subject(str(tiny), ())
    with _child(subject, load_training_data(subject.config, Path()), None, None) as child:
        assert child.ready["arithmetic"]["threads"] == 1
        child._process.kill()
        assert child.tell(b"4\n") is None
        assert child.end() == OUT_OF_MEMORY


def test_wrong_input_is_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--limit is 0, which leaves nothing to measure; take 1 or more"):
        measured(tiny, limit=0)
    with pytest.raises(ConfigError, match="--memory is 0 MiB, which leaves nothing to measure; take a number above 0"):
        measured(tiny, memory_mib=0)
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        profile_throughput("quickstartt", runs_dir=tmp_path)
    with pytest.raises(ConfigError, match="lrr"):
        measured(tiny, "optim.lrr=1")


def point(batch_size: int, seconds: float, kernels: list[Kernel] | None = None, wait: float = 0.0) -> Point:
    parts = {"data wait": wait, "forward": seconds - wait, "backward": 0.0, "optimizer": 0.0, "rest": 0.0}
    return Point(batch_size, ROOFS, whole_seconds=[seconds], seconds=seconds, parts=parts, kernels=kernels or [])


def test_what_binds_is_what_takes_most() -> None:
    """F6: wait, then kernels by their nearer roof; the rest is overhead, and all four make up the step."""
    multiply, move = Kernel("mm", 0.5, 10**9, 1000), Kernel("relu", 0.2, 0, 10**6)
    causes = point(4, 1.0, [multiply, move], wait=0.1).causes
    assert causes == pytest.approx({"data wait": 0.1, "overhead": 0.2, "memory": 0.2, "compute": 0.5})
    assert point(4, 1.0, [multiply, move]).binds == "compute"
    assert point(4, 1.0, [move], wait=0.1).binds == "overhead"
    assert point(4, 1.0, [multiply], wait=0.9).causes == pytest.approx({"data wait": 0.9, "overhead": 0, "memory": 0, "compute": 0.1})
    assert point(4, 1.0, [multiply, move]).ceilings == pytest.approx({"overhead": 4 / 0.3, "memory": 4 / (1e-8 + 1e-4), "compute": 400})


def test_what_does_not_grow_with_the_batch_is_overhead_but_for_weights() -> None:
    """A kernel of 10 us at one image and 17 at eight has 9 that it always takes; one that reads 10 MB of weights works for them."""
    weights = 10**7 / 1e10
    one = point(1, 1.0, [Kernel("relu", 10e-6, 0, 100), Kernel("mm", weights * 2, 100, 10**7)])
    eight = point(8, 1.0, [Kernel("relu", 17e-6, 0, 800), Kernel("mm", weights * 2, 800, 10**7)])
    first, last = with_fixed_seconds([one, eight])
    assert first.fixed_seconds == last.fixed_seconds == pytest.approx([9e-6 - 3 * 100 / 1e11, 0.0])
    assert last.causes["memory"] == pytest.approx(8e-6 + weights * 2, rel=1e-3)
    assert with_fixed_seconds([one])[0].fixed_seconds == ()
    assert with_fixed_seconds([one, point(8, 1.0, [Kernel("sin", 1.0, 0, 1)])])[0].fixed_seconds == ()


def test_the_search_ends_behind_the_knee() -> None:
    """Two doublings in a row that bring less than 5 %."""
    speeds = [100, 190, 300, 310, 305]
    points = [point(2**place, 2**place / speed) for place, speed in enumerate(speeds)]
    assert [is_past_the_knee(points[: num + 1]) for num in range(5)] == [False, False, False, False, True]
    assert knee_of(points).batch_size == 4
    assert not is_past_the_knee([point(1, 1.0), point(2, 3.0)])


def test_the_finding_is_one_sentence() -> None:
    points = [point(1, 1.0, wait=0.9), point(2, 1.0, [Kernel("mm", 0.9, 10**9, 1)]), point(4, 2.0)]
    expected = (
        "net: knee at batch 2 (2 images/s); data wait binds at batch 1, compute there (90% of a step); the largest batch that fits is 4"
    )
    assert explain("net", points, [8]) == expected
    assert not still_grows(points)
    assert explain("net", points[:2], []).startswith("net still gains from a larger batch at 2 (2 images/s): compute takes 90%")
    assert explain("net", points[:1], []).startswith("net at batch 1 (1 images/s): data wait takes 90% of a step")
    assert still_grows([point(4, 4.0), point(8, 4.0), point(10, 4.8)])  # 10 is too near to 8 to tell
    assert explain("net", [point(1, 1.0, wait=0.9), point(2, 2.0)], []).startswith("net is as fast at batch 1 as at any other (1 images/s)")
    assert Point(8, ROOFS, OUT_OF_MEMORY).to_json() == {"batch_size": 8, "why": OUT_OF_MEMORY, "says": "batch 8: out of memory"}


def test_what_to_know_before_the_figures_are_believed() -> None:
    assert remarks([point(1, 1.0)], graph=False) == []
    busy, captured = remarks([point(1, 1.0), replace(point(2, 1.0), busy=True)], graph=True)
    assert busy == "other processes were on the processors while batch 2 ran; the figures are too low there"
    assert captured.startswith("device.graph is on")


HOLES = """
import sys
from pathlib import Path
import torch
from firstlight.engine.memory import is_out_of_memory, keep_freed_memory
from firstlight.engine.sources import load_config
from firstlight.engine.train import prepare
from firstlight.profiling.point import measure_point

with keep_freed_memory():
    blocks = [torch.zeros(size) for _ in range(8) for size in (15_000_000, 500_000)]
    del blocks[::2]
prepared = prepare(load_config(sys.argv[1], "model={name: mlp, hidden: [3000, 3000]}"), Path())
limit = float(sys.argv[2])
try:
    print(measure_point(prepared, 1, limit, Path(sys.argv[3]))["step_mib"])
except Exception as error:
    print("out of memory" if is_out_of_memory(error) else error)
"""


@pytest.mark.parametrize(("limit", "fits"), [(60, False), (300, True)])
def test_what_was_freed_before_is_no_gift(tiny: Path, tmp_path: Path, limit: int, fits: bool) -> None:
    """D17: gradients and momentum, 35 MiB each, count as what a step takes, also where they find holes to lie in."""
    words = [sys.executable, "-c", HOLES, str(tiny), str(limit), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    if fits:
        assert 70 < float(said) < 120
    else:
        assert said == "out of memory"


def test_not_even_one_image(tiny: Path) -> None:
    """Fault 25: one line where nothing fits."""
    with pytest.raises(OutOfMemoryError, match="not even a batch of one image of tiny fits; try a smaller network or more memory"):
        measured(tiny, "model={name: mlp, hidden: [3000, 3000]}", memory_mib=30)  # its gradients alone are 35 MiB
