"""Lines 6 and 7: a grid of small networks as one program, against one after the other and against those who also train many at once.

`python -m benchmarks.lanes [--force] [--peers loop,vmap,modelbatch,jax] [--pairs N] [--cases h16,...]`. Line 6: MLPs 784-H-10 on MNIST, SGD
with momentum, a learning rate and a start of its own in each. Ours is an epoch as a study trains it, with everything: run folders, a row of
each step of each network, checkpoints. The others keep losses and accuracies in memory: `loop` is the plain PyTorch loop on tensors, one
network after the other (two are timed), `vmap` is torch.func over stacked weights, `modelbatch` the library of that name, `jax`
jit(vmap(grad)). Line 7: 16 LeNets on CIFAR-10, against `solo`, firstlight's own step one network after the other, and vmap.
All get the same images in the same order from memory; a count is one step of one network. Guard: the loss of the first and the last
network behind some steps. The limit is the matrix products of all networks alone.
"""

import argparse
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import firstlight as fl
from benchmarks.pairs import Measured, equal_within, limit_share, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.turns import Turns
from firstlight.data.build import LastData
from firstlight.data.places import data_dir_of
from firstlight.engine.lanes import AnyLanes, GroupKey, group_key, make_lanes, time_both, train_lanes
from firstlight.engine.step import train_step
from firstlight.engine.train import prepare
from firstlight.models.build import build_model
from firstlight.tracking.console import Console

MOMENTUM = 0.9
GUARD_STEPS = 20
"""Steps behind which losses are compared."""
PEER_STEPS = 60
"""Steps of a turn of those who keep nothing for longer."""


@dataclass(frozen=True)
class Case:
    """One grid. needs: what is asked of each peer's ratio."""

    what: str
    source: str
    settings: tuple[tuple[str, ...], ...]
    """Of each network, beside those that all have."""
    common: tuple[str, ...]
    needs: dict[str, Row]

    def configs(self) -> list[fl.Config]:
        """Return the experiment of each network."""
        fixed = ("schedule=constant", "train.epochs=1", "split.val_fraction=0", "order_seed=0", "device.threads=1")
        optim = ("optim.name=sgd", f"optim.momentum={MOMENTUM}")
        return [fl.load_config(self.source, *fixed, *optim, *self.common, *own) for own in self.settings]


def _grid(widths: list[int], num_lrs: int, num_starts: int) -> tuple[tuple[str, ...], ...]:
    lrs, starts = [10 ** (-4 + 3 * place / max(1, num_lrs - 1)) for place in range(num_lrs)], range(num_starts)
    return tuple(
        (f"model.hidden=[{width}]", f"optim.lr={lr:.6g}", f"init_seed={start}") for width in widths for lr in lrs for start in starts
    )


MNIST = ("model.name=mlp", "split.num_train=48000", "train.drop_last=true")
OF_128 = (*MNIST, "train.batch_size=128")
CASES = {
    "h16": Case(
        "10 x 10 MLPs, H=16, batch 32", "mnist_mlp", _grid([16], 10, 10), (*MNIST, "train.batch_size=32"),
        {"loop": {"least": 8, "aim": 11}, "vmap": {"least": 2.5}, "modelbatch": {"least": 3}, "jax": {"least": 1}},
    ),
    "h32": Case("10 x 10 MLPs, H=32, batch 128", "mnist_mlp", _grid([32], 10, 10), OF_128, {"loop": {"least": 2.5}}),
    "h256": Case("4 x 4 MLPs, H=256, batch 128", "mnist_mlp", _grid([256], 4, 4), OF_128, {"loop": {"least": 1.1}}),
    "widths": Case(
        "MLPs of H=1, 2, 4, ..., 1024, 2000, batch 128", "mnist_mlp", _grid([*(2**power for power in range(11)), 2000], 1, 1),
        OF_128, {"loop": {"least": 1}},
    ),
    "lenet": Case(
        "16 LeNets on CIFAR-10, batch 128", "lenet",
        tuple((f"optim.lr={0.002 + 0.002 * place}", f"init_seed={place}") for place in range(16)),
        ("split.num_train=5120", "train.drop_last=true", "train.batch_size=128"),
        {"solo": {"least": 1.5}, "vmap": {"least": 3}},
    ),
}  # fmt: skip
NAMES = {
    "loop": "a plain PyTorch loop in memory", "vmap": "torch.func vmap", "modelbatch": "modelbatch", "jax": "jax jit(vmap)",
    "solo": "firstlight, one after the other",
}  # fmt: skip


