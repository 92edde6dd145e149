"""A15, F7, A16, C3, B5: `check_health` finds what was planted in plain PyTorch loops, and is silent where nothing was."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import firstlight as fl
from firstlight.data.normalize import Normalize
from firstlight.inspection.health import Health, check_health

SEEDS = (0, 1, 2)
Net = Callable[[], nn.Module]
Data = tuple[Tensor, Tensor, Tensor, Tensor]


def mlp(**more: Any) -> nn.Module:
    """The plain network: 64 pixels, two hidden layers of 32."""
    layers = OrderedDict(flat=nn.Flatten(), one=nn.Linear(64, 32), act1=nn.ReLU(), two=nn.Linear(32, 32), act2=nn.ReLU(), **more)
    return nn.Sequential(OrderedDict(layers, head=nn.Linear(32, 10)))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )


@pytest.fixture(scope="module")
def digits() -> Data:
    """800 digits to train on and 400 to judge by, normalised."""
    data = fl.load_data("digits")
    assert data.labels is not None
    images = Normalize.measure(data.images[:800]).apply(data.images)
    return images[:800], data.labels[:800], images[800:1200], data.labels[800:1200]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """A right evaluation."""
    model.eval()
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).float().mean().item()
    model.train()
    return right


@dataclass
class MyLoop:
    """A beginner's training loop, as it stands in a notebook."""

    model: nn.Module
    lr: float = 0.05
    momentum: float = 0.9
    evaluate: Callable[..., float] = accuracy

    def __post_init__(self) -> None:
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=self.momentum)

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def health(self, data: Data, **more: Any) -> Health:
        settings = {"num_steps": 80, "batch_size": 32, "optimizer": self.optimizer, **more}
        return check_health(self.model, *data, step=self.step, evaluate=self.evaluate, **settings)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: MyLoop(mlp()),
        lambda: MyLoop(mlp(dropout=nn.Dropout(0.2))),
        lambda: MyLoop(mlp(norm=nn.BatchNorm1d(32))),
        lambda: MyLoop(conv()),
        lambda: MyLoop(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))),
    ],
    ids=["mlp", "dropout", "batch norm", "conv", "linear"],
)
def test_a_healthy_loop_is_left_in_peace(make: Callable[[], MyLoop], seed: int, digits: Data) -> None:
    """A15: no warning and no fault, whatever the seed of the weights."""
    torch.manual_seed(seed)
    found = make().health(digits, seed=seed)
    assert found.findings == {}, [check for check in found.checks if check.verdict in ("warning", "fault")]
    assert found.says.startswith("all ")


def dead_relu(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    nn.init.constant_(loop.model.one.bias, -100.0)  # type: ignore[arg-type]
    return loop, data


def no_zero_grad(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())

    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        cross_entropy(model(images), labels).backward()
        loop.optimizer.step()

    loop.step = step  # type: ignore[assignment, method-assign]
    return loop, data


def lr_times_100(data: Data) -> tuple[MyLoop, Data]:
    return MyLoop(mlp(), lr=5.0), data


def shuffled_labels(data: Data) -> tuple[MyLoop, Data]:
    images, labels, val_images, val_labels = data
    return MyLoop(mlp()), (images, labels[torch.randperm(len(labels))], val_images, val_labels)


def labels_shuffled_in_the_step(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    right = loop.step
    loop.step = lambda model, images, labels: right(model, images, labels[torch.randperm(len(labels))])  # type: ignore[method-assign]
    return loop, data


def not_normalised(data: Data) -> tuple[MyLoop, Data]:
    raw = fl.load_data("digits").images.float()
    return MyLoop(mlp(), lr=1e-3), (raw[:800], data[1], raw[800:1200], data[3])


def frozen_layer(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    loop.model.two.requires_grad_(False)  # type: ignore[operator]
    return loop, data


def layer_left_out_of_the_optimizer(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    loop.optimizer = torch.optim.SGD([*loop.model.two.parameters(), *loop.model.head.parameters()], lr=0.05, momentum=0.9)  # type: ignore[operator]
    return loop, data


def zero_init(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    for parameter in loop.model.parameters():
        nn.init.zeros_(parameter)
    return loop, data


def constant_init(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    for name in ("one", "two"):
        nn.init.constant_(getattr(loop.model, name).weight, 0.02)
        nn.init.zeros_(getattr(loop.model, name).bias)
    return loop, data


def exploding_init(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    for parameter in loop.model.parameters():
        parameter.data *= 30
    return loop, data


def network_with_softmax(data: Data) -> tuple[MyLoop, Data]:
    model = mlp()
    model.append(nn.Softmax(dim=1))  # type: ignore[operator]
    return MyLoop(model), data


def softmax_in_the_step(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())

    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        loop.optimizer.zero_grad()
        cross_entropy(model(images).softmax(1), labels).backward()
        loop.optimizer.step()

    loop.step = step  # type: ignore[assignment, method-assign]
    return loop, data


def in_train_mode(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.train()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def evaluation_with_dropout(data: Data) -> tuple[MyLoop, Data]:
    return MyLoop(mlp(dropout=nn.Dropout(0.2)), evaluate=in_train_mode), data


def evaluation_with_batch_statistics(data: Data) -> tuple[MyLoop, Data]:
    return MyLoop(conv(), evaluate=in_train_mode), data


def leaked_test_set(data: Data) -> tuple[MyLoop, Data]:
    images, labels, val_images, val_labels = data
    return MyLoop(mlp()), (torch.cat((images, val_images)), torch.cat((labels, val_labels)), val_images, val_labels)


def constant_input(data: Data) -> tuple[MyLoop, Data]:
    images, labels, val_images, val_labels = data
    return MyLoop(mlp()), (images[:1].expand_as(images), labels, images[:1].expand_as(val_images), val_labels)


def input_blanked_in_the_step(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())
    right = loop.step
    loop.step = lambda model, images, labels: right(model, images * 0, labels)  # type: ignore[method-assign]
    return loop, data


PLANTED = [
    (dead_relu, "dead units"),
    (no_zero_grad, "training step"),
    (lr_times_100, "learning rate"),
    (shuffled_labels, "labels"),
    (labels_shuffled_in_the_step, "labels"),
    (not_normalised, "input scale"),
    (frozen_layer, "frozen layers"),
    (layer_left_out_of_the_optimizer, "frozen layers"),
    (zero_init, "symmetry"),
    (constant_init, "symmetry"),
    (exploding_init, "initial loss"),
    (network_with_softmax, "softmax"),
    (softmax_in_the_step, "softmax"),
    (evaluation_with_dropout, "evaluation"),
    (evaluation_with_batch_statistics, "evaluation"),
    (leaked_test_set, "leak"),
    (constant_input, "distinct images"),
    (input_blanked_in_the_step, "uses its input"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("plant", "name"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_fault_is_found_by_name(plant: Callable[[Data], tuple[MyLoop, Data]], name: str, seed: int, digits: Data) -> None:
    """A15, B5, C3, F7: the check that is meant for it says `fault`, with advice, whatever the seed."""
    torch.manual_seed(seed)
    loop, data = plant(digits)
    found = loop.health(data, seed=seed)
    assert found[name].verdict == "fault", found[name]
    assert found[name].advice
    assert json.loads(json.dumps(found.to_json()))["checks"]
