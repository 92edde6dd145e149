"""Monte-Carlo dropout: the same images several times through a network whose dropout is on, and all else as in evaluation.

What lies ahead of the first dropout gives the same each time, so a batch goes through it once.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from firstlight.data.loader import Batch, Loader
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import eval_mode
from firstlight.engine.seeding import private_randomness, seed_batch


def dropout_layers(model: Any) -> list[nn.Module]:
    """Return the layers of a network that drop something."""
    layers = model.modules() if isinstance(model, nn.Module) else ()
    return [layer for layer in layers if isinstance(layer, _DropoutNd) and layer.p > 0]


def passes_of(
    model: nn.Module, loader: Loader, arithmetic: Arithmetic, *, num_passes: int, seed: int
) -> Iterator[tuple[Batch, int, Tensor]]:
    """Yield the logits float32 [B, K] of each pass over each batch, with the batch and the number of the pass.

    What is dropped is a function of (seed, number of the pass, number of the batch); the global generators and the modes of the layers
    are as before when it ends. Batch normalisation keeps to its running statistics, and does not change them.
    """
    with eval_mode(model), dropout_on(model), private_randomness(arithmetic.device), arithmetic.autocast():
        for place, batch in enumerate(loader.batches(0)):
            with remembering(model, batch.images[:1]):
                for number in range(num_passes):
                    seed_batch(seed, number, place, device=arithmetic.device)
                    yield batch, number, model(batch.images).float()


@contextmanager
def dropout_on(model: nn.Module) -> Iterator[None]:
    """Put the dropout layers alone into train mode for the block, and back as they were."""
    layers = dropout_layers(model)
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.train(mode)


class Remembered(nn.Module):
    """A layer that computes once, and gives the same result from then on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.result: Any = None

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the layer made of the first inputs."""
        if self.result is None:
            self.result = self.layer(*inputs)
        return self.result


@contextmanager
def remembering(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Let the layers ahead of the first dropout compute only once in the block. images: any few that the network takes."""
    layers = [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in layers_ahead(model, images)]
    kept = [parent.get_submodule(name) for parent, name in layers]
    for (parent, name), layer in zip(layers, kept, strict=True):
        parent.register_module(name, Remembered(layer))
    try:
        yield
    finally:
        for (parent, name), layer in zip(layers, kept, strict=True):
            parent.register_module(name, layer)


def layers_ahead(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the outermost layers that are done, once and for all, before the first dropout begins."""
    dropouts, done, calls, begun = dropout_layers(model), [], Counter[str](), False

    def begin(layer: nn.Module, inputs: Any) -> None:
        nonlocal begun
        begun = begun or any(layer is dropout for dropout in dropouts)

    def end(name: str, layer: nn.Module, inputs: Any, outputs: Any) -> None:
        calls[name] += 1
        if not begun:
            done.append(name)

    handles = []
    for name, layer in model.named_modules():
        handles += [layer.register_forward_pre_hook(begin), layer.register_forward_hook(partial(end, name))]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in done if name.rpartition(".")[0] not in done and calls[name] == 1]
