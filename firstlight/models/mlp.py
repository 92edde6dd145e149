"""The multi-layer perceptron: any number of hidden layers on the pixels."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from torch import nn

from firstlight.limits import Fraction, Positive, Size
from firstlight.models.init import InitName
from firstlight.models.layers import ACTIVATIONS, ActivationName, BatchNorm1d
from firstlight.models.linear import dense

NormPlace = Literal["none", "before", "after"]


class MLP(nn.Sequential):
    """Fully connected network: images [B, C, H, W] -> logits [B, num_classes]; 109,386 parameters on MNIST.

    hidden: units of each hidden layer, from the pixels on; an empty list is softmax regression.
    activation: name of the function behind each hidden layer.
    dropout: share of the hidden units that are dropped, after the activation (Srivastava et al. 2014).
    norm: batch normalisation before or after the activation, or none (Ioffe and Szegedy 2015).
    input_norm: batch normalisation of the pixels, in place of scaling them.
    output_norm: batch normalisation of the logits.
    init: how the weights start, by the names of models/init.py; biases start at 0 (torch_default: uniform).
    init_scale: the weights of every layer start at so many times that; biases do not.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        hidden: tuple[Size, ...] = (128, 64),
        activation: ActivationName = "relu",
        dropout: Fraction = 0.0,
        norm: NormPlace = "none",
        input_norm: bool = False,
        output_norm: bool = False,
        init: InitName = "kaiming_uniform",
        init_scale: Positive = 1.0,
    ) -> None:
        sizes = (math.prod(image_shape), *hidden, num_classes)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        if input_norm:
            layers["input_norm"] = BatchNorm1d(sizes[0])
        for number, (num_inputs, num_outputs) in enumerate(itertools.pairwise(sizes), start=1):
            layers[f"linear{number}"] = dense(num_inputs, num_outputs, init, scale=init_scale)
            if number <= len(hidden):
                layers.update((f"{name}{number}", layer) for name, layer in _behind_hidden(num_outputs, activation, norm, dropout))
        if output_norm:
            layers["output_norm"] = BatchNorm1d(num_classes)
        super().__init__(layers)


def _behind_hidden(size: int, activation: ActivationName, norm: NormPlace, dropout: float) -> Iterator[tuple[str, nn.Module]]:
    if norm == "before":
        yield "norm", BatchNorm1d(size)
    yield "activation", ACTIVATIONS[activation]()
    if norm == "after":
        yield "norm", BatchNorm1d(size)
    if dropout:
        yield "dropout", nn.Dropout(dropout)
