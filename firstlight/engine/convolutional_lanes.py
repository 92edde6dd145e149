"""Convolutional networks of one architecture trained as one program: each lane has its own weights, statistics, draws and settings.

The channels of all lanes lie side by side: the first convolution sees the images once and has the filters of all lanes, later ones are
grouped, batch normalisation is by channel anyway, and linear layers are one batched product. The layers are those of the solo network,
read off its nn.Sequential; torch.autograd finds the gradients.

Reading order: ConvolutionalLanes, ConvolutionalLanes.step, PASSES.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.engine.seeding import mix
from firstlight.engine.vectorized import Lane, LaneFigures, Weights, cross_entropy_of_lanes, hits_of_lanes
from firstlight.models.convolution import Conv2d
from firstlight.models.layers import ACTIVATIONS, BatchNorm2d, GlobalMaxPool
from firstlight.optim.rules import RULES, Memory


@dataclass
class _Pass:
    """One forward pass of L lanes. shared: whether all lanes still see the same values, [B, C, H, W]."""

    num_lanes: int
    tensors: Mapping[str, Tensor]
    """Parameters and buffers of all lanes by their solo name, each [L, *shape]."""
    training: bool
    masks: "Callable[[torch.Size], Tensor] | None" = None
    """Gives the dropout mask [L, ...] of one lane's values [B, ...]."""
    shared: bool = True

    def flat(self, name: str) -> Tensor | None:
        """Return a tensor of all lanes with the lanes joined to its first dimension, [L * n, ...]."""
        found = self.tensors.get(name)
        return None if found is None else found.flatten(0, 1)


def _convolve(layer: nn.Conv2d, name: str, values: Tensor, now: _Pass) -> Tensor:
    groups = 1 if now.shared else now.num_lanes
    now.shared = False
    filters, bias = now.flat(f"{name}.weight"), now.flat(f"{name}.bias")
    assert filters is not None
    if values.is_contiguous(memory_format=torch.channels_last):
        filters = filters.contiguous(memory_format=torch.channels_last)
    return F.conv2d(values, filters, bias, layer.stride, layer.padding, layer.dilation, groups)


def _normalize(layer: BatchNorm2d, name: str, values: Tensor, now: _Pass) -> Tensor:
    mean, variance = now.flat(f"{name}.running_mean"), now.flat(f"{name}.running_var")
    weight, bias = now.flat(f"{name}.weight"), now.flat(f"{name}.bias")
    training = now.training and values.numel() > values.shape[1]  # one value a channel has no variance
    if training:
        now.tensors[f"{name}.num_batches_tracked"].add_(1)
    return F.batch_norm(values, mean, variance, weight, bias, training, layer.momentum or 0.0, layer.eps)


def _split(values: Tensor, now: _Pass) -> Tensor:
    """Return [B, L * C, ...] as [L, B, C * ...]; values that all lanes share are repeated as a view."""
    if now.shared:
        return values.flatten(1).expand(now.num_lanes, -1, -1)
    by_lane: Tensor = values.unflatten(1, (now.num_lanes, -1)).flatten(2).transpose(0, 1)
    return by_lane


def _multiply(layer: nn.Linear, name: str, values: Tensor, now: _Pass) -> Tensor:
    weight, bias = now.tensors[f"{name}.weight"].mT, now.tensors.get(f"{name}.bias")
    return torch.bmm(values, weight) if bias is None else torch.baddbmm(bias[:, None], values, weight)


def _drop(layer: nn.Dropout, name: str, values: Tensor, now: _Pass) -> Tensor:
    return values if now.masks is None else values * now.masks(values.shape[1:])


def _alone(layer: nn.Module, name: str, values: Tensor, now: _Pass) -> Tensor:
    result: Tensor = layer(values)
    return result


PASSES: dict[type[nn.Module], Callable[[Any, str, Tensor, _Pass], Tensor]] = {
    nn.Conv2d: _convolve,
    Conv2d: _convolve,
    BatchNorm2d: _normalize,
    nn.Linear: _multiply,
    nn.Dropout: _drop,
    nn.Flatten: lambda layer, name, values, now: _split(values, now),
    GlobalMaxPool: lambda layer, name, values, now: _split(layer(values), now),
    **dict.fromkeys((nn.MaxPool2d, nn.AvgPool2d, *ACTIVATIONS.values()), _alone),
}
"""What each layer does with the values of all lanes."""


