"""D1: every key is read by something. Each is set to another value, and the run must come out different, or say why it cannot."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import firstlight as fl
from firstlight.config.describe import to_dict
from firstlight.config.kinds import settings_of
from firstlight.config.load import SECTIONS
from firstlight.config.schema import Kind
from firstlight.engine.checkpoint import find_checkpoint
from firstlight.engine.sources import REGISTRIES
from firstlight.errors import FirstlightError
from firstlight.tracking.console import Bar, Console

Train = Callable[..., fl.Run]

OTHER = {
    "name": "another",
    "seed": "1",
    "init_seed": "1",
    "order_seed": "1",
    "split.val_fraction": "0.2",
    "split.seed": "1",
    "split.num_train": "100",
    "input.image_size": "12",
    "input.normalize": "none",
    "input.num_classes": "7",
    "input.whiten": "2",
    "augment.flip": "true",
    "augment.crop": "1",
    "augment.rotation": "20",
    "augment.color_jitter": "0.5",
    "augment.cutout": "3",
    "train.init_from": "nowhere.pt",
    "train.init_head": "new",
    "train.epochs": "3",
    "train.batch_size": "50",
    "train.drop_last": "true",
    "train.accumulate": "2",
    "train.clip_norm": "0.01",
    "train.label_smoothing": "0.1",
    "train.freeze_norm_scale": "true",
    "train.early_size": "6",
    "train.early_share": "0.2",
    "train.ema_decay": "0.9",
    "train.monitor": "val_loss",
    "train.patience": "1",
    "train.on_divergence": "rollback",
    "train.log_every": "1",
    "train.test_at_end": "true",
    "evaluation.views": "mirror",
    "evaluation.views_below": "0.5",
    "checkpoint.every": "2",
    "checkpoint.every_steps": "1",
    "checkpoint.keep_last": "4",
    "checkpoint.keep_every": "1",
    "device.name": "cuda",
    "device.precision": "bfloat16",
    "device.memory_format": "channels_last",
    "device.threads": "2",
    "device.wait_seconds": "5",
    "device.graph": "true",
    "tracking.tensorboard": "true",
    "tracking.wandb": "offline",
    "tracking.project": "another",
    "tracking.entity": "another",
    "tracking.wait_seconds": "5",
}
NEEDS = {
    "train.patience": ["optim.lr=1e-9", "train.epochs=5"],
    "train.monitor": ["optim.lr=1e-5"],
    "checkpoint.every": ["optim.lr=1e-9", "train.epochs=4"],
    "checkpoint.keep_last": ["optim.lr=1e-9", "train.epochs=4"],
    "checkpoint.keep_every": ["optim.lr=1e-9", "train.epochs=4"],
    "device.memory_format": ["model={name: small_cnn, widths: [4, 8]}"],
    "train.freeze_norm_scale": ["model={name: small_cnn, widths: [4, 8]}"],
    "train.early_size": ["model={name: small_cnn, widths: [4, 8]}"],
    "train.early_share": ["model={name: small_cnn, widths: [4, 8]}", "train.early_size=6"],
    "evaluation.views_below": ["evaluation.views=mirror"],
}
"""Settings beside which a key has something to decide."""
ELSEWHERE = ("name", "train.log_every", "device.wait_seconds", "train.init_head")
"""Keys that have tests of their own: here, in test_distributed.py and in test_init_from.py; tests/tracking has those of `tracking`."""


class Watcher(Console):
    """A console that notes which checkpoint is the last whenever an epoch's line is said, which is before that epoch's save."""

    def __init__(self, folder: Path) -> None:
        super().__init__(quiet=True)
        self.folder = folder
        self.seen: list[str | None] = []

    def line(self, text: str, *, style: str | None = None) -> None:
        pointer = self.folder / "checkpoints" / "last.json"
        if text.startswith("epoch"):
            self.seen.append(pointer.read_text() if pointer.exists() else None)


Seen = set[tuple[int, bool]]


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What networks ran in: the number of threads, and whether their filters lay in memory as NHWC and not as NCHW."""
    found: Seen = set()

    def look(module: torch.nn.Module, inputs: Any) -> None:
        filters = [weight for weight in module.parameters() if weight.ndim == 4]
        found.add((torch.get_num_threads(), any(not weight.is_contiguous() for weight in filters)))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    yield found
    handle.remove()


def outcome(run: fl.Run) -> Any:
    """Return what a run came to: figures, checkpoints, weights, openings of the test set; nothing that only repeats its config."""
    rows = [{key: value for key, value in row.items() if key not in ("seconds", "memory_mib")} for row in run.rows]
    checkpoints = sorted(path.name for path in (run.path / "checkpoints").glob("step-*"))
    best = find_checkpoint(run.path / "checkpoints", "best").name
    weights = {name: weight.tolist() for name, weight in fl.load_model(run).state_dict().items()}
    return rows, checkpoints, best, weights, len(run.info["test_openings"])


def test_two_runs_of_one_config_come_to_the_same(train: Train) -> None:
    """The control: where no key was set, nothing differs, or the tests below would show nothing."""
    assert outcome(train(name="one")) == outcome(train(name="another"))


def test_the_table_holds_every_fixed_key() -> None:
    tree = to_dict(fl.load_config("quickstart"))
    keys = {f"{section}.{key}" for section in SECTIONS for key in tree[section]} | {
        key for key, value in tree.items() if not isinstance(value, dict)
    }
    assert keys == set(OTHER)


