"""Numbers that are no longer finite: found without waiting for the device at each step, and reported exactly.

Every step's loss and gradient norm are looked at when they are fetched, and weights, buffers, averages and the optimizer's
state before each checkpoint, so that what is saved is always good.
"""

from typing import Any

import torch
from torch import Tensor

from firstlight.engine.state import Setup, TrainState


def broken_tensors(state: TrainState) -> list[str]:
    """Return the names of weights, buffers, averages and optimizer state that hold NaN or an infinity; one transfer where all is well."""
    named = {name: tensor for name, tensor in _tensors(state).items() if tensor.is_floating_point()}
    finite = torch.stack([tensor.isfinite().all() for tensor in named.values()])
    if bool(finite.all()):
        return []
    return [name for name, well in zip(named, finite.tolist(), strict=True) if not well]


def nan_report(state: TrainState, setup: Setup, step: int, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a step that broke: its figures, its batches, the images in them, the tensors that are broken by now."""
    batches = setup.batches_of_step(step)
    epoch = (step - 1) // setup.steps_per_epoch
    images = torch.cat([setup.train_loader.indices(epoch, number) for number in batches])
    return {
        "step": step,
        "epoch": epoch + 1,
        **facts,
        "batches": list(batches),
        "images": images.tolist(),
        "tensors": broken_tensors(state),
    }


def _tensors(state: TrainState) -> dict[str, Tensor]:
    named = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    if state.ema is not None:
        named |= {f"ema.{name}": tensor for name, tensor in state.ema.state_dict().items()}
    for index, entries in enumerate(state.optimizer.state.values()):
        named |= {f"optim.{index}.{key}": value for key, value in entries.items() if isinstance(value, Tensor) and value.ndim}
    return named
