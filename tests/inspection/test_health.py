"""A15, F7, A16, C3, B5: `check_health` finds what was planted in plain PyTorch loops, and is silent where nothing was."""

import json
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import firstlight as fl
from firstlight.data.normalize import Normalize
from firstlight.errors import ConfigError
from firstlight.inspection.health import Health, check_health
from firstlight.models.scratch import ScratchMLP, sgd_step

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
        settings = {"num_steps": 60, "batch_size": 32, "optimizer": self.optimizer, **more}
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


def no_backward(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())

    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        loop.optimizer.zero_grad()
        cross_entropy(model(images), labels)
        loop.optimizer.step()

    loop.step = step  # type: ignore[assignment, method-assign]
    return loop, data


def no_step(data: Data) -> tuple[MyLoop, Data]:
    loop = MyLoop(mlp())

    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        loop.optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()

    loop.step = step  # type: ignore[assignment, method-assign]
    return loop, data


PLANTED = [
    (dead_relu, "dead units"),
    (no_zero_grad, "training step"),
    (lr_times_100, "learning rate"),
    (shuffled_labels, "labels"),
    (not_normalised, "input scale"),
    (frozen_layer, "frozen layers"),
    (zero_init, "symmetry"),
    (exploding_init, "initial loss"),
    (network_with_softmax, "softmax"),
    (evaluation_with_dropout, "evaluation"),
    (leaked_test_set, "leak"),
    (constant_input, "distinct images"),
]
"""The twelve, and below other ways to make the same mistakes."""
ALSO = [
    (labels_shuffled_in_the_step, "labels"),
    (layer_left_out_of_the_optimizer, "frozen layers"),
    (constant_init, "symmetry"),
    (softmax_in_the_step, "softmax"),
    (evaluation_with_batch_statistics, "evaluation"),
    (input_blanked_in_the_step, "uses its input"),
    (no_backward, "training step"),
    (no_step, "training step"),
]
CASES = [(plant, name, seed) for plant, name in PLANTED for seed in SEEDS] + [(plant, name, 0) for plant, name in ALSO]


@pytest.mark.parametrize(("plant", "name", "seed"), CASES, ids=[f"{plant.__name__}-{seed}" for plant, _, seed in CASES])
def test_a_planted_fault_is_found_by_name(plant: Callable[[Data], tuple[MyLoop, Data]], name: str, seed: int, digits: Data) -> None:
    """A15, B5, C3, F7: the check that is meant for it says `fault`, with advice, whatever the seed."""
    torch.manual_seed(seed)
    loop, data = plant(digits)
    found = loop.health(data, seed=seed)
    assert found[name].verdict == "fault", found[name]
    assert found[name].advice
    assert json.loads(json.dumps(found.to_json()))["checks"]


def test_a_loop_is_as_it_was_behind_the_checks(digits: Data) -> None:
    """Weights, buffers, the optimizer's memory and rates, gradients, mode and random numbers are those of before."""
    torch.manual_seed(0)
    loop = MyLoop(mlp(norm=nn.BatchNorm1d(32)))
    loop.step(loop.model, digits[0][:32], digits[1][:32])
    loop.model.eval()
    torch.manual_seed(5)
    before = [{key: value.clone() for key, value in loop.model.state_dict().items()}, [p.grad for p in loop.model.parameters()]]
    memory = [state["momentum_buffer"].clone() for state in loop.optimizer.state.values()]
    first = torch.rand(3)
    torch.manual_seed(5)
    loop.health(digits, num_steps=10)
    assert torch.equal(torch.rand(3), first)
    assert all(torch.equal(value, before[0][key]) for key, value in loop.model.state_dict().items())  # type: ignore[call-overload]
    assert all(p.grad is kept for p, kept in zip(loop.model.parameters(), before[1], strict=True))
    assert all(torch.equal(state["momentum_buffer"], kept) for state, kept in zip(loop.optimizer.state.values(), memory, strict=True))
    assert not any(layer.training for layer in loop.model.modules())
    assert [group["lr"] for group in loop.optimizer.param_groups] == [0.05]


