"""ResNet-18 (He et al. 2016) in the form used for 32x32 images: a 3x3 stem and no pooling before the stages."""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from firstlight.limits import Range
from firstlight.models.convolution import Conv2d
from firstlight.models.layers import BatchNorm2d

Width = Annotated[int, Range(least=8, most=2**20)]
"""torch 2.13 aborts the process in the backward pass of a channels_last 1x1 convolution with stride 2 on 4 channels."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a path around them: [B, C, H, W] -> [B, D, H/stride, W/stride]."""

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(num_inputs, num_outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm2d(num_outputs)
        self.conv2 = Conv2d(num_outputs, num_outputs, kernel_size=3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(num_outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or num_inputs != num_outputs:
            project = Conv2d(num_inputs, num_outputs, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(project, BatchNorm2d(num_outputs))

    def forward(self, values: Tensor) -> Tensor:
        """Return the block's output."""
        out = F.relu(self.norm1(self.conv1(values)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(values))


class ResNet18(nn.Module):
    """Eight residual blocks: images [B, C, H, W] -> logits [B, num_classes]; 11,173,962 parameters at 10 classes and 3 colours.

    width: channels of the first stage, 8 or more; the other three have 2, 4 and 8 times as many.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, width: Width = 64) -> None:
        super().__init__()
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(
            Conv2d(image_shape[0], width, kernel_size=3, padding=1, bias=False), BatchNorm2d(width), nn.ReLU()
        )  # fmt: skip
        stages = zip(channels[:-1], channels[1:], (1, 2, 2, 2), strict=True)
        self.stages = nn.Sequential(*(nn.Sequential(BasicBlock(i, o, stride), BasicBlock(o, o, 1)) for i, o, stride in stages))
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.stages(self.stem(images))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]
