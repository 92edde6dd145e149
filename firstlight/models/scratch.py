"""Softmax regression and an MLP on raw tensors and autograd: every step of training is written out in this file.

Read from the top: the functions, the two models, then `fit`, a whole training loop. The engine trains the same models.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from firstlight.errors import CheckpointError
from firstlight.limits import Positive, Size
from firstlight.models.init import InitName, init_layer

ScratchActivation = Literal["relu", "leaky_relu", "silu", "sigmoid", "tanh", "identity"]

ACTIVATIONS: dict[ScratchActivation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x * torch.sigmoid(x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


def softmax(logits: Tensor) -> Tensor:
    """Return probabilities [B, K]; each row sums to 1."""
    exponentials = (logits - logits.amax(dim=1, keepdim=True)).exp()  # a shift changes nothing, and exp cannot overflow
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log softmax(logits)[label]; logits [B, K], labels int64 [B]."""
    largest = logits.amax(dim=1, keepdim=True)
    log_sum_exp = largest.squeeze(1) + (logits - largest).exp().sum(dim=1).log()
    return (log_sum_exp - logits[torch.arange(len(labels), device=labels.device), labels]).mean()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


@torch.no_grad()
def sgd_step(parameters: Iterator[Tensor], lr: float) -> None:
    """Take one step down the gradient, in place, and forget the gradient."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter -= lr * parameter.grad
            parameter.grad = None


class ScratchMLP:
    """Fully connected network on raw tensors: images [B, C, H, W] -> logits [B, num_classes].

    hidden: units of each hidden layer, from the pixels on.
    activation: name of the function behind each hidden layer.
    init: how the weights start, by the names of models/init.py; the same seed gives the weights of MLP.
    init_scale: the weights of every layer start at so many times that; biases do not.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        hidden: tuple[Size, ...] = (128, 64),
        activation: ScratchActivation = "relu",
        init: InitName = "kaiming_uniform",
        init_scale: Positive = 1.0,
    ) -> None:
        sizes = (math.prod(image_shape), *hidden, num_classes)
        self.layers = [_make_layer(*pair, init, init_scale) for pair in itertools.pairwise(sizes)]
        self.activation = ACTIVATIONS[activation]
        self.training = True

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        values = images.flatten(start_dim=1)
        for number, (weight, bias) in enumerate(self.layers, start=1):
            values = torch.addmm(bias, values, weight.T)  # values @ weight.T + bias in one call, with the rounding of torch's own layer
            if number < len(self.layers):
                values = self.activation(values)
        return values

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor with the name that it has in MLP."""
        for number, (weight, bias) in enumerate(self.layers, start=1):
            yield f"linear{number}.weight", weight
            yield f"linear{number}.bias", bias

    # From here to `to`: what the engine asks of any model.

    def parameters(self) -> Iterator[Tensor]:
        """Yield the tensors that are trained."""
        return (tensor for _, tensor in self.named_parameters())

    def buffers(self) -> Iterator[Tensor]:
        """Yield tensors that are kept but not trained: there are none."""
        return iter(())

    def train(self, mode: bool = True) -> "ScratchMLP":
        """Say that training begins; nothing here depends on it."""
        self.training = mode
        return self

    def eval(self) -> "ScratchMLP":
        """Say that evaluation begins."""
        return self.train(False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights by name; they share memory with the model."""
        return {name: tensor.detach() for name, tensor in self.named_parameters()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> None:
        """Copy weights into the model; CheckpointError names every layer that is missing, left over or of another shape."""
        mine = self.state_dict()
        wrong = [f"{name} is {list(state_dict[name].shape)}, not {list(mine[name].shape)}" for name in mine.keys() & state_dict.keys()
                 if mine[name].shape != state_dict[name].shape]  # fmt: skip
        if strict:
            wrong += [f"{name} is missing" for name in mine.keys() - state_dict.keys()]
            wrong += [f"{name} is not in the model" for name in state_dict.keys() - mine.keys()]
        if wrong:
            raise CheckpointError(
                f"these weights are not for this {type(self).__name__}: {', '.join(sorted(wrong))}; load them into the model they come from"
            )
        for name in mine.keys() & state_dict.keys():
            mine[name].copy_(state_dict[name])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None, *, memory_format: object = None
    ) -> "ScratchMLP":
        """Move the weights, keeping the tensors' identity; `memory_format` is for images' sake and means nothing to matrices."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(device=device, dtype=dtype)
        return self


class ScratchLinear(ScratchMLP):
    """Softmax regression on raw tensors: images [B, C, H, W] -> logits [B, num_classes]; 7,850 parameters on MNIST.

    init: how the weights start, by the names of models/init.py; the loss is convex, so zeros do no harm here.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, init: InitName = "zeros") -> None:
        super().__init__(image_shape, num_classes, hidden=(), init=init)


def fit(
    model: ScratchMLP, images: Tensor, labels: Tensor, *, lr: float = 0.1, batch_size: int = 64, epochs: int = 1, seed: int = 0
) -> list[float]:
    """Train by mini-batch gradient descent and return the mean loss of each epoch.

    images: float32 [N, C, H, W]; labels: int64 [N]; `seed` fixes the order of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    epoch_losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(images), generator=generator).split(batch_size):
            loss = cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            sgd_step(model.parameters(), lr)
            total += loss.item() * len(batch)
        epoch_losses.append(total / len(images))
    return epoch_losses


def _make_layer(num_inputs: int, num_outputs: int, init: InitName, scale: float) -> tuple[Tensor, Tensor]:
    weight, bias = torch.empty(num_outputs, num_inputs), torch.empty(num_outputs)
    init_layer(weight, bias, init, scale=scale)
    return weight.requires_grad_(), bias.requires_grad_()