def test_a_layer_in_a_mode_of_its_own_stays_in_it(digits: Data) -> None:
    """A frozen normalisation in eval mode within a network in training mode, as in fine-tuning."""
    loop = MyLoop(mlp(norm=nn.BatchNorm1d(32)))
    loop.model.get_submodule("norm").eval()
    loop.health(digits, num_steps=10)
    assert [name for name, layer in loop.model.named_modules() if not layer.training] == ["norm"]


def test_images_may_be_flat(digits: Data) -> None:
    """A course that begins with rows of pixels, [N, D]."""
    flat = (digits[0].flatten(1), digits[1], digits[2].flatten(1), digits[3])
    assert MyLoop(mlp()).health(flat)["input scale"].verdict == "ok"


def test_the_same_seed_gives_the_same_figures(digits: Data) -> None:
    torch.manual_seed(0)
    loop = MyLoop(mlp(dropout=nn.Dropout(0.5)))
    assert loop.health(digits, num_steps=10).to_json() == loop.health(digits, num_steps=10).to_json()


def test_a_loop_without_torch_nn_and_without_optimizer(digits: Data) -> None:
    """A5: raw tensors and a hand-written step are checked as far as they can be seen, and pass."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ScratchMLP((1, 8, 8), 10, hidden=(32,))

    def step(model: ScratchMLP, images: Tensor, labels: Tensor) -> None:
        cross_entropy(model(images), labels).backward()
        sgd_step(model.parameters(), 0.3)

    found = check_health(model, *digits, step=step, evaluate=accuracy, num_steps=60)  # type: ignore[arg-type]
    assert found.findings == {}
    assert {check.name for check in found.checks if check.verdict == "not applicable"} == {"training step", "softmax", "learning rate"}
    assert found["dead units"].figures["share_by_layer"].keys() == {"activation 1"}


def test_training_in_eval_mode_is_a_warning_and_a_network_handed_over_in_it_is_not(digits: Data) -> None:
    loop = MyLoop(mlp(dropout=nn.Dropout(0.2)))
    loop.model.eval()
    assert loop.health(digits, num_steps=10)["training step"].verdict == "ok"
    right = loop.step
    loop.step = lambda model, images, labels: right(model.eval(), images, labels)  # type: ignore[method-assign]
    found = loop.health(digits, num_steps=10)["training step"]
    assert found.verdict == "warning" and "trained in eval mode" in found.says


def test_layers_that_are_frozen_on_purpose_are_no_fault(digits: Data) -> None:
    loop, _ = frozen_layer(digits)
    assert loop.health(digits, frozen=["two"])["frozen layers"].verdict == "ok"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data[0], data[1][:-1], data[2], data[3]), r"train: images have shape \[800, 1, 8, 8\] and labels \[799\]; give one"),
        (lambda data: (data[0], data[1], data[2][:0], data[3][:0]), r"val: images have shape \[0, .*; give one label an image, and one"),
        (lambda data: (data[0].byte(), *data[1:]), r"train: images are torch\.uint8 and labels torch\.int64; give images as the network"),
        (lambda data: (*data[:3], data[3].float()), r"val: images are torch\.float32 and labels torch\.float32; .* labels as int64"),
        (lambda data: (data[0], data[1] * 0, data[2], data[3] * 0), "there is only one class, so nothing is to be learned; give images"),
    ],
)
def test_images_and_labels_must_fit(change: Callable[[Data], Data], message: str, digits: Data) -> None:
    with pytest.raises(ConfigError, match=message):
        MyLoop(mlp()).health(change(digits))


def test_an_evaluation_must_return_an_accuracy(digits: Data) -> None:
    loop = replace(MyLoop(mlp()), evaluate=lambda model, images, labels: 93.5)
    with pytest.raises(ConfigError, match=r"evaluate returned 93\.5, which is no accuracy; return the share of images that are right"):
        loop.health(digits)


def test_few_steps_show_nothing(digits: Data) -> None:
    with pytest.raises(ConfigError, match="num_steps is 3, which shows nothing; take 10 or more"):
        MyLoop(mlp()).health(digits, num_steps=3)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A8: the notebook cell of docs/health.md finds what it says it finds."""
    page = (Path(__file__).parents[2] / "docs" / "health.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["health"]["training step"].verdict == "fault"
    assert "first look at training step: gradients of earlier batches are still there" in capsys.readouterr().out.splitlines()[0]
