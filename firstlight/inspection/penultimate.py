"""What a network hands to its last layer: the features by which it tells classes apart, verified to be what the logits are made of."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.data.loader import Batch, Loader
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import eval_mode, logits_of
from firstlight.errors import ConfigError
from firstlight.models.scratch import ScratchMLP

TOLERANCE = 1e-5
"""How far the logits made again from the features may lie from the network's own, as a share of the largest logit."""
NUM_VERIFIED = 8
"""Images on which the layer is looked for, and the features are verified."""


@dataclass(frozen=True)
class LastLayer:
    """The layer that makes the logits of its input.

    name: in the network, such as `head`; the layer's input is pooled by `pool` to features [B, D].
    """

    name: str
    layer: nn.Module
    pool: Callable[[Tensor], Tensor]


def features_of(model: Any, loader: Loader, arithmetic: Arithmetic) -> Tensor:
    """Return the features of all images of a loader, float32 [N, D], on the CPU: the input of the last layer with weights.

    Raises ConfigError where the logits are not what the last layer makes of its input.
    """
    return torch.cat([features.cpu() for features, _, _ in feature_batches(model, loader, arithmetic)])


def feature_batches(model: Any, loader: Loader, arithmetic: Arithmetic) -> Iterator[tuple[Tensor, Tensor, Batch]]:
    """Yield the features float32 [B, D] and the logits float32 [B, num_classes] of each batch, with the batch, on the device."""
    if isinstance(model, ScratchMLP):
        yield from _scratch_batches(model, loader, arithmetic)
        return
    last = find_last_layer(model, next(loader.batches(0)).images[:NUM_VERIFIED])
    seen: list[Tensor] = []
    handle = last.layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        for logits, batch in logits_of(model, loader, arithmetic):
            features = last.pool(seen[-1].float())
            seen.clear()
            yield features, logits, batch
    finally:
        handle.remove()


def find_last_layer(model: nn.Module, images: Tensor) -> LastLayer:
    """Return the last linear layer or convolution that a network passes, after checking that it makes the logits of its input.

    images: float32 [B, C, H, W], normalised, on the model's device. What follows the layer may be normalisation in eval mode and other
    layers without a mixing of features, and a constant factor. A convolution must see the whole image at once, or be 1x1 before a mean.
    """
    calls: list[tuple[str, nn.Module, Tensor]] = []
    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: calls.append((name, module, inputs[0])))
        for name, module in leaves
    ]
    try:
        with eval_mode(model):
            logits = model(images).float()
    finally:
        for handle in handles:
            handle.remove()
    place = max((place for place, (_, module, _) in enumerate(calls) if isinstance(module, nn.Linear | nn.Conv2d)), default=None)
    if place is None:
        raise ConfigError(f"{type(model).__name__} has no linear layer or convolution, so it has no features; take another model")
    name, layer, values = calls[place]
    last = LastLayer(name, layer, _flat if _sees_all(layer, values) else _mean)
    with eval_mode(model):
        made = _remake(last, [module for _, module, _ in calls[place + 1 :]], values)
    if not _agree(made, logits):
        raise ConfigError(
            f"{type(model).__name__}: its last layer ({name}) does not make the logits of what it is given, so there are no features to "
            f"look at; let the network end in a linear layer"
        )
    return last


def _sees_all(layer: nn.Module, values: Tensor) -> bool:
    """Tell whether a layer makes one value a class from all that it is given."""
    return isinstance(layer, nn.Linear) or tuple(layer.kernel_size) == tuple(values.shape[2:])  # type: ignore[arg-type]


def _flat(values: Tensor) -> Tensor:
    return values.flatten(start_dim=1)


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=(2, 3))


def _remake(last: LastLayer, following: list[nn.Module], values: Tensor) -> Tensor | None:
    """Return what the last layer and those behind it make of the pooled features, [B, K]; None where they do not fit together."""
    features, layer = last.pool(values.float()), last.layer
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    try:
        made = torch.nn.functional.linear(features, layer.weight.flatten(start_dim=1), layer.bias)
        made = made if isinstance(layer, nn.Linear) else made[:, :, None, None]
        for module in following:
            made = module(made)
    except (RuntimeError, ValueError):
        return None
    return made.flatten(start_dim=1)


def _agree(made: Tensor | None, logits: Tensor) -> bool:
    """Tell whether two sets of logits [B, K] are equal up to a constant positive factor."""
    if made is None or made.shape != logits.shape:
        return False
    factor = (made * logits).sum() / (made * made).sum().clamp(min=torch.finfo(torch.float32).tiny)
    if abs(factor - 1) < TOLERANCE:
        factor = torch.ones_like(factor)
    return bool((made * factor - logits).abs().max() <= TOLERANCE * logits.abs().max().clamp(min=1e-6)) and bool(factor >= 0)


def _scratch_batches(model: ScratchMLP, loader: Loader, arithmetic: Arithmetic) -> Iterator[tuple[Tensor, Tensor, Batch]]:
    """Yield what feature_batches does of a network on raw tensors, which has no hooks: its last matrix is left out, and applied here."""
    weight, bias = model.layers[-1]
    body = copy(model)
    size = weight.shape[1]
    body.layers = [*model.layers[:-1], (torch.eye(size, device=weight.device), torch.zeros(size, device=weight.device))]
    for features, batch in logits_of(body, loader, arithmetic):
        yield features, torch.addmm(bias, features, weight.T), batch
