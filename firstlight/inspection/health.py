"""What a careful practitioner checks before and after a training, on any PyTorch loop, an experiment or a run.

Each check is a function in checks/ that returns a verdict; docs/health.md explains them. Reading order: check_health, examine, health_of.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firstlight.config.schema import Config
from firstlight.data.build import load_training_data, make_loader
from firstlight.data.dataset import Dataset
from firstlight.data.loader import Batch, Loader
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import eval_mode, evaluate_model
from firstlight.engine.finished import spread
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import load_model
from firstlight.engine.sources import load_config
from firstlight.engine.state import TrainState
from firstlight.engine.step import train_step
from firstlight.engine.train import Prepared, prepare
from firstlight.errors import CheckpointError, ConfigError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.inspection.checks import data, history, learning, loop, network
from firstlight.inspection.checks.check import Check, not_applicable
from firstlight.inspection.opened import Opened, opened
from firstlight.inspection.trials import (
    NUM_PROBED,
    ONE_BATCH,
    Evaluate,
    Loop,
    Step,
    Trial,
    gradients_of_loss,
    named_parameters,
    on_constant_images,
    on_one_batch,
    on_shuffled_labels,
    train,
)
from firstlight.inspection.units import dead_shares
from firstlight.plotting.health import plot_health
from firstlight.tracking.run import has_run
from firstlight.tracking.table import print_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORSE = ("fault", "warning")
CAUSES = (
    "training step", "softmax", "evaluation", "leak", "distinct images", "labels", "symmetry", "frozen layers", "initial loss",
    "input scale", "learning rate", "dead units", "gradients",
)  # fmt: skip
"""Checks that point at one mistake, the surest first; the others show what comes of it."""
STEPS, FEWEST_STEPS = 150, 40
"""Steps of a trial, and how few they become for a network that is slow."""
WORK = 4e11
"""Floating-point operations that the trials of an experiment may take together; all of `firstlight inspect health quickstart` took 26 s of
one EPYC core (user time, with the libraries' import and the pictures)."""
NUM_TRIALS = 6
LR_TRIALS = {0.01: "lr / 100", 0.1: "lr / 10", 10.0: "lr x 10", 100.0: "lr x 100", 1000.0: "lr x 1000"}
MAX_IMAGES, MAX_VAL_IMAGES = 4096, 1024
"""Images that the trials learn from, and those that judge them."""
MAX_VALUES = 2**26
"""Values of those images, 256 MiB in float32."""
HELD_OUT = 0.2
"""Share of the training images that the trials keep apart where an experiment has no validation."""


@dataclass(frozen=True)
class Health:
    """The verdicts of all checks, and the curves of the trials: losses by step, under the names of the trials."""

    checks: tuple[Check, ...]
    curves: dict[str, dict[str, list[float]]]
    chance: float
    """ln(classes), the loss of guessing."""

    @property
    def says(self) -> str:
        """The finding in one sentence: what is likeliest the cause first, and what else stands out by name."""
        bad = sorted((check for check in self.checks if check.verdict in WORSE), key=_likely_cause)
        asked = sum(check.verdict != "not applicable" for check in self.checks)
        if not bad:
            return f"all {asked} checks are passed"
        counts = [(sum(check.verdict == word for check in bad), word) for word in WORSE]
        said = " and ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counts if count)
        also = f" (and {', '.join(check.name for check in bad[1:])})" if bad[1:] else ""
        return f"{said} in {asked} checks; first look at {bad[0].name}: {bad[0].says}{also}"

    def __getitem__(self, name: str) -> Check:
        """Return the check of a name."""
        return next(check for check in self.checks if check.name == name)

    @property
    def findings(self) -> dict[str, str]:
        """The verdicts that are not `ok` or `not applicable`, by the name of the check."""
        return {check.name: check.verdict for check in self.checks if check.verdict in WORSE}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"says": self.says, "checks": [check.to_json() for check in self.checks], "curves": self.curves, "ln_classes": self.chance}

    def figure(self, title: str = "") -> "Figure":
        """Return the picture: initial loss, one batch, gradients, updates and dead units by layer, and the trials."""
        return plot_health(self.to_json(), title=f"{title}{': ' if title else ''}{self.says}")

    def print(self) -> None:
        """Print the table and the advice."""
        print_checks(self.to_json())


