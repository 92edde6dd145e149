"""Floating-point operations of a network's forward pass, counted at the functions of torch that it calls."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _product(result: Tensor, left: Tensor, *others: Any) -> int:
    return result.numel() * left.shape[-1]


def _added_product(result: Tensor, added: Tensor, left: Tensor, *others: Any) -> int:
    return result.numel() * left.shape[-1]


def _convolution(result: Tensor, images: Tensor, filters: Tensor, *others: Any) -> int:
    return result.numel() * math.prod(filters.shape[1:])


MULTIPLY_ADDS: Mapping[Callable[..., Any], Callable[..., int]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    **dict.fromkeys((F.linear, torch.matmul, torch.mm, torch.bmm, torch.mv), _product),
    **dict.fromkeys((Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__), _product),
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _added_product),
}
"""How many multiply-adds a function makes, from its result and its arguments. Whatever is elementwise, pools or normalises counts
nothing, as in torch.utils.flop_counter, which is the oracle in the test, but takes 3 s to import."""


class CountFlops(TorchFunctionMode):
    """Adds up the floating-point operations of the calls in a block, `flops`; a multiply-add counts as two."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: int = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MULTIPLY_ADDS:
            self.flops += 2 * MULTIPLY_ADDS[func](result, *args)
        return result


def flops_per_image(model: Any, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image's forward pass through a model on the CPU; a multiply-add counts as two."""
    was_training = model.training
    model.eval()  # batch norm refuses a single image otherwise
    with torch.no_grad(), torch.random.fork_rng(devices=[]), CountFlops() as counter:
        model(torch.zeros(1, *image_shape))
    model.train(was_training)
    return int(counter.flops)
