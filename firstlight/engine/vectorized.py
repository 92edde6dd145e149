"""Many small networks trained as one program: each lane has its own weights, widths, activation and settings, all see the same batches.

The networks are multi-layer perceptrons (models/mlp.py without normalisation). Their first layers lie side by side in one matrix, so that
the images are multiplied once for all lanes: [sum of the widths, D] x [D, B]. The images of the batch stay innermost from there on, so that
nothing is moved. Lanes with the same hidden layers and activation form a bucket, whose later layers are one batched product. Gradients are
written out by hand, and the largest is never formed where the rule can take its two factors: torch.vmap over the same networks is slower
than a loop.
Every number is that of a lane's solo run but for the order of sums; tests/engine/test_vectorized.py holds each against it.

Reading order: Lanes, Lanes.step, _Bucket.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from firstlight.engine.seeding import seed_batch
from firstlight.optim.rules import RULES, Hyper, Memory

Weights = Mapping[str, Tensor]
"""The state dict of a solo network: linear1.weight [h, D], linear1.bias [h], linear2.weight, ..."""


@dataclass(frozen=True)
class Lane:
    """What one network has for itself. hyper: the settings of the rule, without lr, by name."""

    hidden: tuple[int, ...]
    activation: str
    dropout: float
    label_smoothing: float
    hyper: Mapping[str, float]


@dataclass(frozen=True)
class LaneFigures:
    """What a step has to say of each lane, in the order of the lanes: mean loss [L], images recognised [L], norm of the gradient [L]."""

    loss: Tensor
    hits: Tensor
    grad_norm: Tensor


class Lanes:
    """Networks that are trained side by side by one update rule.

    lanes: at least one hidden layer each, all equally many; weights: of each lane, as its solo network begins, on the device where all are
    to be; rule: a name of RULES.
    """

    def __init__(self, lanes: Sequence[Lane], weights: Sequence[Weights], *, rule: str, num_classes: int) -> None:
        order = sorted(range(len(lanes)), key=lambda index: (lanes[index].hidden, lanes[index].activation))
        self.lanes, self.rule, self.num_classes = [lanes[index] for index in order], rule, num_classes
        self.place = {lane: place for place, lane in enumerate(order)}
        """Where each lane of the caller stands here."""
        chosen = [weights[index] for index in order]
        self.device = chosen[0]["linear1.weight"].device
        back = self._moves([self.place[lane] for lane in range(len(lanes))])
        self._order, self._back = self._moves(order), None if back is None else back.to(self.device)
        widths = torch.tensor([lane.hidden[0] for lane in self.lanes], device="cpu")
        self._units = [0, *widths.cumsum(0).tolist()]
        self._lane_of_unit = torch.arange(len(lanes), device="cpu").repeat_interleave(widths).to(self.device)
        smoothing = [lane.label_smoothing for lane in self.lanes]
        self._label_smoothing = torch.tensor(smoothing, device=self.device) if any(smoothing) else None
        self.first_weight = torch.cat([one["linear1.weight"] for one in chosen])  # [sum of widths, D]
        self.first_bias = torch.cat([one["linear1.bias"] for one in chosen])
        self.buckets = [self._bucket(start, end, chosen) for start, end in pairwise(self._bucket_ends())]
        self.memory: list[Memory] = [RULES[rule].start(parameter) for parameter in self.parameters()]
        self._lrs = torch.empty(0, device="cpu")
        """The learning rates of the last step."""
        self._rates = [spread(torch.zeros(len(lanes), device=self.device)).clone() for spread in self._spreads()]
        """The same as they broadcast against each parameter, in memory that stays."""
        self._hyper: list[Hyper] = [
            {"lr": rates, **{name: self._settings(name, spread) for name in RULES[rule].settings if name != "lr"}}
            for rates, spread in zip(self._rates, self._spreads(), strict=True)
        ]
        self._gradient = torch.empty(0, device=self.device)
        """Memory for the gradient of the first layers, where the rule wants it whole."""

    def parameters(self) -> list[Tensor]:
        """Return all tensors that are trained: the common first layer, then the later layers of each bucket."""
        return [self.first_weight, self.first_bias, *(tensor for bucket in self.buckets for tensor in bucket.parameters())]

    def step(self, images: Tensor, labels: Tensor, lrs: Tensor, *, seeds: tuple[int, int, int]) -> LaneFigures:
        """Learn from a batch, each lane at its own learning rate.

        images: float32 [B, D] or [B, C, H, W]; labels: int64 [B]; lrs: float [L], in the caller's order; seeds: (order seed, epoch,
        batch), from which dropout is drawn as the solo runs draw it.
        """
        self.set_rates(lrs)
        return self.step_at_rates(images, labels, seeds=seeds)

    def set_rates(self, lrs: Tensor) -> None:
        """Take learning rates for the next steps, float [L] on the CPU, in the caller's order; often they are those of the step before."""
        if not torch.equal(lrs, self._lrs):
            rates = _moved(lrs.float(), self._order).to(self.device, non_blocking=True)
            self._lrs = lrs.clone()
            for kept, spread in zip(self._rates, self._spreads(), strict=True):
                kept.copy_(spread(rates))

    def step_at_rates(self, images: Tensor, labels: Tensor, *, seeds: tuple[int, int, int]) -> LaneFigures:
        """Do what `step` does at the learning rates that were set; nothing waits for the device, and all memory that is kept stays."""
        pixels = images.flatten(1)
        first = self._first(pixels)
        logits = _joined_parts([bucket.forward(first[bucket.units], seeds) for bucket in self.buckets])
        losses, slope = cross_entropy_of_lanes(logits, labels, self._label_smoothing)
        hits = hits_of_lanes(logits, labels)
        parts, later = [], list[Tensor]()
        for bucket in self.buckets:
            part, gradients = bucket.backward(slope[bucket.start : bucket.end])
            parts.append(part)
            later += gradients
        slopes = _joined_parts(parts)
        bias_gradient = slopes.sum(1)
        norms = self._norms(pixels, slopes, later)
        self._step_first(pixels, slopes, self._hyper[0])
        others = (self.parameters()[1:], (bias_gradient, *later), self.memory[1:], self._hyper[1:])
        for parameter, gradient, memory, hyper in zip(*others, strict=True):
            RULES[self.rule].update(parameter, gradient, memory, hyper)
        return LaneFigures(_moved(losses, self._back), _moved(hits, self._back), _moved(norms, self._back))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of all lanes without dropout, float32 [L, B, num_classes], in the caller's order."""
        first = self._first(images.flatten(1))
        found = torch.cat([bucket.forward(first[bucket.units], None) for bucket in self.buckets]).mT
        return _moved(found, self._back)

    def weights(self, lane: int) -> dict[str, Tensor]:
        """Return the state dict of a lane (the caller's number) as its solo network has it."""
        place = self.place[lane]
        units = slice(self._units[place], self._units[place + 1])
        bucket = self._bucket_of(place)
        found = {"linear1.weight": self.first_weight[units].clone(), "linear1.bias": self.first_bias[units].clone()}
        return found | bucket.weights_of(place - bucket.start)

    def memory_of(self, lane: int) -> list[Memory]:
        """Return what the rule remembers of a lane, for each parameter of its solo network in their order (weight, bias, ...)."""
        place = self.place[lane]
        units, bucket = slice(self._units[place], self._units[place + 1]), self._bucket_of(place)
        later = self.memory[self._first_of(bucket) :][: len(bucket.parameters())]
        found = [{name: _scalar_or(value, lambda v: v[units]) for name, value in memory.items()} for memory in self.memory[:2]]
        inside = place - bucket.start
        for number, memory in enumerate(later):
            part: Callable[[Tensor], Tensor] = (lambda v: v[inside]) if number % 2 == 0 else (lambda v: v[inside, :, 0])
            found.append({name: _scalar_or(value, part) for name, value in memory.items()})
        return found

    def remember(self, memories: Sequence[Sequence[Mapping[str, Tensor]]]) -> None:
        """Take over what solo optimizers remember: of each lane in the caller's order, of each of its parameters."""
        chosen = [memories[lane] for lane in self.place]
        for name in self.memory[0]:
            for number in (0, 1):
                values = [lane[number][name] for lane in chosen]
                self.memory[number][name] = (values[0].clone() if not values[0].ndim else torch.cat(values)).to(self.device)
            for bucket in self.buckets:
                lanes, begin = chosen[bucket.start : bucket.end], self._first_of(bucket)
                for number in range(len(bucket.parameters())):
                    values = [lane[2 + number][name] for lane in lanes]
                    self.memory[begin + number][name] = (values[0].clone() if not values[0].ndim else _joined(values)).to(self.device)

    def _first(self, pixels: Tensor) -> Tensor:
        """Return what the first layers give for images [B, D], [sum of the widths, B]."""
        return torch.addmm(self.first_bias[:, None], self.first_weight, pixels.T)

    def _step_first(self, pixels: Tensor, slopes: Tensor, hyper: Hyper) -> None:
        """Step the first layers, whose gradient is slopes pixels."""
        if self.rule in BY_FACTORS:
            BY_FACTORS[self.rule](self.first_weight, slopes, pixels, self.memory[0], hyper)
            return
        if self._gradient.shape != self.first_weight.shape:
            self._gradient = torch.empty_like(self.first_weight)
        torch.mm(slopes, pixels, out=self._gradient)
        RULES[self.rule].update(self.first_weight, self._gradient, self.memory[0], hyper)

    @staticmethod
    def _moves(places: list[int]) -> Tensor | None:
        """Return the places as an index; None where everything stays."""
        return None if places == sorted(places) else torch.tensor(places, device="cpu")

    def _settings(self, name: str, spread: Callable[[Tensor], Tensor]) -> float | Tensor:
        """Return a setting of all lanes, as one number where they share it."""
        values = [float(lane.hyper[name]) for lane in self.lanes]
        return values[0] if len(set(values)) == 1 else spread(torch.tensor(values, device=self.device))

    def _spreads(self) -> list[Callable[[Tensor], Tensor]]:
        """Return what lets one number of each lane broadcast against each parameter; kept, they would keep the lanes in memory."""
        return [self._by_unit_row, self._by_unit, *(bucket.spread for bucket in self.buckets for _ in bucket.parameters())]

    def _by_unit(self, values: Tensor) -> Tensor:
        return values[self._lane_of_unit]

    def _by_unit_row(self, values: Tensor) -> Tensor:
        return values[self._lane_of_unit][:, None]

    def _bucket_of(self, place: int) -> "_Bucket":
        return next(bucket for bucket in self.buckets if bucket.start <= place < bucket.end)

    def _first_of(self, bucket: "_Bucket") -> int:
        """Return where the parameters of a bucket begin in `parameters()`."""
        return 2 + sum(len(other.parameters()) for other in self.buckets if other.start < bucket.start)

    def _bucket_ends(self) -> list[int]:
        kinds = [(lane.hidden, lane.activation) for lane in self.lanes]
        return [0, *(place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]), len(kinds)]

    def _bucket(self, start: int, end: int, weights: Sequence[Weights]) -> "_Bucket":
        return _Bucket(self.lanes[start:end], weights[start:end], start, slice(self._units[start], self._units[end]))

    def _norms(self, pixels: Tensor, slopes: Tensor, later: Sequence[Tensor]) -> Tensor:
        """Return the norm of each lane's gradient, [L] in the order in which they stand here.

        That of the first layers, slopes (pixels, 1) with the bias, is not formed: its rows have the squares s (pixels pixels^T + 1) s^T.
        """
        squares = (slopes @ (pixels @ pixels.T).add_(1)).mul_(slopes)
        gradients, totals = iter(later), []
        for bucket in self.buckets:
            total = squares[bucket.units].view(bucket.end - bucket.start, -1).sum(1)
            for _ in bucket.parameters():
                total += next(gradients).square().sum((1, 2))
            totals.append(total)
        return _joined_parts(totals).clamp_(min=0).sqrt_()


