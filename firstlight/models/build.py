"""The architectures by name; a new one is one file and one line here."""

from collections.abc import Callable

import torch
from torch import nn

from firstlight.config.schema import Kind
from firstlight.errors import ConfigError, did_you_mean
from firstlight.models.airbench import Airbench
from firstlight.models.alexnet import AlexNet
from firstlight.models.cnn5 import CNN5
from firstlight.models.lenet import LeNet
from firstlight.models.linear import Linear
from firstlight.models.mlp import MLP
from firstlight.models.model import Model
from firstlight.models.resnet18 import ResNet18
from firstlight.models.scratch import ScratchLinear, ScratchMLP
from firstlight.models.small_cnn import SmallCNN
from firstlight.models.whitening import Whitened, Whitening

MODELS: dict[str, Callable[..., Model]] = {
    "linear": Linear,
    "mlp": MLP,
    "scratch_linear": ScratchLinear,
    "scratch_mlp": ScratchMLP,
    "cnn5": CNN5,
    "small_cnn": SmallCNN,
    "lenet": LeNet,
    "alexnet": AlexNet,
    "resnet18": ResNet18,
    "airbench": Airbench,
}


def build_model(kind: Kind, image_shape: tuple[int, int, int], num_classes: int, seed: int, *, whiten: int = 0) -> Model:
    """Return a new network on the CPU; its weights are a function of `seed`, and the global generators are left as they were.

    whiten: side of the patches of a whitening layer in front, whose filters are still to be measured; 0 has none.
    Raises ConfigError for a name that is not known, or images that are too small for the network.
    """
    if kind.name not in MODELS:
        raise ConfigError(f"model: unknown name {kind.name!r}{did_you_mean(kind.name, MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the accelerators, which are not restored
        if not whiten:
            return MODELS[kind.name](image_shape, num_classes, **kind.options)
        whitening = Whitening(image_shape, whiten)
        network = MODELS[kind.name](whitening.output_shape, num_classes, **kind.options)
        if not isinstance(network, nn.Module):
            raise ConfigError(f"input.whiten is {whiten}, but {kind.name} takes images alone; set input.whiten=0 or another model")
        return Whitened(whitening, network)
