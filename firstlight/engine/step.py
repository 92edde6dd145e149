"""One training step. Nothing here waits for the device: losses stay tensors until somebody logs them."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from firstlight.data.loader import Batch
from firstlight.engine.state import Setup, TrainState


def train_step(state: TrainState, batch: Batch, setup: Setup, *, share: float, lr: float | None) -> Tensor:
    """Learn from one batch: forward, loss, backward, and, when `lr` is given, the optimizer's step.

    share: this batch's part of the images whose gradients are added up before a step; 1 without accumulation.
    Returns the mean loss of the batch, a scalar on the device.
    """
    with setup.arithmetic.autocast():
        logits = state.model(batch.images)
    loss = cross_entropy(logits.float(), batch.labels, label_smoothing=setup.train.label_smoothing)
    (loss if share == 1 else loss * share).backward()
    if lr is not None:
        apply_gradients(state, setup, lr)
    with torch.no_grad():
        state.running += torch.stack((loss * len(batch.labels), (logits.argmax(1) == batch.labels).sum()))
    return loss.detach()


def apply_gradients(state: TrainState, setup: Setup, lr: float) -> None:
    """Clip where asked, let the optimizer step at `lr`, clear the gradients, and follow with the moving average."""
    if setup.train.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), setup.train.clip_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.ema is not None:
        update_ema(state, setup.train.ema_decay)


@torch.no_grad()
def update_ema(state: TrainState, decay: float) -> None:
    """Move the averaged weights towards the weights; buffers (batch norm's statistics) are copied."""
    for average, current in zip(state.ema.parameters(), state.model.parameters(), strict=True):
        average.lerp_(current, 1 - decay)
    for average, current in zip(state.ema.buffers(), state.model.buffers(), strict=True):
        average.copy_(current)
