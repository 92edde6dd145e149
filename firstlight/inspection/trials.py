"""A training loop put to the test: short trainings from the same start, after which network and optimizer are as they were.

Reading order: Loop, Loop.untouched, train, Trial, gradients_of_step.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from firstlight.engine.seeding import mix, private_randomness

Step = Callable[[Any, Tensor, Tensor], object]
Evaluate = Callable[[Any, Tensor, Tensor], float]

NUM_PROBED = 256
"""Images whose loss is measured along a trial."""
NUM_POINTS = 10
"""Times that it is measured, beside the start."""
ONE_BATCH = 32
"""Images that a network must be able to learn by heart."""


def _constant(step: int, total: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Loop:
    """A training loop with its data.

    step(model, images, labels) learns from one batch; evaluate(model, images, labels) returns the accuracy, 0 to 1. images: float32
    [N, C, H, W] as the network sees them; labels: int64 [N]. optimizer: the one that `step` uses, None for a hand-written one.
    frozen: names of parameters, or beginnings of names, that are not to be trained. factor(step, total): what the learning rate is
    multiplied by in a trial of `total` steps. forward(model, images): how `step` computes the logits.
    """

    model: Any
    optimizer: torch.optim.Optimizer | None
    step: Step
    evaluate: Evaluate
    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    num_classes: int
    batch_size: int
    num_steps: int
    seed: int = 0
    frozen: tuple[str, ...] = ()
    factor: Callable[[int, int], float] = _constant
    forward: Callable[[Any, Tensor], Tensor] = field(default=lambda model, images: model(images))

    @property
    def chance(self) -> float:
        """The loss of a network that knows nothing, nats."""
        return math.log(self.num_classes)

    def seed_all(self, *parts: int) -> None:
        """Seed the generators of torch, so that what is random in a step is the same each time."""
        bits = mix(self.seed, *parts)
        torch.default_generator.manual_seed(bits)
        if (device := self.train_images.device.type) != "cpu":
            getattr(torch, device).manual_seed(bits)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of batch `number`; the order is drawn anew each time that all images were seen."""
        per_epoch = max(len(self.train_labels) // self.batch_size, 1)
        epoch, place = divmod(number, per_epoch)
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        order = torch.randperm(len(self.train_labels), generator=generator)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size].to(self.train_labels.device)
        return self.train_images[chosen], self.train_labels[chosen]

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Give the network, its optimizer and the random generators back as they were before the block."""
        weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        gradients = [parameter.grad for parameter in self.model.parameters()]
        memory = None if self.optimizer is None else deepcopy(self.optimizer.state_dict())
        modes = [(layer, layer.training) for layer in (self.model.modules() if isinstance(self.model, torch.nn.Module) else (self.model,))]
        with private_randomness(self.train_images.device.type):
            try:
                self.clear_gradients()
                yield
            finally:
                self.model.load_state_dict(weights)
                if self.optimizer is not None:
                    self.optimizer.load_state_dict(memory)  # type: ignore[arg-type]
                for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                    parameter.grad = gradient
                for layer, was_training in modes:
                    layer.training = was_training

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def scale_lr(self, factors: list[float]) -> None:
        """Set the learning rate of each parameter group."""
        if self.optimizer is not None:
            for group, lr in zip(self.optimizer.param_groups, factors, strict=True):
                group["lr"] = lr

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [] if self.optimizer is None else [float(group["lr"]) for group in self.optimizer.param_groups]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters with two dimensions or more, by the name of their layer: neither biases nor scales of a normalisation."""
        return {name.removesuffix(".weight"): value for name, value in named_parameters(self.model) if value.ndim >= 2}

    @torch.no_grad()
    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, nats, float64 [N], as training sees them; buffers of the network stay as they are."""
        kept = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        was_training = self.model.training
        self.model.train()
        self.seed_all(1)
        values = [
            cross_entropy(self.forward(self.model, part).float(), theirs, reduction="none")
            for part, theirs in zip(images.split(NUM_PROBED), labels.split(NUM_PROBED), strict=True)
        ]
        self.model.train(was_training)
        for buffer, value in kept:
            buffer.copy_(value)
        return torch.cat(values).double()


def named_parameters(model: Any) -> list[tuple[str, Tensor]]:
    """Return the parameters with their names."""
    return list(model.named_parameters())


def layer_of(name: str) -> str:
    """Return the name of the layer that a parameter belongs to."""
    return name.rpartition(".")[0] or name


def is_frozen(name: str, frozen: tuple[str, ...]) -> bool:
    """Tell whether a parameter is one that is not to be trained."""
    return any(name == one or name.startswith(f"{one}.") for one in frozen)


@dataclass(frozen=True)
class Trial:
    """A short training. losses: mean of the probed images before it and at NUM_POINTS places, nats; last: of each probed image behind it.

    updates: change of each layer's weights by a step, as a share of their norm, the median of a few steps; infinite where weights became no
    numbers, NaN where they are 0. moved: names of the parameters
    that are not what they were.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    last: Tensor
    train_accuracy: float
    val_accuracy: float
    updates: dict[str, float]
    moved: frozenset[str]

    @property
    def end(self) -> float:
        """The loss at the end: the median of the last three measurements; infinite where one is no number."""
        tail = sorted(self.losses[-3:])
        return tail[len(tail) // 2] if all(map(math.isfinite, tail)) else math.inf

    @property
    def lowest(self) -> float:
        """The smallest loss that was measured; infinite where none is a number."""
        return min(filter(math.isfinite, self.losses), default=math.inf)


def train(loop: Loop, *, lr_scale: float = 1.0, until: float = 0.0, look: Callable[[], None] | None = None) -> Trial:
    """Train for loop.num_steps steps at `lr_scale` times the learning rate, and return what came of it.

    until: the loss at which the trial ends early; look: called before all is put back as it was.
    """
    with loop.untouched():
        start = {name: value.detach().clone() for name, value in named_parameters(loop.model)}
        probe, labels = loop.train_images[:NUM_PROBED], loop.train_labels[:NUM_PROBED]
        base = loop.lrs
        measured = {round(share * loop.num_steps / NUM_POINTS) for share in range(1, NUM_POINTS + 1)}
        steps, losses, ratios = [0], [float(loop.losses(probe, labels).mean())], []
        for number in range(loop.num_steps):
            loop.scale_lr([lr * lr_scale * loop.factor(number, loop.num_steps) for lr in base])
            before = {name: weight.detach().clone() for name, weight in loop.weights.items()} if number + 1 in measured else None
            loop.model.train()
            loop.seed_all(2, number)
            loop.step(loop.model, *loop.batch(number))
            if before is not None:
                ratios.append({name: _ratio(weight.detach(), before[name]) for name, weight in loop.weights.items()})
                steps.append(number + 1)
                losses.append(float(loop.losses(probe, labels).mean()))
                if not until <= losses[-1] < math.inf:
                    break
        last = loop.losses(probe, labels)
        moved = frozenset(name for name, value in named_parameters(loop.model) if not torch.equal(value.detach(), start[name]))
        train_accuracy = loop.evaluate(loop.model, probe, labels)
        val_accuracy = loop.evaluate(loop.model, loop.val_images, loop.val_labels)
        if look is not None:
            look()
    updates = {name: _median([row[name] for row in ratios]) for name in ratios[0]} if ratios else {}
    return Trial(tuple(steps), tuple(losses), last, train_accuracy, val_accuracy, updates, moved)


def on_one_batch(loop: Loop) -> Loop:
    """Return the loop on the first few images alone, for twice as many steps."""
    few = slice(0, min(ONE_BATCH, len(loop.train_labels)))
    images, labels = loop.train_images[few], loop.train_labels[few]
    return replace(
        loop,
        train_images=images,
        train_labels=labels,
        val_images=images,
        val_labels=labels,
        batch_size=len(labels),
        num_steps=2 * loop.num_steps,
    )


def on_constant_images(loop: Loop) -> Loop:
    """Return the loop with the mean image in place of each one."""
    mean = loop.train_images.mean(0, keepdim=True)
    same = mean.expand_as(loop.train_images), mean.expand_as(loop.val_images)
    return replace(loop, train_images=same[0].contiguous(), val_images=same[1].contiguous())


def on_shuffled_labels(loop: Loop) -> Loop:
    """Return the loop with the labels of the training images in another order."""
    order = torch.randperm(len(loop.train_labels), generator=torch.Generator().manual_seed(mix(loop.seed, 7)))
    return replace(loop, train_labels=loop.train_labels[order.to(loop.train_labels.device)])


@dataclass(frozen=True)
class StepGradients:
    """What the optimizer saw in a step, by parameter; None where it was not called, and for a parameter without a gradient."""

    calls: int
    gradients: dict[str, Tensor | None]
    was_training: bool | None
    """Whether the network was in training mode in the forward pass; None where that cannot be seen."""

    @property
    def flat(self) -> Tensor:
        """All gradients in one row, float64 on the CPU."""
        found = [gradient.double().flatten().cpu() for gradient in self.gradients.values() if gradient is not None]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def gradients_of_step(loop: Loop, images: Tensor, labels: Tensor, *, seed: int) -> StepGradients:
    """Carry out one step and return the gradients that the optimizer was called with."""
    assert loop.optimizer is not None
    seen: list[dict[str, Tensor | None]] = []
    modes: list[bool] = []
    optimizer, known = loop.optimizer, "step" in vars(loop.optimizer)
    real = optimizer.step

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append({name: None if value.grad is None else value.grad.detach().clone() for name, value in named_parameters(loop.model)})
        return real(*args, **kwargs)

    hook = None
    if isinstance(loop.model, torch.nn.Module):
        hook = loop.model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    optimizer.step = spy  # type: ignore[method-assign]
    try:
        loop.model.train()
        loop.seed_all(3, seed)
        loop.step(loop.model, images, labels)
    finally:
        if known:
            optimizer.step = real  # type: ignore[method-assign]
        else:
            del optimizer.step
        if hook is not None:
            hook.remove()
    return StepGradients(len(seen), seen[-1] if seen else {}, all(modes) if modes else None)


def gradients_of_loss(loop: Loop, images: Tensor, labels: Tensor, *, seed: int, softmax_first: bool = False) -> dict[str, Tensor]:
    """Return the gradient of the cross-entropy by each parameter, as a step with this seed should see it.

    softmax_first: of the cross-entropy of the probabilities, which takes the softmax a second time.
    """
    loop.model.train()
    loop.clear_gradients()
    loop.seed_all(3, seed)
    logits = loop.forward(loop.model, images).float()
    wanted = [(name, value) for name, value in named_parameters(loop.model) if value.requires_grad]
    loss = cross_entropy(logits.softmax(1) if softmax_first else logits, labels)
    found = torch.autograd.grad(loss, [value for _, value in wanted], allow_unused=True)
    return {name: torch.zeros_like(value) if slope is None else slope for (name, value), slope in zip(wanted, found, strict=True)}


def _ratio(after: Tensor, before: Tensor) -> float:
    size, change = float(before.norm()), float((after - before).norm())
    if not math.isfinite(change):
        return math.inf
    return change / size if size > 0 else math.nan


def _median(values: list[float]) -> float:
    found = sorted(value for value in values if not math.isnan(value))
    return found[len(found) // 2] if found else math.nan
