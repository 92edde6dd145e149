"""Where the microseconds of a training step go, beside the raw PyTorch loop: a tiny MLP (784-16-10, batch 32, MNIST) on one thread.

`python -m benchmarks.step_parts [--force] [--rounds N]`. Whole epochs of both loops take turns, and so do the parts of our step, each
repeated on its own with the tensors of a real step; a part's figure is its fastest round, since whatever else runs only adds. The clock
is the CPU time of the thread. Our loop writes a row a step, keeps running accuracy and norms; the raw loop reads loss.item().
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import firstlight as fl
from benchmarks.record import Row, refuse_when_busy, write_result
from firstlight.data.build import load_training_data
from firstlight.engine.loop import train_one_epoch
from firstlight.engine.loss import cross_entropy_with_gradient
from firstlight.engine.record import Recorder
from firstlight.engine.seeding import private_randomness, seed_batch
from firstlight.engine.signals import StopRequest
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import StepResult, _run_backward, apply_gradients
from firstlight.engine.train import prepare
from firstlight.tracking.console import Console
from firstlight.tracking.writer import RunWriter

BATCH_SIZE, NUM_STEPS = 32, 500
REPEATS = 50
"""Calls of a part between two looks at the clock."""
FIXED = {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1}


def main() -> None:
    """Measure, print, and write results/step_parts.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each loop and of each part")
    args = parser.parse_args()
    refuse_when_busy(args.force)
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": [16]},
        "split": {"num_train": NUM_STEPS * BATCH_SIZE},
        "device": FIXED,
        "train": {"batch_size": BATCH_SIZE},
    }
    config, data_dir = fl.load_config("mnist_mlp", **settings), Path(os.environ["FIRSTLIGHT_DATA"])
    data = load_training_data(config, data_dir)
    images, labels = data.record.normalize.apply(data.train.images), data.train.labels
    assert labels is not None
    prepared = prepare(config, data_dir)
    with training(prepared.state, prepared.setup) as recorder:
        loops: dict[str, Callable[[], float]] = {
            "raw loop": lambda: raw_epoch(images, labels),
            "our loop": lambda: our_epoch(prepared.state, prepared.setup, recorder),
        }
        turns = [{name: loop() for name, loop in loops.items()} for _ in range(args.rounds + 1)][1:]  # the first turn warms up
        parts = fastest(parts_of_step(prepared.state, prepared.setup, recorder), args.rounds)
    rows = rows_of(turns, parts)
    for row in rows:
        print(f"{row['value']:10.2f} {row['unit']:3} {row['what']}  {row.get('note', '')}")
    print(write_result("step_parts", "A training step of a tiny MLP, part by part", "python -m benchmarks.step_parts", rows))


@contextmanager
def training(state: TrainState, setup: Setup) -> Iterator[Recorder]:
    """Give a recorder that writes into a folder which is thrown away."""
    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder) / "run") as writer, private_randomness():
        yield Recorder(writer, Console(quiet=True), facts={}, config={}, resume_line="")


def raw_epoch(images: Tensor, labels: Tensor) -> float:
    """Return the microseconds of CPU a step of the loop that everybody writes first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH_SIZE, shuffle=True)
    total, began = 0.0, time.thread_time()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return (time.thread_time() - began) / len(loader) * 1e6


def our_epoch(state: TrainState, setup: Setup, recorder: Recorder) -> float:
    """Return the microseconds of CPU a step of train_one_epoch, its rows written."""
    state.batch, state.step = 0, 0
    began = time.thread_time()
    train_one_epoch(state, setup, recorder, StopRequest())
    recorder.fetch(state, setup)
    return (time.thread_time() - began) / setup.train_loader.num_batches * 1e6


def parts_of_step(state: TrainState, setup: Setup, recorder: Recorder) -> dict[str, Callable[[], Any]]:
    """Return the parts of our step, to be called again and again on the tensors of one step."""
    endless = (batch for epoch in range(10**6) for batch in setup.train_loader.batches(epoch, reuse_buffers=True))
    batch = next(setup.train_loader.batches(0))
    inputs, weights = batch.images.flatten(1), [parameter.detach() for parameter in state.model.parameters()]
    logits = state.model(batch.images).detach()
    parameters = list(state.model.parameters())

    def loss_and_gradient() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return cross_entropy_with_gradient(logits, batch.labels, scale=setup.one)

    loss, slope = loss_and_gradient()
    gradients = [torch.randn_like(weight) for weight in weights]
    result = StepResult(loss, logits.argmax(1) == batch.labels, torch._foreach_norm(gradients))

    def forward_and_backward() -> None:
        _run_backward((state.model(batch.images),), (slope,), False, False, (), True, True)
        for parameter in parameters:
            parameter.grad = None

    def norms_and_optimizer() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            apply_gradients(state, setup, 1e-12)

    def record() -> None:
        recorder.note_batch(result, BATCH_SIZE)
        state.step += 1
        recorder.close_step(state, 0.1, result.grad_norms)
        if state.step % setup.train.log_every == 0:
            recorder.fetch(state, setup)

    return {
        "two GEMMs, of the first layer": lambda: (inputs @ weights[0].t(), gradients[0][:, :BATCH_SIZE] @ inputs),
        "data: gather, normalise, labels": lambda: next(endless),
        "seed of the batch": lambda: seed_batch(0, 1, 2),
        "learning rate": lambda: setup.lr(state),
        "forward, graph recorded": lambda: state.model(batch.images),
        "forward and backward": forward_and_backward,
        "loss and its gradient": loss_and_gradient,
        "norms, optimizer, gradients cleared": norms_and_optimizer,
        "images recognised": lambda: logits.argmax(1) == batch.labels,
        "record, fetch, rows to the file": record,
    }


def fastest(parts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the microseconds of CPU a call of each part, the least of the rounds."""
    least = dict.fromkeys(parts, float("inf"))
    for _ in range(rounds):
        for name, part in parts.items():
            began = time.thread_time_ns()
            for _ in range(REPEATS):
                part()
            least[name] = min(least[name], (time.thread_time_ns() - began) / REPEATS / 1000)
    return least


def rows_of(turns: list[dict[str, float]], parts: dict[str, float]) -> list[Row]:
    """Return the rows: both loops, their ratio, the parts."""
    columns = {name: [turn[name] for turn in turns] for name in turns[0]}
    columns = {**columns, "ratio": [ours / raw for raw, ours in zip(*columns.values(), strict=True)]}
    rows = []
    for name, values in columns.items():
        spread = f"median; least {min(values):.4g}, most {max(values):.4g}"
        what = "our loop over the raw loop" if name == "ratio" else f"{name}, a step"
        goal = {"most": 0.5} if name == "ratio" else {}
        rows.append({"what": what, "value": statistics.median(values), "unit": "x" if name == "ratio" else "us", "n": len(values), **goal})
        rows[-1]["note"] = spread
    return [*rows, *({"what": name, "value": value, "unit": "us", "note": "least"} for name, value in parts.items())]


if __name__ == "__main__":
    main()