@pytest.mark.parametrize("key", [key for key in OTHER if key not in ELSEWHERE and not key.startswith("tracking.")])
def test_a_fixed_key_changes_the_run_or_is_refused(train: Train, tmp_path: Path, seen: Seen, key: str) -> None:
    needs = NEEDS.get(key, [])
    before, after = Watcher(tmp_path / "runs" / "base"), Watcher(tmp_path / "runs" / "other")
    base = train(*needs, name="base", console=before)
    base_seen = set(seen)
    seen.clear()
    try:
        other = train(*needs, f"{key}={OTHER[key]}", name="other", console=after)
    except FirstlightError as error:
        assert key in str(error)
    else:
        assert (outcome(other), after.seen, seen) != (outcome(base), before.seen, base_seen)


def test_the_name_is_that_of_the_run_folder(train: Train, tmp_path: Path) -> None:
    train()
    assert fl.train(tmp_path / "small.yaml", "name=another", runs_dir=tmp_path, console=Console(quiet=True)).path.name.startswith(
        "another-"
    )


class Fetches(Console):
    """A console that counts how often the running loss reaches the bar."""

    num = 0

    @contextmanager
    def progress(self, what: str, total: int, *, done: int = 0) -> Iterator[Bar]:
        yield CountingBar(self)


class CountingBar(Bar):
    """Counts its updates."""

    def __init__(self, console: Fetches) -> None:
        super().__init__(None, None)
        self.console = console

    def update(self, done: int, now: str = "") -> None:
        self.console.num += 1


def test_the_log_period_is_read(train: Train) -> None:
    """A7: running loss and accuracy reach the screen every train.log_every steps, and at the end of each of the 2 epochs."""
    often, seldom = Fetches(quiet=True), Fetches(quiet=True)
    train("train.log_every=1", name="often", console=often)
    train("train.log_every=100", name="seldom", console=seldom)
    assert (often.num, seldom.num) == (14, 2)


def kind_settings(section: str) -> list[tuple[str, str]]:
    return [(name, key) for name, constructor in REGISTRIES[section].items() for key in settings_of(constructor)]


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    others = {"relu": "tanh", "none": "before", "cosine": "linear", "zeros": "xavier_uniform", "kaiming_uniform": "zeros", "max": "average"}
    others |= {"gelu": "relu", "all": "filters", "adamw": "sgd", "torch_default": "zeros"}
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return others[value]
    if isinstance(value, tuple):
        return (3,) * max(1, len(value))
    return value - 1 if isinstance(value, int) and value > 1 else (0.5 if value != 0.5 else 0.25)


@pytest.mark.parametrize(("name", "key"), kind_settings("model"))
def test_a_setting_of_a_model_changes_it(name: str, key: str) -> None:
    default = settings_of(REGISTRIES["model"][name])[key].default
    size = 70 if name == "alexnet" else 32
    plain, other = (fl.build_model(Kind(name, options), (3, size, size), 10, seed=0) for options in ({}, {key: changed(default)}))

    def described(model: Any) -> Any:
        return repr(model) if isinstance(model, torch.nn.Module) else "", [parameter.shape for parameter in model.parameters()]

    images = torch.rand(2, 3, size, size)
    assert described(plain) != described(other) or not torch.equal(plain.eval()(images), other.eval()(images))


@pytest.mark.parametrize(("name", "key"), kind_settings("optim"))
def test_a_setting_of_an_optimizer_changes_its_steps(name: str, key: str) -> None:
    default = settings_of(REGISTRIES["optim"][name])[key].default
    needed = {"momentum": 0.9} if key == "nesterov" and name == "sgd" else {}

    def weights(**options: Any) -> torch.Tensor:
        tensors = [torch.linspace(-1, 1, 12).view(3, 4).requires_grad_(), torch.ones(3, requires_grad=True)]
        optimizer = REGISTRIES["optim"][name](tensors, **needed, **options)
        for step in range(3):
            for tensor in tensors:
                tensor.grad = tensor.detach() * (step + 1) * 0.1 + 0.01
            optimizer.step()
        return torch.cat([tensor.detach().flatten() for tensor in tensors])

    assert not torch.equal(weights(), weights(**{key: changed(default)}))


@pytest.mark.parametrize(("name", "key"), kind_settings("schedule"))
def test_a_setting_of_a_schedule_changes_the_learning_rate(name: str, key: str) -> None:
    default = settings_of(REGISTRIES["schedule"][name])[key].default

    def factors(**options: Any) -> list[float]:
        schedule = REGISTRIES["schedule"][name](**options)
        state, found = schedule.start(), []
        for epoch in range(40):
            found += [schedule.factor(epoch * 2 + step, total_steps=80, steps_per_epoch=2, state=state) for step in range(2)]
            state = schedule.update(state, 1 - 0.01 * min(epoch, 3) - 0.001 * epoch)
        return found

    needed: dict[str, float] = {"every_epochs": 5} if name == "step" and key == "gamma" else {}
    if name == "plateau":
        needed = {"gamma": 0.25, "patience": 1, "threshold": 0.2, "least": 0.01}
        needed = {other: value for other, value in needed.items() if other != key}
        default = {**needed, "warmup_epochs": 0.0}.get(key, default)
    assert factors(**needed) != factors(**needed, **{key: 4.0 if key == "warmup_epochs" else changed(default)})
