"""What one training step sees at each depth of a network: the spread of its activations, and the gradients that come back.

Reading order: measure_layers, Watch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from firstlight.data.loader import Batch
from firstlight.engine.seeding import private_randomness, seed_batch
from firstlight.plotting.activations import EXPONENTS

ACTIVATIONS = {
    F.relu, torch.relu, Tensor.relu, F.leaky_relu, F.gelu, F.silu, torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh,
}  # fmt: skip
"""The functions that count as activations, as a layer of their own or called in `forward`."""
NUM_BINS = 56


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer in a training step on B images, in the order of execution.

    activation: figures of what the last activation function behind the layer gave; None where none follows before the next layer.
    num_dead: units (channels of a convolution) of it that were zero for all images, of num_units.
    output_gradient: root mean square of the gradient of each image's loss by the layer's output.
    weight_gradient: norm of the gradient of the mean loss by the weights; relative_gradient: the same over the norm of the weights.
    histogram: share of the weights whose gradient has each size, [NUM_BINS] over EXPONENTS; those that are zero are in none.
    """

    name: str
    kind: str
    num_units: int
    mean: float | None
    std: float | None
    zeros: float | None
    num_dead: int | None
    output_std: float
    output_gradient: float
    weight_gradient: float
    relative_gradient: float | None
    histogram: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures, `layer` for the name, without the histogram."""
        return {"layer": self.name} | {key: value for key, value in vars(self).items() if key not in ("name", "histogram")}


@dataclass
class _Seen:
    """What went through a layer: its output, the activation behind it, and the gradient by the output."""

    name: str
    layer: nn.Module
    output: Tensor
    activation: Tensor | None = None
    gradient: Tensor | None = None


class Watch(TorchFunctionMode):
    """Sees the outputs of a network's convolutions and linear layers, and of the activation functions behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Seen] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out a function of torch, and keep what it gives where it is an activation."""
        result = func(*args, **(kwargs or {}))
        if self.seen and func in ACTIVATIONS:
            self.seen[-1].activation = result.detach()
        return result

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Watch the network in the block."""
        handles = [
            layer.register_forward_hook(lambda layer, inputs, output, name=name: self._enter(name, layer, output))
            for name, layer in weight_layers(model)
        ]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, layer: nn.Module, output: Tensor) -> None:
        seen = _Seen(name, layer, output.detach())
        self.seen.append(seen)
        if output.requires_grad:
            output.register_hook(lambda gradient: setattr(seen, "gradient", gradient.detach()))


def weight_layers(model: Any) -> list[tuple[str, nn.Module]]:
    """Return the convolutions and linear layers of a network by name; none where it is no tree of layers."""
    named = model.named_modules() if isinstance(model, nn.Module) else ()
    return [(name, layer) for name, layer in named if isinstance(layer, nn.Conv2d | nn.Linear)]


def measure_layers(model: nn.Module, batch: Batch, *, seed: int, device: str, label_smoothing: float = 0.0) -> tuple[float, list[Layer]]:
    """Return the loss (nats) of a training step on a batch, and the figures of each layer in the order of execution.

    A copy of the network goes forward and back once in train mode, in float32, without the optimizer's step: batch normalisation uses the
    batch, as in training, dropout is drawn from `seed`, and the network itself is not touched.
    """
    copy = deepcopy(model).train().requires_grad_()
    watch = Watch()
    with private_randomness(device), torch.enable_grad():
        seed_batch(seed, 0, 0, device=device)
        with watch.on(copy):
            logits = copy(batch.images)
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=label_smoothing)
        loss.backward()
    return float(loss.detach()), [_figures(seen, len(batch.labels)) for seen in watch.seen]


def _figures(seen: _Seen, num_images: int) -> Layer:
    weight = seen.layer.weight
    assert isinstance(weight, Tensor) and weight.grad is not None
    values = None if seen.activation is None else seen.activation.cpu().double()
    units = None if values is None else (values == 0).transpose(0, 1).flatten(start_dim=1)
    size, gradient = (float(tensor.detach().cpu().double().norm()) for tensor in (weight, weight.grad))
    return Layer(
        name=seen.name,
        kind="convolution" if isinstance(seen.layer, nn.Conv2d) else "linear",
        num_units=seen.output.shape[1],
        mean=None if values is None else float(values.mean()),
        std=None if values is None else float(values.std(correction=0)),
        zeros=None if units is None else float(units.double().mean()),
        num_dead=None if units is None else int(units.all(1).sum()),
        output_std=float(seen.output.cpu().double().std(correction=0)),
        output_gradient=0.0 if seen.gradient is None else num_images * float(seen.gradient.cpu().double().square().mean().sqrt()),
        weight_gradient=gradient,
        relative_gradient=gradient / size if size else None,
        histogram=_histogram(weight.grad),
    )


def _histogram(gradient: Tensor) -> tuple[float, ...]:
    sizes = gradient.abs().cpu().double().flatten()
    logs = sizes[(sizes > 0) & sizes.isfinite()].log10().clamp(*EXPONENTS)
    counts = torch.histc(logs, NUM_BINS, *EXPONENTS)
    return tuple((counts / max(len(sizes), 1)).tolist())