def _joined_parts(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _moved(values: Tensor, places: Tensor | None) -> Tensor:
    return values if places is None else values[places]


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Return the solo weights [h_out, h_in] or biases [h_out] of the lanes of a bucket as one tensor, [n, h_out, h_in] or [n, h_out, 1]."""
    stacked = torch.stack(list(values))
    return stacked if stacked.ndim == 3 else stacked[..., None]


def _scalar_or(value: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a copy of a part of a tensor, or of a scalar as it is."""
    return value.clone() if not value.ndim else part(value).clone(memory_format=torch.contiguous_format)


class _Bucket:
    """Lanes with the same hidden layers and activation: everything behind the first product, as batched products over the n lanes."""

    def __init__(self, lanes: Sequence[Lane], weights: Sequence[Weights], start: int, units: slice) -> None:
        self.start, self.end, self.units = start, start + len(lanes), units
        self.hidden, self.activation = lanes[0].hidden, ACTIVATIONS[lanes[0].activation]
        self._dropout = [lane.dropout for lane in lanes]
        depth = len(self.hidden)
        self.later = [_joined([one[f"linear{number}.weight"] for one in weights]) for number in range(2, depth + 2)]
        self.biases = [_joined([one[f"linear{number}.bias"] for one in weights]) for number in range(2, depth + 2)]

    def parameters(self) -> list[Tensor]:
        """Return weight [n, h_out, h_in] and bias [n, h_out, 1] of each later layer."""
        return [tensor for pair in zip(self.later, self.biases, strict=True) for tensor in pair]

    def spread(self, values: Tensor) -> Tensor:
        """Return one number of each lane (of all lanes, [L]) as it broadcasts against `parameters()`."""
        return values[self.start : self.end, None, None]

    def forward(self, first: Tensor, seeds: tuple[int, int, int] | None) -> Tensor:
        """Return the logits [n, K, B] for what the first layers gave, [n * h, B]; remember what `backward` needs.

        seeds: of dropout, None to leave it out.
        """
        before: Tensor = first.unflatten(0, (self.end - self.start, self.hidden[0]))
        self._inputs, self._before, self._masks = [], [], self._draw_masks(first.size(1), seeds)
        for number, (weight, bias) in enumerate(zip(self.later, self.biases, strict=True)):
            after = self.activation.value(before)
            if self._masks:
                after = after * self._masks[number]
            self._before.append(before)
            self._inputs.append(after)
            before = torch.baddbmm(bias, weight, after)
        return before

    def backward(self, slope: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the slope of the loss by what the first layers gave, [n * h, B], and the gradients of `parameters()`.

        slope: that by the logits, [n, K, B].
        """
        gradients: list[Tensor] = []
        for number in reversed(range(len(self.later))):
            gradients = [slope @ self._inputs[number].mT, slope.sum(2, keepdim=True), *gradients]
            slope = self.later[number].mT @ slope
            if self._masks:
                slope = slope * self._masks[number]
            slope = self.activation.slope(slope, self._before[number])
        return slope.flatten(0, 1), gradients

    def weights_of(self, lane: int) -> dict[str, Tensor]:
        """Return the later layers of a lane as its solo network has them."""
        found: dict[str, Tensor] = {}
        for number, (weight, bias) in enumerate(zip(self.later, self.biases, strict=True), start=2):
            found |= {f"linear{number}.weight": weight[lane].clone(), f"linear{number}.bias": bias[lane, :, 0].clone()}
        return found

    def _draw_masks(self, batch_size: int, seeds: tuple[int, int, int] | None) -> list[Tensor]:
        """Return the masks [n, h, B] of all layers, scaled as torch's dropout scales; none where nothing is dropped."""
        if seeds is None or not any(self._dropout):
            return []
        drawn = {share: self._draw(batch_size, share, seeds) for share in set(self._dropout)}
        return [torch.stack([drawn[share][layer] for share in self._dropout]) for layer in range(len(self.hidden))]

    def _draw(self, batch_size: int, share: float, seeds: tuple[int, int, int]) -> list[Tensor]:
        """Return the masks [h, B] of one solo network: the same generator, seeded and read in the same order."""
        if share == 0:
            return [torch.ones(width, batch_size, device="cpu") for width in self.hidden]
        seed_batch(*seeds)
        return [torch.empty(batch_size, width, device="cpu").bernoulli_(1 - share).div_(1 - share).T for width in self.hidden]


def cross_entropy_of_lanes(logits: Tensor, labels: Tensor, label_smoothing: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of each lane [n] and its slope by the logits [n, K, B].

    logits: [n, K, B]; labels: int64 [B], the same for all lanes; label_smoothing: [n], None where no lane has any.
    """
    _, num_classes, batch_size = logits.shape
    log_probabilities = torch.log_softmax(logits, 1)
    targets = (torch.arange(num_classes, device=logits.device)[:, None] == labels).to(logits.dtype)
    if label_smoothing is not None:
        share = label_smoothing[:, None, None]
        targets = targets * (1 - share) + share / num_classes
    loss = (log_probabilities * targets).sum((1, 2)).div_(-batch_size)
    return loss, torch.add(targets.div_(-batch_size), log_probabilities.exp_(), alpha=1 / batch_size)


def hits_of_lanes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many images each lane recognises, [n].

    Of equal logits the first counts, as `argmax` has it, which takes three times as long. logits: [n, K, B]; labels: int64 [B].
    """
    num_classes = logits.shape[1]
    places = torch.arange(num_classes, 0, -1, dtype=logits.dtype, device=logits.device)[:, None]  # the first class has the largest
    best = torch.empty_like(logits)
    torch.eq(logits, logits.amax(1, keepdim=True), out=best)  # 0 or 1 as numbers: to mix bools and numbers takes twice as long
    first = best.mul_(places).amax(1)
    return torch.eq(first, (num_classes - labels).to(logits.dtype), out=first).sum(1, dtype=torch.int64)


def descend_by_factors(weight: Tensor, slopes: Tensor, pixels: Tensor, memory: Memory, hyper: Hyper) -> None:
    """Do what RULES["sgd"] does for the gradient slopes pixels, in one product."""
    lr, decay = hyper["lr"], hyper["weight_decay"]
    if isinstance(decay, Tensor) or decay:
        weight.mul_(1 - lr * decay)
    weight.addmm_(slopes * lr, pixels, alpha=-1)


def roll_by_factors(weight: Tensor, slopes: Tensor, pixels: Tensor, memory: Memory, hyper: Hyper) -> None:
    """Do what RULES["momentum"] does for the gradient slopes pixels: the product is added to the velocity as it comes."""
    velocity, momentum, decay, lr = memory["velocity"], hyper["momentum"], hyper["weight_decay"], hyper["lr"]
    if isinstance(momentum, Tensor):
        velocity.mul_(momentum).addmm_(slopes, pixels)
    else:
        velocity.addmm_(slopes, pixels, beta=momentum)
    if isinstance(decay, Tensor) or decay:
        velocity.add_(decay * weight)
    if isinstance(lr, Tensor):
        weight.addcmul_(velocity, lr, value=-1)
    else:
        weight.add_(velocity, alpha=-lr)


BY_FACTORS: dict[str, Callable[[Tensor, Tensor, Tensor, Memory, Hyper], None]] = {"sgd": descend_by_factors, "momentum": roll_by_factors}
"""Rules that take a gradient slopes [U, B] pixels [B, D] without forming it."""


@dataclass(frozen=True)
class Activation:
    """value: of what stands before it; slope: (slope behind it, what stood before it) -> slope before it."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


_aten = torch.ops.aten
_LEAK = 0.01
ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda slope, before: _aten.threshold_backward(slope, before, 0)),
    "leaky_relu": Activation(
        lambda before: torch.nn.functional.leaky_relu(before, _LEAK),
        lambda slope, before: _aten.leaky_relu_backward(slope, before, _LEAK, False),
    ),
    "gelu": Activation(torch.nn.functional.gelu, lambda slope, before: _aten.gelu_backward(slope, before)),
    "silu": Activation(torch.nn.functional.silu, lambda slope, before: _aten.silu_backward(slope, before)),
    "sigmoid": Activation(torch.sigmoid, lambda slope, before: _aten.sigmoid_backward(slope, torch.sigmoid(before))),
    "tanh": Activation(torch.tanh, lambda slope, before: _aten.tanh_backward(slope, torch.tanh(before))),
    "identity": Activation(lambda before: before, lambda slope, before: slope),
}
"""Those of models/layers.py, with the slopes that autograd takes."""
