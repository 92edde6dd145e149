"""Softmax regression: one linear layer on the pixels."""

import math
from collections import OrderedDict

import torch
from torch import nn

from firstlight.models.init import InitName, init_layer


def dense(num_inputs: int, num_outputs: int, init: InitName, *, scale: float = 1.0) -> nn.Linear:
    """Return a linear layer filled by name; nothing else is drawn from the random generator on the way."""
    with torch.random.fork_rng(devices=[]):  # nn.utils.skip_init draws nothing either, but its meta device takes 1 s to load
        layer = nn.Linear(num_inputs, num_outputs)
    init_layer(layer.weight, layer.bias, init, scale=scale)
    return layer


class Linear(nn.Sequential):
    """Softmax regression: images [B, C, H, W] -> logits [B, num_classes]; 7,850 parameters on MNIST.

    init: how the weights start, by the names of models/init.py; the loss is convex, so zeros do no harm here.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, init: InitName = "zeros") -> None:
        layers = OrderedDict(flatten=nn.Flatten(), linear1=dense(math.prod(image_shape), num_classes, init))
        super().__init__(layers)
