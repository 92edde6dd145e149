"""The child of profiling/memory.py: one network, its training steps on noise, and the bytes of each part.

Parameters, gradients and the optimizer's memory are added up over their storages; activations are what autograd keeps for the backward
pass (torch.autograd.graph.saved_tensors_hooks); the peak is the allocator's on a GPU, the resident set's on the host.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.data.loader import Batch
from firstlight.engine import step as engine_step
from firstlight.engine.children import OUT_OF_MEMORY, answer, answer_errors, read_asked
from firstlight.engine.device import Arithmetic
from firstlight.engine.memory import is_out_of_memory, keep_freed_memory, out_of_memory, peak_memory_mib
from firstlight.engine.seeding import private_randomness
from firstlight.engine.sources import config_from
from firstlight.engine.step import train_step
from firstlight.engine.train import Prepared, prepare
from firstlight.profiling.handover import random_data
from firstlight.profiling.parts import replaced, synchronize
from firstlight.profiling.peak import memory_in_use, reset_peak

NUM_STEPS = 3
"""Behind one that warms up."""
WARM_IMAGES = 2


def main() -> None:
    """Prepare the network and answer once."""
    asked = read_asked()
    arithmetic = None if asked["arithmetic"] is None else Arithmetic(**asked["arithmetic"])
    config = config_from(asked["config"])
    with answer_errors(), out_of_memory("building the network", "try a smaller one"):
        data = random_data(tuple(asked["image_shape"]), asked["num_classes"], max(asked["batch_size"], WARM_IMAGES))
        prepared = prepare(config, Path(), arithmetic=arithmetic, data=data)
    answer({})
    sys.stdin.buffer.readline()
    try:
        with prepared.setup.arithmetic.on_threads(), private_randomness(prepared.setup.arithmetic.device):
            answer(measure_memory(prepared, asked["batch_size"]))
    except Exception as error:
        answer({"why": OUT_OF_MEMORY if is_out_of_memory(error) else f"{type(error).__name__}: {' '.join(str(error).split())}"})


def measure_memory(prepared: Prepared, batch_size: int) -> dict[str, Any]:
    """Return the bytes of each part of a training step, and of its peak beyond what the process holds beside the network.

    exact_peak: whether the peak is of the steps alone; where the system cannot forget an earlier one, it may be too large.
    """
    state, device = prepared.state, prepared.setup.arithmetic.device
    state.model.train()
    whole = _batch_of(prepared, batch_size)
    with keep_freed_memory():  # behind it, what is freed goes back to the system at once
        take_step(prepared, Batch(*(values[:WARM_IMAGES] for values in whole)))  # the optimizer makes its memory, the libraries theirs
    network = {
        "parameters": bytes_of([*state.model.parameters(), *state.model.buffers()]),
        "optimizer": bytes_of(_tensors(state.optimizer.state_dict()["state"])),
        "average": 0 if state.ema is None else bytes_of([*state.ema.parameters(), *state.ema.buffers()]),
    }
    exact = reset_peak(device)
    besides = memory_in_use(device) - sum(network.values())
    for _ in range(NUM_STEPS):
        take_step(prepared, Batch(*(values.clone() for values in whole)))
    synchronize(device)
    peak = int(peak_memory_mib() * 2**20) - besides
    with counted(prepared) as count:
        take_step(prepared, Batch(*(values.clone() for values in whole)))
    return {
        **network,
        "gradients": count["gradients"],
        "activations": count["activations"],
        "peak": peak,
        "exact_peak": exact,
        "arithmetic": prepared.setup.arithmetic.describe(),
        "num_parameters": prepared.facts["num_parameters"],
    }


def take_step(prepared: Prepared, batch: Batch) -> None:
    """Take one optimizer step, which leaves the weights as they are."""
    prepared.state.step = prepared.setup.total_steps  # images at their full size
    train_step(prepared.state, batch, prepared.setup, share=1.0, lr=1e-12)


@contextmanager
def counted(prepared: Prepared) -> Iterator[dict[str, int]]:
    """Count in the block the bytes of what autograd keeps for the backward pass, the weights left out, and of the gradients."""
    state, found = prepared.state, {"gradients": 0, "activations": 0}
    seen = {_storage(tensor) for tensor in (*state.model.parameters(), *state.model.buffers())}
    apply = engine_step.apply_gradients

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in seen:
            seen.add(_storage(tensor))
            found["activations"] += tensor.untyped_storage().nbytes()
        return tensor

    def count_gradients(*args: Any) -> Any:
        found["gradients"] = bytes_of(parameter.grad for parameter in state.model.parameters() if parameter.grad is not None)
        return apply(*args)

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, replaced("apply_gradients", count_gradients):
        yield found


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of some tensors, each once."""
    return sum({_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _batch_of(prepared: Prepared, batch_size: int) -> Batch:
    """Return a batch of a training, in memory of its own."""
    loader = copy(prepared.setup.train_loader)
    loader.batch_size = batch_size
    return Batch(*(values.clone() for values in next(loader.batches(0))))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


if __name__ == "__main__":
    main()
