"""What safety costs: a checkpoint of 129 MiB, a row of metrics, the way back to a position in 1.5 million images.

`python -m benchmarks.safety`. The peer of a save is torch.save with a flush, which has no checksums and can be torn.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

import firstlight as fl
from benchmarks.record import Row, refuse_when_busy, write_result
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.checkpoint import prune, read_checkpoint, restore_state, save_checkpoint
from firstlight.engine.state import TrainState
from firstlight.optim.build import build_optimizer, build_schedule
from firstlight.tracking.writer import RunWriter

REPEATS = 7
NUM_IMAGES = 1_500_000


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def resnet_state() -> TrainState:
    """Return a training of resnet18 with Adam after its first step: 129 MiB of weights, buffers and averages."""
    config = fl.load_config("resnet18", "optim=adam")
    model = fl.build_model(config.model, (3, 32, 32), 10, seed=0)
    optimizer = build_optimizer(config.optim, model)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return TrainState(model, optimizer, build_schedule(config.schedule).start(), torch.zeros(2))


def measure_saves(folder: Path) -> list[Row]:
    """Save with firstlight and with torch.save in turn, and read back."""
    state, ours, peers = resnet_state(), [], []
    for _ in range(REPEATS):
        state.step += 1
        ours.append(seconds(lambda: save_checkpoint(folder, state)))
        prune(folder, 1)
        peers.append(seconds(lambda: _torch_save(state, folder / "peer.pt")))
    path = folder / f"step-{state.step}"
    mib = sum(file.stat().st_size for file in path.iterdir()) / 2**20
    loads = [seconds(lambda: restore_state(read_checkpoint(path), state)) for _ in range(REPEATS)]
    step = _resnet_step_seconds(state)
    epoch = step * 391
    ratio = median(our / peer for our, peer in zip(ours, peers, strict=True))
    spread = f"range {min(ours):.3f} to {max(ours):.3f}"
    return [
        {
            "what": f"save of {mib:.0f} MiB with checksums, flushed",
            "value": median(ours),
            "unit": "s",
            "most": 0.4,
            "n": REPEATS,
            "note": spread,
        },
        {"what": "the same over torch.save with a flush", "value": ratio, "unit": "x", "n": REPEATS},
        {
            "what": "save as a share of an epoch of resnet18 (391 steps of 128)",
            "value": 100 * median(ours) / epoch,
            "unit": "%",
            "most": 1.0,
            "n": REPEATS,
            "note": f"a step takes {step:.2f} s here",
        },
        {"what": "the same checkpoint checked and restored", "value": median(loads), "unit": "s", "n": REPEATS},
    ]


def measure_rows(folder: Path) -> list[Row]:
    """Write rows of steps in groups of 50, as training does, and one by one."""
    row = {"kind": "step", "step": 12345, "epoch": 17, "lr": 0.0123456789, "loss": 0.123456789, "grad_norm": 1.23456789}
    with RunWriter(folder / "run") as writer:
        grouped = [seconds(lambda: writer.append([row] * 50)) / 50 for _ in range(400)]
        single = [seconds(lambda: writer.append([row])) for _ in range(4000)]
    return [
        {"what": "a row of metrics, in groups of 50", "value": 1e6 * median(grouped), "unit": "us", "most": 10, "n": 400},
        {"what": "a row of metrics by itself", "value": 1e6 * median(single), "unit": "us", "most": 10, "n": 4000},
    ]


def measure_position() -> Row:
    """Find the first batch behind a position in the midst of an epoch of many images."""
    images = fl.make_dataset(torch.zeros(NUM_IMAGES, 1, 4, 4, dtype=torch.uint8), torch.zeros(NUM_IMAGES), ["a"], "zeros")
    loader = Loader(images, batch_size=128, seed=0, normalize=Normalize.identity(1), shuffle=True)
    times = [seconds(lambda epoch=epoch: next(loader.batches(epoch, start=7000))) for epoch in range(REPEATS)]  # type: ignore[misc]
    return {"what": f"first batch after a resume, {NUM_IMAGES:,} images", "value": median(times), "unit": "s", "most": 1.0, "n": REPEATS}


def _torch_save(state: TrainState, path: Path) -> None:
    with path.open("wb") as handle:
        torch.save({"model": state.model.state_dict(), "optim": state.optimizer.state_dict()}, handle)
        handle.flush()
        os.fsync(handle.fileno())


def _resnet_step_seconds(state: TrainState) -> float:
    images, labels = torch.rand(128, 3, 32, 32), torch.arange(128) % 10

    def step() -> None:
        torch.nn.functional.cross_entropy(state.model(images), labels).backward()
        state.optimizer.step()

    step()
    return min(seconds(step) for _ in range(2))


def main() -> None:
    """Measure all three and write the result."""
    refuse_when_busy("--force" in sys.argv)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        rows = [*measure_saves(Path(folder) / "saves"), *measure_rows(Path(folder)), measure_position()]
    write_result("safety", "What safety costs", "python -m benchmarks.safety", rows)


if __name__ == "__main__":
    main()
