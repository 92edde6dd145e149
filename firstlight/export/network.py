"""The network of a run as it is exported: pixels in, logits out, with the normalisation and the further views of an image inside."""

from typing import Any

import torch
from torch import Tensor, nn

from firstlight.config.schema import Config, EvaluationConfig
from firstlight.data.normalize import Normalize
from firstlight.engine.evaluate import other_views
from firstlight.models.mlp import MLP
from firstlight.models.scratch import ScratchMLP


class PixelNetwork(nn.Module):
    """Pixels [B, C, H, W], uint8 or float32 in [0, 1] -> logits float32 [B, num_classes], as `firstlight predict` computes them.

    white: value of a white pixel, 255 or 1. looks: further views of each image; all of them are computed here, whether needed or not.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, normalize: Normalize, white: float, looks: EvaluationConfig) -> None:
        super().__init__()
        self.network = network
        self.looks = looks
        factor, shift = normalize.coefficients(white)
        self.register_buffer("factor", factor[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        seen = torch.addcmul(self.shift, images.to(torch.float32), self.factor)
        logits: Tensor = self.network(seen)
        return logits if self.looks.views == "one" else self._look_again(seen, logits)

    def _look_again(self, seen: Tensor, logits: Tensor) -> Tensor:
        """Return what engine.evaluate.look_again does, without a branch: a graph has none."""
        first = logits.softmax(1)
        others = [self.network(view).softmax(1) for view in other_views(seen, self.looks.views)]
        mean = torch.stack([first, *others]).mean(0).clamp(min=torch.finfo(torch.float32).tiny)
        is_sure = first.amax(1, keepdim=True) > self.looks.views_below
        return torch.where(is_sure, logits, mean.log())


def pixel_network(model: Any, config: Config, normalize: Normalize, white: float) -> PixelNetwork:
    """Return the network of a run, in eval mode and without gradients, ready to be exported."""
    network = _as_layers(model, config) if isinstance(model, ScratchMLP) else model
    whole = PixelNetwork(network, normalize, white, config.evaluation)
    whole.requires_grad_(False)
    whole.eval()
    return whole


def _as_layers(model: ScratchMLP, config: Config) -> nn.Module:
    """Return the same network as layers: raw tensors have the names and the shapes that they have in MLP."""
    weights = model.state_dict()
    sizes = [len(tensor) for name, tensor in weights.items() if name.endswith("weight")]
    activation = config.model.options.get("activation", "relu")
    layers = MLP((weights["linear1.weight"].shape[1], 1, 1), sizes[-1], hidden=tuple(sizes[:-1]), activation=activation)
    layers.load_state_dict(weights)
    return layers
