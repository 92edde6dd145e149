"""One training step. Nothing here waits for the device: losses stay tensors until somebody logs them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.variable import Variable

from firstlight.data.interpolation import resize_images
from firstlight.data.loader import Batch
from firstlight.engine.loss import cross_entropy_with_gradient
from firstlight.engine.state import Setup, TrainState

_run_backward: Any = Variable._execution_engine.run_backward
"""The engine behind Tensor.backward, whose checks in Python take 30 us a call, twice the time of the engine itself on a small network."""


class StepResult(NamedTuple):
    """What a step has to say, on the device: nobody waited for it.

    loss: float32 scalar, the mean over the batch; hits: bool [B], which images were recognised; grad_norms: float32 scalars whose
    root sum of squares is the norm of the gradient before clipping, none where the optimizer did not step.
    """

    loss: Tensor
    hits: Tensor
    grad_norms: Sequence[Tensor]


def train_step(state: TrainState, batch: Batch, setup: Setup, *, share: float, lr: float | Tensor | None) -> StepResult:
    """Learn from one batch: forward, loss, backward, and, when `lr` is given, the optimizer's step.

    share: this batch's part of the images whose gradients are added up before a step; 1 where it is the whole step. lr: a number, or a
    float32 scalar on the device, which a captured step reads anew each time.
    """
    size = setup.image_size(state.step)
    with setup.autocast:
        logits = state.model(batch.images if size is None else resize_images(batch.images, size))
    with torch.no_grad():
        scale = setup.one if share == 1 else setup.one * share
        loss, gradient = cross_entropy_with_gradient(logits, batch.labels, scale=scale, label_smoothing=setup.train.label_smoothing)
        _run_backward((logits,), (gradient,), False, False, (), True, True)  # keep_graph, create_graph, inputs, unreachable, accumulate
        grad_norms = () if lr is None else apply_gradients(state, setup, lr)
        return StepResult(loss, logits.argmax(1) == batch.labels, grad_norms)


def apply_gradients(state: TrainState, setup: Setup, lr: float | Tensor) -> Sequence[Tensor]:
    """Clip where asked, let the optimizer step at `lr`, clear the gradients, follow with the moving average; return the gradient's norms.

    Where several processes share the step, their gradients are added up first. The norms of single tensors are added up by whoever logs
    them: at each step that took as long again as to find them.
    """
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
    if setup.ranks is not None:
        setup.ranks.add_up([parameter.grad for parameter in parameters])
    if setup.train.clip_norm is None:
        norms: Sequence[Tensor] = torch._foreach_norm([parameter.grad for parameter in parameters])
    else:
        norms = (torch.nn.utils.clip_grad_norm_(parameters, setup.train.clip_norm),)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    for parameter in parameters:
        parameter.grad = None  # zero_grad does the same in 11 us instead of 1
    state.step += 1
    if state.ema is not None:
        update_ema(state, setup.train.ema_decay)
    return norms


@torch.no_grad()
def update_ema(state: TrainState, decay: float) -> None:
    """Move the averaged weights towards the weights; buffers (batch norm's statistics) are copied."""
    for average, current in zip(state.ema.parameters(), state.model.parameters(), strict=True):
        average.lerp_(current, 1 - decay)
    for average, current in zip(state.ema.buffers(), state.model.buffers(), strict=True):
        average.copy_(current)