def check_health(
    model: Any,
    train_images: Tensor,
    train_labels: Tensor,
    val_images: Tensor,
    val_labels: Tensor,
    *,
    step: Step,
    evaluate: Evaluate,
    optimizer: torch.optim.Optimizer | None = None,
    batch_size: int = 64,
    num_steps: int = STEPS,
    num_classes: int | None = None,
    frozen: Sequence[str] = (),
    seed: int = 0,
) -> Health:
    """Return what is wrong with a training loop of your own; network, optimizer and random generators stay as they were.

    images: float32 [N, C, H, W] or [N, D] as the network sees them; labels: int64 [N]. step(model, images, labels) learns from one
    batch, as the loop does it; evaluate(model, images, labels) returns the accuracy, 0 to 1. optimizer: the one that `step` uses; without
    it the checks that look at it are left out. frozen: names of layers that are not to be trained. Hand over an untrained network.
    Raises ConfigError for images and labels that do not fit.
    """
    for part, images, labels in (("train", train_images, train_labels), ("val", val_images, val_labels)):
        if images.ndim < 2 or labels.shape != images.shape[:1] or not len(images):
            raise ConfigError(
                f"{part}: images have shape {list(images.shape)} and labels {list(labels.shape)}; give one label an image, and one or more"
            )
        if not images.is_floating_point() or labels.dtype != torch.int64:
            raise ConfigError(
                f"{part}: images are {images.dtype} and labels {labels.dtype}; give images as the network sees them, such as float32, and "
                f"labels as int64"
            )
    if num_steps < 10:
        raise ConfigError(f"num_steps is {num_steps}, which shows nothing; take 10 or more")
    return examine(
        Loop(
            model,
            optimizer,
            step,
            evaluate,
            train_images,
            train_labels,
            val_images,
            val_labels,
            num_classes or int(max(train_labels.max(), val_labels.max())) + 1,
            min(batch_size, len(train_images)),
            num_steps,
            seed,
            tuple(frozen),
        ),
        pixels=(train_images, val_images),
    )


def examine(subject: Loop, *, pixels: tuple[Tensor, Tensor], split: str = "val") -> Health:
    """Return the verdicts on a loop. pixels: all images of the training part and of the part that judges it, to look for twins.

    Raises ConfigError for fewer than two classes.
    """
    if subject.num_classes < 2:
        raise ConfigError("there is only one class, so nothing is to be learned; give images of two classes or more")
    seen = loop.check_step(subject)
    with subject.untouched():
        start = float(subject.losses(subject.train_images[:NUM_PROBED], subject.train_labels[:NUM_PROBED]).mean())
        gradients = gradients_of_loss(subject, *subject.batch(0), seed=0)
        dead = _dead_in_training(subject)
    after: dict[str, dict[str, float]] = {}

    def look() -> None:
        finite = all(bool(value.isfinite().all()) for value in subject.model.parameters())
        after["dead"] = _dead_in_training(subject) if finite else {}
        after["copies"] = network.copies_of(subject)

    one = train(on_one_batch(subject), until=learning.BY_HEART * subject.chance / 10)
    real, constant, shuffled = train(subject, look=look), train(on_constant_images(subject)), train(on_shuffled_labels(subject))
    trials = {"real images": real, "constant images": constant, "shuffled labels": shuffled}
    by_lr = {1.0: real}
    if subject.optimizer is not None:
        by_lr |= {factor: train(subject, lr_scale=factor) for factor in (0.1, 10.0)}
        if all(learning.progress(subject, by_lr[factor]) < learning.SOME for factor in (0.1, 1.0)):
            by_lr[0.01] = train(subject, lr_scale=0.01)
        for factor in (100.0, 1000.0):
            if all(learning.progress(subject, trial) < learning.SOME for trial in by_lr.values()):
                by_lr[factor] = train(subject, lr_scale=factor)
    trials |= {LR_TRIALS[factor]: trial for factor, trial in by_lr.items() if factor != 1.0}
    probed = min(NUM_PROBED, len(subject.train_labels))
    checks = (
        data.check_input(subject),
        data.check_distinct(subject),
        data.check_leak(*pixels, split=split),
        network.check_initial_loss(subject, start),
        network.check_gradients(subject, gradients),
        seen.check,
        seen.softmax,
        loop.check_evaluation(subject),
        learning.check_overfit(subject, one, min(ONE_BATCH, len(subject.train_labels))),
        learning.check_learning(subject, real),
        learning.check_uses_input(subject, real, constant),
        learning.check_labels(subject, real, shuffled, one, seen.off_course),
        learning.check_lr(subject, by_lr),
        network.check_updates(real, subject.frozen),
        network.check_frozen(subject, real),
        network.check_dead_units(dead, after["dead"]),
        network.check_symmetry(after["copies"]),
        data.check_plausible(real, probed, len(subject.val_labels)),
    )
    return Health(checks, {name: _curve(trial) for name, trial in ({"one batch": one} | trials).items()}, subject.chance)


def _dead_in_training(subject: Loop) -> dict[str, float]:
    """Return the dead shares as training sees them: with the statistics of a batch, which are not behind."""
    with subject.untouched():
        subject.model.train()
        return dead_shares(subject.model, subject.forward, subject.train_images[: 4 * NUM_PROBED].split(128))