def main() -> None:
    """Measure, print, and write results/lanes_CASE.json; or be the arm that --arm names."""
    words = parser(__doc__, tuple(NAMES))
    words.add_argument("--arm", help=argparse.SUPPRESS)
    words.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    words.add_argument("--cases", default=",".join(CASES), help=f"some of {','.join(CASES)}")
    arguments = words.parse_args()
    if arguments.arm:
        be_arm(arguments.arm, CASES[arguments.case], arguments.threads)
        return
    start, python = ready_to_measure(arguments), str(require_peers())
    for name in arguments.cases.split(","):
        case = CASES[name]
        arguments.all_peers = [peer for peer in NAMES if peer in case.needs]
        peers = [peer for peer in arguments.peers if peer in case.needs]

        def command(arm: str, name: str = name) -> list[str]:
            return [python, "-m", "benchmarks.lanes", "--arm", arm, "--case", name, "--threads", str(arguments.threads)]

        measured = measure(
            command,
            peers,
            num_pairs=arguments.pairs,
            threads=arguments.threads,
            check=lambda ours, theirs: equal_within(ours, theirs, tolerance=1e-3),
            limit="products" if name != "lenet" else None,
        )
        line, words_of = ("7", "lenet") if name == "lenet" else ("6", name)
        part = argparse.Namespace(**{**vars(arguments), "peers": peers})
        title, said = f"Line {line}: {case.what}, as one program", f"python -m benchmarks.lanes --cases {words_of}"
        record(f"lanes_{name}", title, said, rows_of(measured, case), measured, part, start)


def rows_of(measured: dict[str, Measured], case: Case) -> list[Row]:
    """Return our cost a network's step with its share of the limit, then each peer's and the ratio."""
    rows: list[Row] = []
    if "products" in measured:
        one = measured["products"]
        rows.append(
            row(f"{case.what}: firstlight, a network's step", [1e6 * cost for cost in one.pairs().ours], "us", limit=limit_share(one))
        )
    for arm, needed in case.needs.items():
        if arm in measured:
            one = measured[arm]
            rows.append(row(f"{case.what}: {NAMES[arm]}, a network's step", [1e6 * cost for cost in one.pairs().theirs], "us"))
            rows.append(row(f"{case.what}: firstlight over {NAMES[arm]}", one.pairs().times_faster, "x", guard=one.guard, **needed))
    return rows


@dataclass(frozen=True)
class Work:
    """What an arm trains: the networks, and the batches of the first epoch in memory, float32 [S, B, C, H, W] and int64 [S, B]."""

    configs: list[fl.Config]
    images: Tensor
    labels: Tensor

    @property
    def num(self) -> int:
        """Networks."""
        return len(self.configs)

    def network(self, place: int) -> Any:
        """Return a network with the weights with which every arm begins."""
        config = self.configs[place]
        channels, height, width = self.images.shape[2:]
        return build_model(config.model, (channels, height, width), 10, config.init_seed or 0)

    def lr(self, place: int) -> float:
        """Return the learning rate of a network."""
        return float(self.configs[place].optim.options["lr"])

    def said(self, first: float, last: float) -> dict[str, float]:
        """Return the guard: losses of the first and the last network."""
        return {"first_network_loss": first, "last_network_loss": last}


def be_arm(name: str, case: Case, threads: int) -> None:
    """Train steps of all networks a repetition."""
    turns = Turns()
    torch.set_num_threads(threads)
    configs = case.configs()
    loader = prepare(configs[0], data_dir_of(None)).setup.train_loader
    batches = [(batch.images.clone(), batch.labels) for batch in loader.batches(0)]
    work = Work(configs, torch.stack([images for images, _ in batches]), torch.stack([labels for _, labels in batches]))
    ARMS[name](work, turns)


def firstlight(work: Work, turns: Turns) -> None:
    """A study's way: an epoch with run folders, rows of every step and checkpoints; in programs of the size that a timing chooses."""
    key = group_key(work.configs[0])
    assert isinstance(key, GroupKey)
    times = time_both(work.configs, data_dir_of(None))
    parts = [work.configs[first : first + times.num_lanes] for first in range(0, work.num, times.num_lanes)]

    with tempfile.TemporaryDirectory() as place:
        for turn in count():
            turns.begin()
            shutil.rmtree(Path(place) / f"{turn - 1}", ignore_errors=True)  # a study deletes nothing, so this is not timed
            turns.restart()
            load = LastData()  # as a study reads its data, once for all programs
            for number, part in enumerate(parts):
                paths = [Path(place) / f"{turn}" / f"{number}-{lane}" for lane in range(len(part))]
                train_lanes(part, paths, Console(quiet=True), data_dir_of(None), threads=times.threads, load=load)
            turns.end(work.num * len(work.images), guard=lambda: guard_of_lanes(work), lanes=times.num_lanes)


