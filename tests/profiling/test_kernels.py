"""What the operations of a step compute and move, against torch's own counter and by hand."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from firstlight.engine.sources import load_config
from firstlight.engine.train import prepare
from firstlight.profiling.kernels import Watcher, _Watch
from firstlight.profiling.parts import training_on


@pytest.mark.parametrize(
    "model", ["lenet", "{name: resnet18, width: 8}", "{name: mlp, hidden: [16]}", "{name: cnn5, width: 8}", "scratch_mlp"]
)
def test_flops_of_a_whole_step_as_torch_counts(tiny: Path, tmp_path: Path, model: str) -> None:
    """F6: forward and backward, 2 a multiply-add; the library is the oracle."""
    made = prepare(load_config(tiny, f"model={model}", "input.image_size=16"), Path())
    with training_on(made, 4, tmp_path / "run") as training:
        training.step_on(training.next_batch())
        batch = training.next_batch()
        with FlopCounterMode(display=False) as counter:
            training.step_on(batch)
        watcher = Watcher(training)
        watcher.turn()
        found = watcher.result([1.0])
    assert found.flops == counter.get_total_flops() > 0
    assert found.num_calls > len(found.kernels) > 10
    assert all(kernel.num_bytes > 0 and kernel.seconds >= 0 for kernel in found.kernels)


def bytes_seen(function: object) -> list[tuple[str, bool, int]]:
    watch = _Watch("cpu")
    with watch:
        function()  # type: ignore[operator]
    return [(call.name, call.is_kernel, call.num_bytes) for call in watch.calls]


def test_bytes_are_what_is_read_and_written() -> None:
    a, b, target = torch.ones(10, 20), torch.ones(20, 5), torch.ones(10, 20)
    assert bytes_seen(lambda: a @ b) == [("mm", True, 4 * (200 + 100 + 50))]
    assert bytes_seen(lambda: target.add_(a)) == [("add_", True, 4 * (200 + 200 + 200))]
    assert bytes_seen(lambda: torch._foreach_add_([target, target[0]], 1.0))[-1][2] == 4 * 2 * (200 + 20)
    assert bytes_seen(lambda: a.t()) == [("t", False, 0)]
    assert bytes_seen(lambda: torch.empty(10)) == [("empty", False, 0)]
    spread = torch.ones(1).expand(1000)
    assert bytes_seen(lambda: torch.neg(spread)) == [("neg", True, 4 + 4000)]


def test_shares_survive_a_machine_that_slows_down(tiny: Path, tmp_path: Path) -> None:
    """What another process slows down, it slows down in the step and in its kernels: the share is what is kept."""
    made = prepare(load_config(tiny), Path())
    with training_on(made, 4, tmp_path / "run") as training:
        watcher = Watcher(training)
        watcher.turn()
        quiet = list(watcher._turns[0])
        watcher._turns = [quiet, [2 * value for value in quiet], [50 * value for value in quiet]]
        found = watcher.result([1.0, 2.0, 50.0])
    assert found.call_seconds == pytest.approx(2.0 * quiet[-1])
    kernels = [value for call, value in zip(watcher._watch.calls, quiet, strict=False) if call.is_kernel]
    assert [kernel.seconds for kernel in found.kernels] == pytest.approx([max(2 * (value - quiet[-1]), 0.0) for value in kernels])
