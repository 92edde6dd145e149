"""A convolution with a faster gradient of its weights on processors with AVX2: it comes from matrix products.

oneDNN's own kernel for it reaches about 0.6 of the forward pass's rate there. Copied into rows of
patches (Chellapilla, Puri and Simard 2006), a few images at a time so that the rows stay in the cache, the same sums are one product of
two matrices. On 2 threads of an EPYC with AVX2 that takes 0.5 to 0.9 of the time for 64 and more channels. Forward and the gradient by
the images are torch's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

LEAST_CHANNELS = 32
"""With fewer inputs or outputs the product is too narrow: 24 to 32 channels took 1.02 times as long, 6 to 16 took twice."""
ROWS = 2**20
"""Values of the rows that are made at once, 4 MB of them."""
AVX2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
"""Whether torch uses AVX2 here. With AVX512 oneDNN has other kernels, which were not measured."""


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d, [B, C, H, W] -> [B, C', H', W'], with a faster gradient of the weights where that is known to pay."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolved images."""
        if not (self.weight.requires_grad and torch.is_grad_enabled() and self._pays(input)):
            return super().forward(input)
        result: Tensor = _Convolution.apply(input, self.weight, self.bias, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return result

    def _pays(self, images: Tensor) -> bool:
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros" and not isinstance(self.padding, str)
        wide = min(self.in_channels, self.out_channels) >= LEAST_CHANNELS
        here = (
            AVX2
            and not _transformed()
            and images.device.type == "cpu"
            and images.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )
        return plain and wide and here and images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)


def _transformed() -> bool:
    """Tell whether torch.func (vmap, grad) is at work, whose tensors stand for others."""
    return torch._C._functorch.peek_interpreter_stack() is not None


class _Convolution(torch.autograd.Function):
    """The convolution as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.stride, ctx.padding = stride, padding
        ctx.save_for_backward(images, weight)
        return torch.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        by_images = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            rest = (None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (True, False, False))
            by_images = torch.ops.aten.convolution_backward(slope, images, weight, *rest)[0]
        if ctx.needs_input_grad[1]:
            by_weight = weight_gradient(images, slope, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            by_bias = slope.sum((0, 2, 3))  # oneDNN would go through the weights for it
        return by_images, by_weight, by_bias, None, None


def weight_gradient(images: Tensor, slope: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Return the gradient of a loss by the weights of a convolution, [C', C, h, w], in the memory order that the product left.

    images: [B, C, H, W] as the convolution saw them; slope: [B, C', H', W'], the gradient by what it returned.
    """
    num_images, num_outputs, height, width = slope.shape
    num_inputs, (rows, columns) = images.shape[1], weight.shape[2:]
    pixels = images.permute(0, 2, 3, 1)
    if any(padding):
        pixels = pad(pixels, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    image, row, column, _ = pixels.stride()
    shape = (num_images, height, width, rows, columns, num_inputs)
    patches = pixels.as_strided(shape, (image, stride[0] * row, stride[1] * column, row, column, 1))
    slopes = slope.permute(0, 2, 3, 1)
    at_once = max(1, ROWS // (height * width * rows * columns * num_inputs))
    total = torch.zeros(rows * columns * num_inputs, num_outputs)
    for some, theirs in zip(patches.split(at_once), slopes.split(at_once), strict=True):
        total.addmm_(some.reshape(-1, len(total)).T, theirs.reshape(-1, num_outputs))
    return total.view(rows, columns, num_inputs, num_outputs).permute(3, 2, 0, 1)
