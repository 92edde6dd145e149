"""Training one workload in each framework, written as its documentation recommends. Lines 4 and 5 are measured with it.

`python -m benchmarks.frameworks ARM FOLDER [--items] [--threads N]` is a child of benchmarks/pairs.py. All arms: SGD with momentum, no
augmentation, no validation, checkpoints and progress bars off, loss, accuracy and lr of each step recorded where the framework records.
--items: the images are PIL images behind ToTensor and Normalize, as torchvision's data sets hand them out; without it, a TensorDataset of
normalised float32. Each function below is one arm; the first epoch goes in the order of the workload, the others are shuffled.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from benchmarks.turns import Turns
from benchmarks.workload import GUARD_IMAGES, Workload

EPOCHS = 1_000_000
"""Frameworks that own their loop are started once and train until the parent leaves."""


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's CIFAR10 keeps and hands them out: an array, a PIL image of each item, then the transforms."""

    def __init__(self, workload: Workload) -> None:
        from torchvision import transforms

        self.images, self.labels = workload.images, workload.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(workload.mean, workload.std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index].squeeze())), self.labels[index]


class Order(Sampler[int]):
    """The given order in the first epoch, then a new random one each time, as RandomSampler draws it."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.is_first = True

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[int]:
        order = range(self.num) if self.is_first else torch.randperm(self.num).tolist()
        self.is_first = False
        return iter(order)


def make_dataset(workload: Workload, items: bool) -> Dataset[Any]:
    """Return the images one by one through transforms, or as tensors that are ready."""
    return PilImages(workload) if items else TensorDataset(*workload.tensors())


def make_loader(workload: Workload, items: bool) -> DataLoader[Any]:
    """Return PyTorch's own loader, in this process: with workers it is slower on tensors, and two cores are full without them."""
    return DataLoader(make_dataset(workload, items), batch_size=workload.batch_size, sampler=Order(len(workload.images)))


def firstlight(workload: Workload, items: bool, threads: int, turns: Turns) -> None:
    """Train by firstlight's engine, with its run folder, as `firstlight train` does; the checkpoint is off the clock as everywhere."""
    from firstlight.config.describe import to_dict
    from firstlight.data.places import data_dir_of
    from firstlight.engine.loop import train_one_epoch
    from firstlight.engine.record import Recorder
    from firstlight.engine.signals import stop_requests
    from firstlight.engine.train import prepare
    from firstlight.tracking.console import Console
    from firstlight.tracking.writer import RunWriter

    config = workload.config
    prepared = prepare(config, data_dir_of(None))
    state, setup, console = prepared.state, prepared.setup, Console(quiet=True)

    def epoch() -> int:
        train_one_epoch(state, setup, recorder, stop)
        recorder.fetch(state, setup)
        state.running = (0.0, 0.0)
        state.epoch, state.batch = state.epoch + 1, 0
        return workload.num_steps

    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder) / "run") as writer, setup.arithmetic.on_threads():
        recorder = Recorder(writer, console, facts={}, config=to_dict(config), resume_line="")
        with stop_requests() as stop, recorder.progress(state, setup):
            arithmetic = f"{setup.arithmetic.precision}, {setup.arithmetic.memory_format}, {setup.arithmetic.threads} threads"
            turns.repeat(epoch, lambda: workload.guard(state.model), arithmetic=arithmetic)


def raw(workload: Workload, items: bool, threads: int, turns: Turns) -> None:
    """Train as the PyTorch tutorial does, and keep loss, accuracy and lr of each step in lists."""
    model, loader = workload.build_model(), make_loader(workload, items)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.lr, momentum=workload.momentum)
    losses, accuracies, lrs = [], [], []

    def epoch() -> int:
        for images, labels in loader:
            optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            accuracies.append((outputs.argmax(1) == labels).float().mean().item())
            lrs.append(optimizer.param_groups[0]["lr"])
        return workload.num_steps

    turns.repeat(epoch, lambda: workload.guard(model))