def guard_of_lanes(work: Work) -> dict[str, float]:
    """Return the losses of fresh lanes behind some steps."""
    states = [prepare(work.configs[place], data_dir_of(None)).state for place in (0, work.num - 1)]
    lanes: AnyLanes = make_lanes([work.configs[0], work.configs[-1]], states, 10)
    rates = torch.tensor([work.lr(0), work.lr(work.num - 1)])
    with torch.no_grad():
        for number in range(GUARD_STEPS):
            figures = lanes.step(work.images[number], work.labels[number], rates, seeds=(0, 0, number))
    return work.said(float(figures.loss[0]), float(figures.loss[1]))


def loop(work: Work, turns: Turns) -> None:
    """The plain PyTorch loop on tensors in memory, two of the networks one after the other."""

    def train(place: int, num_steps: int) -> float:
        network = work.network(place)
        optimizer = torch.optim.SGD(network.parameters(), lr=work.lr(place), momentum=MOMENTUM)
        losses, accuracies = [], []
        for images, labels in zip(work.images[:num_steps], work.labels[:num_steps], strict=True):
            optimizer.zero_grad()
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            accuracies.append((logits.argmax(1) == labels).float().mean().item())
        return losses[-1]

    def repetition() -> int:
        places = (0, work.num - 1) if len({str(config.model) for config in work.configs}) == 1 else range(work.num)
        for place in places:
            train(place, len(work.images))
        return len(places) * len(work.images)

    turns.repeat(repetition, lambda: work.said(train(0, GUARD_STEPS), train(work.num - 1, GUARD_STEPS)))


def solo(work: Work, turns: Turns) -> None:
    """firstlight's own step, one network after the other, in the arithmetic that it settles on: the best that a sequence can do."""
    from firstlight.data.loader import Batch

    def train(place: int, num_steps: int) -> float:
        prepared = prepare(work.configs[place], data_dir_of(None))
        prepared.state.model.train()
        results = [
            train_step(prepared.state, Batch(images, labels, labels), prepared.setup, share=1.0, lr=work.lr(place))
            for images, labels in zip(arranged(prepared)[:num_steps], work.labels[:num_steps], strict=True)
        ]
        return float(results[-1].loss)

    def arranged(prepared: Any) -> Any:
        last = prepared.setup.arithmetic.channels_last
        return [images.contiguous(memory_format=torch.channels_last) if last else images for images in work.images]

    prepared = prepare(work.configs[0], data_dir_of(None))
    prepared.state.model.train()
    images = arranged(prepared)

    def repetition() -> int:
        with prepared.setup.arithmetic.on_threads():
            for one, labels in zip(images, work.labels, strict=True):
                train_step(prepared.state, Batch(one, labels, labels), prepared.setup, share=1.0, lr=work.lr(0))
        return len(work.images)

    turns.repeat(repetition, lambda: work.said(train(0, GUARD_STEPS), train(work.num - 1, GUARD_STEPS)))


