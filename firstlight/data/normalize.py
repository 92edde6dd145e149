"""Mean and deviation of each channel, measured on the training part, and the map from pixels to what the network sees."""

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_VALUES = 200_000
"""Values converted to float64 at once, 1.6 MB: such pieces stay in the cache of a core and in memory that is used again. In pieces of
25 MB CIFAR-10 took 3.4 times as long (0.52 against 0.15 s of one Zen 4 core), most of it for fresh pages."""

_CONSTANT = 1e-6
"""A deviation below this counts as none; one level of an 8-bit pixel is 4e-3."""


@dataclass(frozen=True)
class Normalize:
    """The map (pixel - mean) / std for each channel, pixels in [0, 1]; as JSON it is two lists."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON brings lists
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        assert len(self.mean) == len(self.std), "one mean and one deviation a channel"

    @classmethod
    def identity(cls, num_channels: int) -> "Normalize":
        """Return the map that leaves pixels in [0, 1] as they are."""
        return cls((0.0,) * num_channels, (1.0,) * num_channels)

    @classmethod
    def measure(cls, images: Tensor) -> "Normalize":
        """Return the map that gives the channels of `images` ([N, C, H, W], uint8 or float) mean 0 and deviation 1."""
        mean, std = channel_statistics(images)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def coefficients(self, pixel_scale: float) -> tuple[Tensor, Tensor]:
        """Return factor and shift, float32 [C]: pixel * factor + shift; `pixel_scale` is 255 for uint8 and 1 for floats."""
        mean, std = torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)
        return (1 / (std * pixel_scale)).float(), (-mean / std).float()

    def apply(self, images: Tensor) -> Tensor:
        """Return uint8 or float pixels [..., C, H, W] as the network sees them, float32."""
        factor, shift = (_columns(values, images) for values in self.coefficients(pixel_scale(images)))
        return torch.addcmul(shift, images.to(torch.float32), factor)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (over all N * H * W pixels in [0, 1]) of each channel, float64 [C].

    images: [N, C, H, W], uint8 or float. A channel that is constant gets deviation 1, so that dividing by it is harmless.
    """
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    one = images[0]
    size = max(1, _CHUNK_VALUES // one.numel())
    memory = one.new_empty((size, *one.shape), dtype=torch.float64)
    for chunk in images.split(size):
        pixels = memory[: len(chunk)].copy_(chunk)
        total += pixels.sum((0, 2, 3)).cpu()
        squares += pixels.square_().sum((0, 2, 3)).cpu()
    num_pixels, scale = images.numel() // images.shape[1], pixel_scale(images)
    mean = total / num_pixels
    std = (squares / num_pixels - mean.square()).clamp(min=0).sqrt() / scale
    return mean / scale, torch.where(std < _CONSTANT, 1.0, std)


def pixel_scale(images: Tensor) -> float:
    """Return the value of a white pixel: 255 for uint8, 1 for floats."""
    return 255.0 if images.dtype == torch.uint8 else 1.0


def _columns(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device)[:, None, None]