def _likely_cause(check: Check) -> tuple[int, int]:
    """Order findings: faults first, and among them causes ahead of what comes of them."""
    return WORSE.index(check.verdict), CAUSES.index(check.name) if check.name in CAUSES else len(CAUSES)


def _curve(trial: Trial) -> dict[str, list[float]]:
    return {"steps": list(trial.steps), "losses": list(trial.losses)}


def inspect_health(
    source: str | Path,
    *overrides: str,
    split: str = "val",
    num_steps: int | None = None,
    out: Path = Path("inspection"),
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Check an experiment (a few short trainings, no run folder) or a run, write JSON and pictures, and return the figures.

    source: a run, or the name or the file of an experiment; overrides: settings of an experiment. A run's verdicts go into its folder,
    and those of an experiment into `out`. num_steps: of each trial, else what takes seconds for small networks.
    """
    if num_steps is not None and num_steps < 10:
        raise ConfigError(f"--steps {num_steps} shows nothing; take 10 or more")
    folder = runs_dir_of(runs_dir)
    if has_run(source, folder) and overrides:
        raise ConfigError(f"{source} is a run, whose settings are fixed; leave out {overrides[0]}, or name a config file")
    if has_run(source, folder):
        return _health_of_run(source, split, num_steps, folder, data_dir)
    if split != "val":
        raise ConfigError(f"--split {split} needs a run, which records that it was looked at; an experiment is checked on val")
    config = load_config(source, *overrides)
    health = health_of(config, data_dir_of(data_dir), num_steps=num_steps)
    stem = make_dir(out) / f"health-{config.name}"
    files = write_pictures(stem, health.figure(config.name))
    found = {"experiment": config.name, "what": "health", "split": "val", **health.to_json()}
    found["files"] = [str(path) for path in (*files, stem.with_name(f"{stem.name}.json"))]
    write_json(stem.with_name(f"{stem.name}.json"), found)
    return found


def health_of(config: Config, data_dir: Path, *, num_steps: int | None = None, arithmetic: Arithmetic | None = None) -> Health:
    """Return the verdicts on an experiment; nothing is written. arithmetic: what it runs in, else what is fastest here."""
    with out_of_memory("building the network", "try a smaller one (its settings stand under `model`)"):
        prepared = prepare(config, data_dir, arithmetic=arithmetic)
    with prepared.setup.arithmetic.on_threads(), out_of_memory("trying the training", "try a smaller train.batch_size"):
        images = load_training_data(config, data_dir)
        val = images.train.images[:0] if images.val is None else images.val.images
        return examine(loop_of(config, prepared, images.val, num_steps=num_steps), pixels=(images.train.images, val))


def loop_of(config: Config, prepared: Prepared, val: Dataset | None, *, num_steps: int | None = None) -> Loop:
    """Return the training loop of an experiment on a sample of its training images and of `val`, with as many images in each step.

    The schedule is pressed into the steps of a trial. A network that needs much work gets smaller batches and fewer steps.
    """
    setup, state = prepared.setup, prepared.state
    state = TrainState(state.model, state.optimizer, state.schedule_state, step=setup.total_steps)  # behind `early_size`, and no average
    train_images, train_labels = sample(setup.train_loader)
    if val is not None:
        few = val.subset(spread(len(val), MAX_VAL_IMAGES))
        place: dict[str, Any] = {"device": setup.arithmetic.device, "channels_last": setup.arithmetic.channels_last}
        val_images, val_labels = sample(make_loader(few, config, prepared.data.normalize, **place))
    else:
        held = max(1, round(HELD_OUT * len(train_labels)))
        val_images, val_labels = train_images[:held], train_labels[:held]
        train_images, train_labels = train_images[held:], train_labels[held:]
    batch_size = min(config.train.batch_size, len(train_labels))
    work = 3 * prepared.facts["flops_per_image"] * NUM_TRIALS  # forward and backward are three forward passes
    if num_steps is None:
        batch_size = min(batch_size, max(ONE_BATCH, int(WORK / (work * STEPS))))
        num_steps = min(STEPS, max(FEWEST_STEPS, int(WORK / (work * batch_size))))
    layout = torch.channels_last if setup.arithmetic.channels_last else torch.contiguous_format

    def step(model: Any, images: Tensor, labels: Tensor) -> None:
        model.train()
        batch = Batch(images.contiguous(memory_format=layout), labels, labels)
        train_step(state, batch, setup, share=1.0, lr=state.optimizer.param_groups[0]["lr"])

    def forward(model: Any, images: Tensor) -> Tensor:
        with setup.arithmetic.autocast():
            return model(images.contiguous(memory_format=layout))  # type: ignore[no-any-return]

    def evaluate(model: Any, images: Tensor, labels: Tensor) -> float:
        with eval_mode(model):
            parts = images.split(NUM_PROBED), labels.split(NUM_PROBED)
            right = sum(int((forward(model, some).argmax(1) == theirs).sum()) for some, theirs in zip(*parts, strict=True))
        return right / max(len(labels), 1)

    epochs = config.train.epochs

    def factor(number: int, total: int) -> float:
        return float(
            setup.schedule.factor(number, total_steps=total, steps_per_epoch=max(1, total // epochs), state=setup.schedule.start())
        )

    return Loop(
        state.model,
        state.optimizer,
        step,
        evaluate,
        train_images,
        train_labels,
        val_images,
        val_labels,
        prepared.data.num_classes,
        batch_size,
        num_steps,
        config.seed,
        tuple(name for name, value in named_parameters(state.model) if not value.requires_grad),
        factor,
        forward,
    )


def sample(loader: Loader) -> tuple[Tensor, Tensor]:
    """Return the first images of a loader's first epoch as the network sees them, float32 [N, C, H, W], and their labels.

    At most MAX_IMAGES, and fewer where they would hold more than MAX_VALUES values.
    """
    images: list[Tensor] = []
    labels: list[Tensor] = []
    wanted = MAX_IMAGES
    for batch in loader.batches(0):
        wanted = min(wanted, max(loader.batch_size, MAX_VALUES // batch.images[0].numel()))
        images.append(batch.images)
        labels.append(batch.labels)
        if sum(map(len, labels)) >= wanted:
            break
    return torch.cat(images)[:wanted].contiguous(), torch.cat(labels)[:wanted]


def _health_of_run(source: str | Path, split: str, num_steps: int | None, runs_dir: Path, data_dir: str | Path | None) -> dict[str, Any]:
    with opened(source, "health", split=split, runs_dir=runs_dir, data_dir=data_dir, needs_model=False) as o:
        health = health_of(o.config, o.data_dir, num_steps=num_steps, arithmetic=o.arithmetic)
        checks = [*health.checks, *_checks_of_run(o)]
        if split == "test":
            checks = [check for check in checks if check.name != "leak"]
            checks.append(data.check_leak(o.training_images().images, o.dataset.images, split=split))
        health = replace(health, checks=tuple(checks))
        files = write_pictures(o.stem, health.figure(o.run.name))
        return o.keep(health.to_json(), files)


def _checks_of_run(o: Opened) -> list[Check]:
    """Return what the rows of a run and its saved network show."""
    run, epochs = o.run, o.run.epochs
    report = run.path / "nan_report.json"
    checks = [
        history.check_ending(run.info, run.state, epochs, json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None),
        history.check_curve(epochs, o.dataset.num_classes),
        history.check_gap(epochs),
        history.check_gradient_history(run.steps, clipped=o.config.train.clip_norm is not None),
    ]
    try:
        model = o.arithmetic.place(load_model(run))
    except CheckpointError as error:
        return [*checks, not_applicable("saved network", f"{error}")]
    num_classes, looks = o.dataset.num_classes, o.config.evaluation
    images = [batch.images for batch, _ in zip(o.loader().batches(0), range(2), strict=False)]
    found = evaluate_model(model, o.loader(), num_classes, o.arithmetic, looks)
    train = o.training_images()
    some = train.subset(spread(len(train), len(o.dataset)))
    on_train = evaluate_model(model, o.loader(some), num_classes, o.arithmetic, looks)
    recorded = {"val": run.summary.get("val_accuracy"), "test": run.summary.get("test_accuracy")}.get(o.split)
    checks.append(history.check_saved_units(dead_shares(model, lambda network, some: network(some), images)))
    checks.append(history.check_reproduced(recorded, found.accuracy, o.split, found.num_images))
    if o.split != "train":
        counts = on_train.num_images, found.num_images
        last = data.check_accuracies(on_train.accuracy, found.accuracy, *counts, when="of the saved network")
        checks.append(replace(last, name="held-out accuracy, saved"))
    return checks


MARKS = {"ok": "ok", "warning": "WARNING", "fault": "FAULT", "not applicable": "-"}


def print_checks(found: dict[str, Any]) -> None:
    """Print the table of verdicts, and the advice where something is wrong."""
    rows = [{"check": check["name"], "verdict": MARKS[check["verdict"]], "finding": check["says"]} for check in found["checks"]]
    print_table(rows, ("check", "verdict", "finding"))
    bad = [check for check in found["checks"] if check["advice"]]
    if bad:
        print("\nwhat to do")
        for check in bad:
            print(f"  {check['name']}: {check['advice']}")
    print(f"\n{found['says']}")
    for file in found.get("files", []):
        print(file)
