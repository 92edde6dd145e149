"""Which pixels an answer hangs on: the gradient of the predicted class's logit by the image."""

from typing import Any

import torch
from torch import Tensor

from firstlight.data.loader import Loader

NUM_COPIES = 25
"""Noisy copies of an image in SmoothGrad; the paper finds little gain above 50."""
NOISE = 0.15
"""Their noise, as a share of the range of the image; the paper recommends 0.1 to 0.2."""

AT_ONCE = 32
"""Images whose activations are kept at once."""


def saliency_of(model: Any, loader: Loader, *, smooth: bool = True) -> Tensor:
    """Return a map of each image of a loader, float32 [N, H, W] on the CPU, in units of logit per standard deviation of a pixel.

    It is the largest magnitude over the channels of the gradient of the predicted class's logit (Simonyan et al. 2014); if `smooth`, of
    the mean gradient of NUM_COPIES noisy copies (SmoothGrad, Smilkov et al. 2017). Computed in float32 with the network in eval mode.
    """
    was_training = model.training
    model.eval()
    try:
        return torch.cat([_maps(model, some, smooth=smooth) for batch in loader.batches(0) for some in batch.images.split(AT_ONCE)])
    finally:
        model.train(was_training)


def _maps(model: Any, images: Tensor, *, smooth: bool) -> Tensor:
    with torch.no_grad():
        predicted = model(images).argmax(dim=1)
    if not smooth:
        return gradient(model, images, predicted).abs().amax(dim=1).cpu()
    generator = torch.Generator().manual_seed(0)
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    total = torch.zeros_like(images)
    for _ in range(NUM_COPIES):
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        total += gradient(model, images + NOISE * (high - low) * noise, predicted)
    return (total / NUM_COPIES).abs().amax(dim=1).cpu()


def gradient(model: Any, images: Tensor, classes: Tensor) -> Tensor:
    """Return the gradient of the logit of one class an image (int64 [B]) by the image, float32 [B, C, H, W]."""
    seen = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(seen).gather(1, classes[:, None])
        (slope,) = torch.autograd.grad(logits.sum(), seen)
    return slope.detach()
