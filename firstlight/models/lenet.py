"""LeNet (LeCun et al. 1998) as courses teach it for 32x32 colour images."""

from collections import OrderedDict
from typing import Literal

from torch import nn

from firstlight.models.layers import ACTIVATIONS, ActivationName, require_size


class LeNet(nn.Sequential):
    """Two 5x5 convolutions and three linear layers: images [B, C, H, W] -> logits [B, num_classes].

    83,126 parameters on 3x32x32 images with 10 classes, 99,276 with 200. Images of at least 12 pixels.
    activation: name of the function behind each layer but the last; the published network has sigmoid.
    pool: how 2x2 windows are joined behind each convolution.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        activation: ActivationName = "relu",
        pool: Literal["max", "avg"] = "max",
    ) -> None:
        require_size("lenet", image_shape, least=12)
        act, pool2 = ACTIVATIONS[activation], nn.MaxPool2d if pool == "max" else nn.AvgPool2d
        channels, height, width = image_shape
        flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)  # 576 at 32x32
        features = nn.Sequential(
            nn.Conv2d(channels, 6, kernel_size=5, padding=2), act(), pool2(2),
            nn.Conv2d(6, 16, kernel_size=5), act(), pool2(2),
        )  # fmt: skip
        head = nn.Sequential(nn.Linear(flat, 120), act(), nn.Linear(120, 84), act(), nn.Linear(84, num_classes))
        super().__init__(OrderedDict(features=features, flatten=nn.Flatten(), head=head))
