"""The first layer's weights as pictures, and what each convolution makes of one image."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firstlight.engine.evaluate import eval_mode
from firstlight.inspection.layer_statistics import Watch, weight_layers


def filters_of(model: nn.Module, image_shape: tuple[int, int, int], num: int) -> tuple[str, NDArray[Any]] | None:
    """Return the name of the first layer and its first `num` filters, float32 [M, h, w] or [M, h, w, 3] (colour).

    The rows of a linear layer on the pixels take the images' shape. Filters over other than 1 or 3 channels are averaged over them. None
    where the first layer sees no image.
    """
    name, layer = weight_layers(model)[0]
    weight = weight_of(layer)[:num]
    if weight.ndim == 2:
        if weight.shape[1] != math.prod(image_shape):
            return None
        weight = weight.view(-1, *image_shape)
    if weight.shape[1] not in (1, 3):
        weight = weight.mean(1, keepdim=True)
    return name, weight.permute(0, 2, 3, 1).squeeze(3).numpy() if weight.shape[1] == 1 else weight.permute(0, 2, 3, 1).numpy()


def feature_maps(model: nn.Module, images: Tensor, num: int) -> list[tuple[str, int, NDArray[np.float32]]]:
    """Return, for each convolution in the order of execution, its name, its channels, and the `num` strongest maps of one image.

    images: float32 [1, C, H, W], normalised. Maps: float32 [M, h, w], behind the activation function where one follows; the strongest
    have the largest mean of their absolute values.
    """
    watch = Watch()
    with eval_mode(model), watch.on(model):
        model(images)
    found = []
    for seen in watch.seen:
        if isinstance(seen.layer, nn.Conv2d):
            maps = (seen.output if seen.activation is None else seen.activation)[0].float().cpu()
            order = maps.abs().mean((1, 2)).sort(descending=True, stable=True).indices[:num]
            found.append((seen.name, len(maps), maps[order.sort().values].numpy()))
    return found


def weight_of(layer: nn.Module) -> Tensor:
    """Return a copy of a layer's weights, float32 on the CPU."""
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach().float().cpu()


def first_layer_change(before: nn.Module, after: nn.Module) -> float:
    """Return how far the first layer's weights moved, as a share of their first norm."""
    old, new = (weight_of(weight_layers(model)[0][1]) for model in (before, after))
    return float(torch.linalg.vector_norm(new - old) / torch.linalg.vector_norm(old).clamp(min=torch.finfo(torch.float32).tiny))