def lightning(workload: Workload, items: bool, threads: int, turns: Turns, *, log_every: int = 50) -> None:
    """Train with Lightning's Trainer and its default logger, which writes every 50th step unless told otherwise."""
    import lightning as L
    from lightning.pytorch.callbacks import LearningRateMonitor

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Classifier(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = workload.build_model()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            images, labels = batch
            logits = self.model(images)
            loss = nn.functional.cross_entropy(logits, labels)
            self.log_dict({"loss": loss, "accuracy": (logits.argmax(1) == labels).float().mean()})
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=workload.lr, momentum=workload.momentum)

        def on_train_epoch_start(self) -> None:
            turns.begin()

        def on_train_epoch_end(self) -> None:
            turns.end(workload.num_steps, lambda: workload.guard(self.model))

    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            devices=1,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=log_every,
            callbacks=[LearningRateMonitor("step")],
        )
        trainer.fit(Classifier(), make_loader(workload, items))


def keras(workload: Workload, items: bool, threads: int, turns: Turns) -> None:
    """Train with Keras 3 on the torch backend: compile and fit on arrays, normalised beforehand as its examples do."""
    import keras as K

    K.config.disable_interactive_logging()
    K.config.set_image_data_format("channels_first")
    original = workload.build_model()
    images, labels = (part.numpy() for part in workload.tensors())
    model = to_keras(original, images.shape[1:])
    with torch.no_grad():
        before, rebuilt = original.eval()(torch.from_numpy(images[:8])), torch.as_tensor(model(images[:8], training=False))
    torch.testing.assert_close(rebuilt, before, rtol=1e-3, atol=1e-4)
    model.compile(
        optimizer=K.optimizers.SGD(workload.lr, momentum=workload.momentum),
        loss=K.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    class Record(K.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[tuple[float, float, float]] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            turns.begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.rows.append((logs["loss"], logs["accuracy"], workload.lr))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            turns.end(workload.num_steps, guard)

    def weights() -> list[Tensor]:
        return [torch.as_tensor(weight.numpy()).clone() for weight in model.trainable_weights]

    def guard() -> dict[str, Any]:
        with torch.no_grad():
            logits = torch.as_tensor(model(images[:GUARD_IMAGES], training=False))
        return workload.guard_of(logits, weights(), first)

    first, record = weights(), Record()
    settings: dict[str, Any] = {"batch_size": workload.batch_size, "verbose": 0, "callbacks": [record]}
    model.fit(images, labels, epochs=1, shuffle=False, **settings)
    model.fit(images, labels, epochs=EPOCHS, shuffle=True, **settings)


def to_keras(original: nn.Module, image_shape: tuple[int, ...]) -> Any:
    """Rebuild a network of firstlight from Keras layers, and give it the same weights."""
    import keras as K

    made: list[tuple[nn.Module, Any]] = []

    def add(layer: nn.Module, values: Any) -> Any:
        """Apply the Keras layer that does what `layer` does."""
        name = type(layer).__name__
        if isinstance(layer, nn.Sequential):
            for inner in layer:
                values = add(inner, values)
            return values
        if name == "BasicBlock":
            block: Any = layer
            inside = K.layers.ReLU()(add(block.norm1, add(block.conv1, values)))
            outside = add(block.shortcut, values) if len(block.shortcut) else values
            return K.layers.ReLU()(K.layers.Add()([add(block.norm2, add(block.conv2, inside)), outside]))
        if isinstance(layer, nn.Conv2d):
            if layer.padding[0]:  # 'same' pads one side only where the stride is 2
                values = K.layers.ZeroPadding2D(layer.padding)(values)
            new = K.layers.Conv2D(layer.out_channels, layer.kernel_size, layer.stride, use_bias=layer.bias is not None)
        elif isinstance(layer, nn.Linear):
            if len(values.shape) > 2:
                values = K.layers.Flatten(data_format="channels_last")(values)
            new = K.layers.Dense(layer.out_features)
        elif isinstance(layer, nn.BatchNorm2d):
            new = K.layers.BatchNormalization(axis=1, momentum=0.9, epsilon=layer.eps)  # Keras counts the momentum the other way
        elif isinstance(layer, nn.MaxPool2d):
            new = K.layers.MaxPooling2D(layer.kernel_size)
        elif isinstance(layer, nn.ReLU):
            new = K.layers.ReLU()
        else:
            assert isinstance(layer, nn.Flatten), name
            new = K.layers.Flatten(data_format="channels_last")
        made.append((layer, new))
        return new(values)

    inputs = K.Input(image_shape)  # Flatten below keeps the order of torch; told of channels first, Keras would move them to the end
    if isinstance(original, nn.Sequential):
        outputs = add(original, inputs)
    elif hasattr(original, "stages"):
        outputs = add(original.head, K.layers.GlobalAveragePooling2D()(add(original.stages, add(original.stem, inputs))))  # type: ignore[arg-type]
    else:
        outputs = add(original.head, K.layers.Flatten(data_format="channels_last")(add(original.features, inputs)))  # type: ignore[arg-type]
    model = K.Model(inputs, outputs)
    for layer, new in made:
        if isinstance(layer, nn.Conv2d):
            new.set_weights([weight.detach().numpy() for weight in (layer.weight.permute(2, 3, 1, 0), layer.bias) if weight is not None])
        elif isinstance(layer, nn.Linear):
            new.set_weights([weight.detach().numpy() for weight in (layer.weight.T, layer.bias)])
    return model


def fastai(workload: Workload, items: bool, threads: int, turns: Turns) -> None:
    """Train with fastai's Learner on PyTorch's loaders, as its guide for migrating from plain PyTorch shows."""
    import fastai.callback.progress  # noqa: F401  gives the Learner its bar, as `from fastai.vision.all import *` does, and no_bar
    from fastai.callback.core import Callback, CancelValidException
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import SGD

    class Clock(Callback):  # type: ignore[misc]
        order = 1000  # behind fastai's own Recorder

        def before_train(self) -> None:
            turns.begin()

        def after_train(self) -> None:
            turns.end(workload.num_steps, lambda: workload.guard(self.learn.model))

        def before_validate(self) -> None:
            raise CancelValidException

    loader = make_loader(workload, items)
    model = workload.build_model()
    learner = Learner(
        DataLoaders(loader, loader, device=torch.device("cpu")),
        model,
        loss_func=nn.CrossEntropyLoss(),
        opt_func=partial(SGD, mom=workload.momentum),
        lr=workload.lr,
        metrics=accuracy,
        cbs=[Clock()],
    )
    learner.recorder.train_metrics = True
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS)


def skorch(workload: Workload, items: bool, threads: int, turns: Turns) -> None:
    """Train with skorch's NeuralNetClassifier; its history keeps the loss of each batch, a callback adds accuracy and lr."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback

    class Record(Callback):  # type: ignore[misc]
        def on_epoch_begin(self, net: Any, **_: Any) -> None:
            turns.begin()

        def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, y_pred: Any = None, **_: Any) -> None:
            net.history.record_batch("accuracy", (y_pred.argmax(1) == batch[1]).float().mean().item())
            net.history.record_batch("lr", net.optimizer_.param_groups[0]["lr"])

        def on_epoch_end(self, net: Any, **_: Any) -> None:
            turns.end(workload.num_steps, lambda: workload.guard(net.module_))

    net = NeuralNetClassifier(
        workload.build_model(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=workload.momentum,
        lr=workload.lr,
        batch_size=workload.batch_size,
        max_epochs=EPOCHS,
        iterator_train__sampler=Order(len(workload.images)),
        train_split=None,
        callbacks=[("record", Record())],
        callbacks__print_log=None,
        verbose=0,
    )
    images, labels = workload.tensors()
    net.fit(images, labels)


ARMS: dict[str, Callable[[Workload, bool, int, Turns], None]] = {
    "firstlight": firstlight,
    "torch": raw,
    "lightning": lightning,
    "lightning_every_step": partial(lightning, log_every=1),
    "keras": keras,
    "fastai": fastai,
    "skorch": skorch,
}


def main() -> None:
    """Be the arm that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    turns = Turns()
    torch.set_num_threads(words.threads)
    torch.manual_seed(0)
    ARMS[words.arm](Workload.read(words.folder), words.items, words.threads, turns)


if __name__ == "__main__":
    main()
