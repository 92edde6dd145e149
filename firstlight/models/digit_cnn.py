"""A small convolutional network that reads digits of 28x28 pixels in few operations."""

from collections import OrderedDict

from torch import nn

from firstlight.limits import Size
from firstlight.models.convolution import Conv2d
from firstlight.models.layers import BatchNorm2d, require_size


class DigitCNN(nn.Sequential):
    """A 5x5 and two 3x3 convolutions without border, and a linear layer: images [B, C, H, W] -> logits [B, num_classes].

    Images are halved behind each convolution while they have 4 pixels or more, before normalisation and ReLU, which then have a
    quarter of the values to go over. At 28x28 and widths (8, 24, 64) an image takes 418,000 multiply-adds.
    widths: channels of the three convolutions.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, widths: tuple[Size, Size, Size] = (8, 24, 64)) -> None:
        require_size("digit_cnn", image_shape, least=20)
        num_inputs, height, width = image_shape
        layers: list[nn.Module] = []
        for num_outputs, side in zip(widths, (5, 3, 3), strict=True):
            layers.append(Conv2d(num_inputs, num_outputs, kernel_size=side, bias=False))
            num_inputs, height, width = num_outputs, height - side + 1, width - side + 1
            if min(height, width) >= 4:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            layers += [BatchNorm2d(num_outputs, momentum=0.4), nn.ReLU()]  # a training of a few hundred steps cannot wait for the usual 0.1
        head = nn.Linear(num_inputs * height * width, num_classes)
        super().__init__(OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), head=head))
