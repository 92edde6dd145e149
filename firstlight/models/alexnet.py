"""AlexNet (Krizhevsky 2014, "One weird trick"), with five convolutions and three linear layers."""

from torch import Tensor, nn

from firstlight.limits import Fraction
from firstlight.models.convolution import Conv2d
from firstlight.models.layers import require_size


class AlexNet(nn.Module):
    """The network of the ImageNet contest of 2012: images [B, C, H, W] -> logits [B, num_classes].

    57,044,810 parameters with 10 classes, 57,823,240 with 200. Images of at least 63 pixels; the courses take 70x70.
    dropout: share of units dropped before each of the two large linear layers.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, dropout: Fraction = 0.5) -> None:
        require_size("alexnet", image_shape, least=63)
        super().__init__()
        self.features = nn.Sequential(
            Conv2d(image_shape[0], 64, kernel_size=11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
            Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
            Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.AdaptiveAvgPool2d(6),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.features(images)
        return self.head(features.flatten(start_dim=1))  # type: ignore[no-any-return]