def vmap(work: Work, turns: Turns) -> None:
    """torch.func: stacked weights, vmap over the gradient, one momentum step on the stacks."""
    from torch.func import functional_call, grad_and_value, stack_module_state
    from torch.func import vmap as over

    networks = [work.network(place) for place in range(work.num)]
    skeleton = work.network(0).to("meta")

    def loss_of(weights: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(skeleton, weights, (images,))
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    gradients_of = over(grad_and_value(loss_of, has_aux=True), in_dims=(0, None, None))
    rates = torch.tensor([work.lr(place) for place in range(work.num)])

    def train(num_steps: int) -> Tensor:
        weights = {name: value.detach().clone() for name, value in stack_module_state(networks)[0].items()}
        velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
        losses, hits = [], []
        for images, labels in zip(work.images[:num_steps], work.labels[:num_steps], strict=True):
            gradients, (loss, recognised) = gradients_of(weights, images, labels)
            for name, value in weights.items():
                velocity[name].mul_(MOMENTUM).add_(gradients[name])
                value.sub_(rates.view(-1, *(1 for _ in value.shape[1:])) * velocity[name])
            losses.append(loss)
            hits.append(recognised)
        return torch.stack(losses)[-1]

    steps = min(PEER_STEPS, len(work.images))

    def repetition() -> int:
        train(steps)
        return work.num * steps

    turns.repeat(repetition, lambda: work.said(*train(GUARD_STEPS)[[0, -1]].tolist()))


def modelbatch(work: Work, turns: Turns) -> None:
    """modelbatch 0.1.0 as its documentation has it: ModelBatch, OptimizerFactory, compute_loss."""
    from modelbatch import ModelBatch
    from modelbatch.optimizer import OptimizerFactory

    def train(num_steps: int) -> list[float]:
        batch = ModelBatch([work.network(place) for place in range(work.num)])
        factory = OptimizerFactory(torch.optim.SGD, {"lr": 0.1, "momentum": MOMENTUM})
        optimizer = factory.create_optimizer(batch, [{"lr": work.lr(place)} for place in range(work.num)])
        losses = []
        for images, labels in zip(work.images[:num_steps], work.labels[:num_steps], strict=True):
            optimizer.zero_grad()
            loss = batch.compute_loss(batch(images), labels, F.cross_entropy)
            loss.backward()
            optimizer.step()
            losses.append(batch.latest_losses)
        found: list[float] = losses[-1].tolist()
        return found

    steps = min(PEER_STEPS, len(work.images))

    def repetition() -> int:
        train(steps)
        return work.num * steps

    def guard() -> dict[str, float]:
        found = train(GUARD_STEPS)
        return work.said(found[0], found[-1])

    turns.repeat(repetition, guard)


def jax(work: Work, turns: Turns) -> None:
    """jax: one compiled step of all MLPs, buffers donated; compiled in the warm-up."""
    import os

    if torch.get_num_threads() == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax as jx
    import jax.numpy as jnp

    networks = [work.network(place).state_dict() for place in range(work.num)]
    start = {name: jnp.stack([jnp.asarray(one[name].numpy()) for one in networks]) for name in networks[0]}
    rates = jnp.asarray([work.lr(place) for place in range(work.num)])
    images = [jnp.asarray(one.flatten(1).numpy()) for one in work.images]
    labels = [jnp.asarray(one.numpy()) for one in work.labels]

    def loss_of(weights: Any, pixels: Any, targets: Any) -> Any:
        hidden = jx.nn.relu(pixels @ weights["linear1.weight"].T + weights["linear1.bias"])
        logits = hidden @ weights["linear2.weight"].T + weights["linear2.bias"]
        chosen = jnp.take_along_axis(jx.nn.log_softmax(logits), targets[:, None], 1)
        return -chosen.mean(), (logits.argmax(1) == targets).sum()

    def step_one(weights: Any, velocity: Any, rate: Any, pixels: Any, targets: Any) -> Any:
        (loss, hits), gradients = jx.value_and_grad(loss_of, has_aux=True)(weights, pixels, targets)
        velocity = jx.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradients)
        return jx.tree.map(lambda w, v: w - rate * v, weights, velocity), velocity, loss, hits

    step = jx.jit(jx.vmap(step_one, in_axes=(0, 0, 0, None, None)), donate_argnums=(0, 1))

    def train(num_steps: int) -> list[float]:
        weights, velocity = jx.tree.map(jnp.copy, start), jx.tree.map(jnp.zeros_like, start)
        losses = []
        for pixels, targets in zip(images[:num_steps], labels[:num_steps], strict=True):
            weights, velocity, loss, _ = step(weights, velocity, rates, pixels, targets)
            losses.append(loss)
        found: list[float] = losses[-1].tolist()
        return found

    steps = min(5 * PEER_STEPS, len(images))

    def repetition() -> int:
        train(steps)
        return work.num * steps

    def guard() -> dict[str, float]:
        found = train(GUARD_STEPS)
        return work.said(found[0], found[-1])

    turns.repeat(repetition, guard)


def products(work: Work, turns: Turns) -> None:
    """The matrix products that the steps of all MLPs cannot do without, at the rate of a large product on this machine."""
    size = 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    batch, pixels = work.images.shape[1], math.prod(work.images.shape[2:])
    sizes = [(pixels, *config.model.options["hidden"], 10) for config in work.configs]
    multiply_adds = sum(batch * (2 * one[0] * one[1] + 3 * one[1] * one[2]) for one in sizes)

    def repetition() -> float:
        for _ in range(10):
            left @ right
        count: float = work.num * 10 * size**3 / multiply_adds
        return count

    turns.repeat(repetition)


ARMS: dict[str, Callable[[Work, Turns], None]] = {
    "firstlight": firstlight, "loop": loop, "solo": solo, "vmap": vmap, "modelbatch": modelbatch, "jax": jax, "products": products,
}  # fmt: skip


if __name__ == "__main__":
    main()