def layers_of(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of nested nn.Sequentials in their order, each with its name in the state dict."""
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential):
            yield from layers_of(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


RISING = tuple(ACTIVATIONS[name] for name in ("relu", "leaky_relu", "sigmoid", "tanh"))
"""Activations that keep the order of values, so that the largest of a window may be taken before them."""


def pool_first(layers: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Return the layers with each max pool ahead of the rising activation before it: the same values, from a quarter of the work."""
    ordered: list[tuple[str, nn.Module]] = []
    for name, layer in layers:
        if isinstance(layer, nn.MaxPool2d) and ordered and isinstance(ordered[-1][1], RISING):
            ordered.insert(-1, (name, layer))
        else:
            ordered.append((name, layer))
    return ordered


class ConvolutionalLanes:
    """Networks of one architecture that are trained side by side by one update rule.

    model: one of the solo networks; lanes, weights: of each; rule: a name of RULES.
    """

    def __init__(self, model: nn.Module, lanes: Sequence[Lane], weights: Sequence[Weights], *, rule: str) -> None:
        self.lanes, self.rule = lanes, RULES[rule]
        self._layers = [(name, layer, PASSES[type(layer)]) for name, layer in pool_first(layers_of(model))]
        self._tensors = {name: torch.stack([one[name].detach() for one in weights]) for name in weights[0]}
        self._names = [name for name, _ in model.named_parameters()]
        for name in self._names:
            self._tensors[name].requires_grad_()
        self.memory: list[Memory] = [self.rule.start(parameter.detach()) for parameter in self.parameters()]
        smoothing = torch.tensor([lane.label_smoothing for lane in lanes])
        self._smoothing = smoothing if smoothing.any() else None
        self._hyper = {name: self._setting(name) for name in self.rule.settings if name != "lr"}

    def parameters(self) -> list[Tensor]:
        """Return all tensors that are trained, each [L, *shape]."""
        return [self._tensors[name] for name in self._names]

    def step(self, images: Tensor, labels: Tensor, lrs: Tensor, *, seeds: tuple[int, int, int]) -> LaneFigures:
        """Learn from a batch, each lane at its own learning rate; as Lanes.step."""
        with torch.enable_grad():
            logits = self._forward(
                images, training=True, masks=_Masks(self.lanes, seeds) if any(lane.dropout for lane in self.lanes) else None
            )
        with torch.no_grad():
            by_class = logits.detach().mT.contiguous()
            loss, slope = cross_entropy_of_lanes(by_class, labels, self._smoothing)
            parameters = self.parameters()
            gradients = torch.autograd.grad(logits, parameters, slope.mT)
            norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
            for parameter, gradient, memory in zip(parameters, gradients, self.memory, strict=True):
                hyper = {name: _spread(value, parameter) for name, value in self._hyper.items()}
                self.rule.update(parameter, gradient, memory, {**hyper, "lr": _spread(lrs.float(), parameter)})
            return LaneFigures(loss, hits_of_lanes(by_class, labels), norms)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of all lanes without dropout, float32 [L, B, num_classes]."""
        return self._forward(images, training=False, masks=None)

    def weights(self, lane: int) -> dict[str, Tensor]:
        """Return the state dict of a lane as its solo network has it."""
        return {name: value[lane].detach().clone() for name, value in self._tensors.items()}

    def memory_of(self, lane: int) -> list[Memory]:
        """Return what the rule remembers of a lane, for each parameter in their order."""
        return [
            {name: value.clone() if not value.ndim else value[lane].clone() for name, value in memory.items()} for memory in self.memory
        ]

    def remember(self, memories: Sequence[Sequence[Mapping[str, Tensor]]]) -> None:
        """Take over what solo optimizers remember: of each lane, of each of its parameters."""
        for number, memory in enumerate(self.memory):
            for name in memory:
                values = [lane[number][name] for lane in memories]
                memory[name] = torch.stack(values) if values[0].ndim else values[0].clone()

    def _forward(self, images: Tensor, *, training: bool, masks: "_Masks | None") -> Tensor:
        now = _Pass(len(self.lanes), self._tensors, training, masks)
        values = images
        for name, layer, apply in self._layers:
            values = apply(layer, name, values, now)
        return values

    def _setting(self, name: str) -> float | Tensor:
        values = [float(lane.hyper[name]) for lane in self.lanes]
        return values[0] if len(set(values)) == 1 else torch.tensor(values)


@dataclass
class _Masks:
    """The dropout masks of a step, drawn as each solo network draws its own: lanes with one share get the same."""

    lanes: Sequence[Lane]
    seeds: tuple[int, int, int]
    generators: dict[float, torch.Generator] = field(default_factory=dict)

    def __call__(self, shape: torch.Size) -> Tensor:
        """Return the mask [L, *shape] of the next dropout layer, scaled as torch's dropout scales."""
        drawn = {}
        for share in {lane.dropout for lane in self.lanes}:
            generator = self.generators.setdefault(share, torch.Generator().manual_seed(mix(*self.seeds)))
            drawn[share] = torch.empty(shape).bernoulli_(1 - share, generator=generator).div_(1 - share) if share else torch.ones(shape)
        return torch.stack([drawn[lane.dropout] for lane in self.lanes])


def _spread(values: float | Tensor, parameter: Tensor) -> float | Tensor:
    """Return one number a lane as it broadcasts against [L, *shape]."""
    return values.view(-1, *(1 for _ in parameter.shape[1:])) if isinstance(values, Tensor) else values
