"""A frozen first layer that whitens patches of the image, in front of any network (Page 2019, "How to train your ResNet")."""

import torch
from torch import Tensor, nn

from firstlight.errors import ConfigError
from firstlight.models.model import Model

NUM_IMAGES = 5000
"""Images that the filters are measured on."""
EPS = 5e-4
"""Added to each variance, so that patches without contrast are not blown up."""


class Whitening(nn.Module):
    """Patches seen along their principal directions, each scaled to variance 1: images [B, C, H, W] -> [B, 2 * C * side**2, H', W'].

    Each direction comes twice, with both signs, and passes a ReLU. H' = H - side + 1. The filters are not trained: `measure` sets them.
    side: pixels of a patch in each dimension.
    """

    filters: Tensor

    def __init__(self, image_shape: tuple[int, int, int], side: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        if side > min(height, width):
            raise ConfigError(f"input.whiten is {side}, but images are {height}x{width}; set input.whiten={min(height, width)} or less")
        num_directions = channels * side * side
        self.register_buffer("filters", torch.zeros(2 * num_directions, channels, side, side))
        self.output_shape = (2 * num_directions, height - side + 1, width - side + 1)

    @torch.no_grad()
    def measure(self, images: Tensor) -> None:
        """Set the filters from normalised images, float32 [N, C, H, W]; the first NUM_IMAGES count."""
        side = self.filters.shape[-1]
        patches = images[:NUM_IMAGES].unfold(2, side, 1).unfold(3, side, 1)  # [N, C, H', W', side, side]
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, self.filters[0].numel()).double()
        variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        scaled = directions.T / (variances + EPS).sqrt()[:, None]
        self.filters.copy_(torch.cat((scaled, -scaled)).view_as(self.filters))

    def forward(self, images: Tensor) -> Tensor:
        """Return the whitened patches."""
        return torch.relu(torch.nn.functional.conv2d(images, self.filters))


class Whitened(nn.Module):
    """A network behind a whitening layer."""

    def __init__(self, whitening: Whitening, network: Model) -> None:
        super().__init__()
        self.whitening = whitening
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.network(self.whitening(images))  # type: ignore[no-any-return]
