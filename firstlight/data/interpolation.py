"""Images of a batch at another size."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resize_images(images: Tensor, size: int) -> Tensor:
    """Return float images [B, C, H, W] as [B, C, size, size], bilinear and antialiased."""
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def resize_pixels(images: Tensor, size: int) -> Tensor:
    """Return images [B, C, H, W] as [B, C, size, size], bilinear and antialiased, in the dtype they have; uint8 is rounded."""
    scaled = resize_images(images.float(), size)
    return scaled if images.is_floating_point() else scaled.round().clamp(0, 255).to(torch.uint8)
