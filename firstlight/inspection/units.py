"""Which units of a network never switch on, found by watching its activation functions, whether they are modules or plain calls."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

FLAT = 1e-3
"""A sigmoid or tanh whose slope is below this on all images passes no gradient worth the name."""

_SLOPES: dict[Any, Callable[[Tensor], Tensor]] = {
    torch.ops.aten.relu.default: lambda out: out > 0,
    torch.ops.aten.relu_.default: lambda out: out > 0,
    torch.ops.aten.sigmoid.default: lambda out: out * (1 - out) > FLAT,
    torch.ops.aten.sigmoid_.default: lambda out: out * (1 - out) > FLAT,
    torch.ops.aten.tanh.default: lambda out: 1 - out * out > FLAT,
    torch.ops.aten.tanh_.default: lambda out: 1 - out * out > FLAT,
}
"""Where the output of an activation function shows that a gradient passes."""


class _Watch(TorchDispatchMode):
    """Notes, for each call of an activation function in the order of the forward pass, which units were ever active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = ""
        self.place = 0
        self.active: list[Tensor] = []
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _SLOPES and out.ndim >= 2:
            self.note(_SLOPES[func](out).transpose(0, 1).flatten(1).any(1))
        return out

    def note(self, active: Tensor) -> None:
        """Add what one call showed, bool [units]."""
        if self.place == len(self.active):
            self.active.append(active)
            self.names.append(self.layer or f"activation {self.place + 1}")
        elif len(self.active[self.place]) == len(active):
            self.active[self.place] = self.active[self.place] | active
        self.place += 1


@torch.no_grad()
def dead_shares(model: Any, forward: Callable[[Any, Tensor], Tensor], batches: Iterable[Tensor]) -> dict[str, float]:
    """Return, by layer, the share of units (channels) behind a ReLU, sigmoid or tanh that pass no gradient on any image of the batches.

    A unit is dead where a ReLU is 0, or the slope of a sigmoid or tanh below FLAT, at every place of every image, in the mode in
    which the network is. Layers are named by the last layer with weights ahead of the function.
    """
    watch = _Watch()
    with _layers_told_to(watch, model):
        for images in batches:
            watch.place, watch.layer = 0, ""
            with watch:
                forward(model, images)
    shares: dict[str, float] = {}
    for name, active in zip(watch.names, watch.active, strict=True):
        again = 2
        unique = name
        while unique in shares:
            unique, again = f"{name} ({again})", again + 1
        shares[unique] = 1 - float(active.double().mean())
    return shares


@contextmanager
def _layers_told_to(watch: _Watch, model: Any) -> Iterator[None]:
    """Let each layer with weights say its name when it is passed; raw tensors have none."""
    hooks = []
    if isinstance(model, torch.nn.Module):
        for name, layer in model.named_modules():
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim >= 2:
                hooks.append(layer.register_forward_pre_hook(lambda module, inputs, name=name: setattr(watch, "layer", name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
