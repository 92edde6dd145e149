"""All that a training holds and a resume needs, as one value; and what stays the same while it runs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from firstlight.config.schema import CheckpointConfig, EvaluationConfig, TrainConfig
from firstlight.data.loader import Loader
from firstlight.engine.device import Arithmetic
from firstlight.engine.distributed import Ranks


@dataclass(frozen=True)
class Best:
    """The best epoch so far by the monitored figure."""

    epoch: int
    step: int
    value: float
    figures: dict[str, float]
    """Losses and accuracies of that epoch."""


@dataclass
class TrainState:
    """Where a training stands. `epoch` epochs are done, and `batch` batches of the next one."""

    model: Any
    optimizer: torch.optim.Optimizer
    schedule_state: Any
    ema: Any = None
    epoch: int = 0
    batch: int = 0
    step: int = 0
    running: tuple[float, float] = (0.0, 0.0)
    """Summed loss and number of images recognised in the running epoch, as far as they were fetched."""
    best: Best | None = None
    stale_epochs: int = 0
    """Epochs since the best one."""
    lr_scale: float = 1.0
    """What the learning rate is multiplied by; halved at each roll-back."""
    rollbacks: int = 0
    """Times that training went back to a checkpoint because the numbers broke."""

    @property
    def evaluated_model(self) -> Any:
        """The model that validation and the test see: the moving average where one is kept."""
        return self.model if self.ema is None else self.ema


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a training needs and never changes."""

    train: TrainConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    train_loader: Loader
    val_loader: Loader | None
    schedule: Any
    base_lr: float
    order_seed: int
    arithmetic: Arithmetic
    num_classes: int
    graph: bool = False
    """Whether steps are captured as CUDA graphs."""
    pause_after: int | None = None
    """Epoch behind which training pauses, to be resumed; None goes on to the last one."""
    pause_when: Callable[[int, Mapping[str, float]], bool] | None = None
    """Asked behind each epoch, with its number and its figures, whether training pauses there."""
    ranks: Ranks | None = None
    """The processes that share each batch; None where this one trains alone."""
    steps_per_epoch: int = field(init=False)
    total_steps: int = field(init=False)
    autocast: AbstractContextManager[Any] = field(init=False)
    """Where each forward pass runs; made once, since to make one takes as long as to enter it."""
    one: Tensor = field(init=False)
    """float32 scalar 1 on the device: what a loss counts whose batch is a whole step."""

    def __post_init__(self) -> None:
        steps = -(-self.train_loader.num_batches // self.train.accumulate)
        object.__setattr__(self, "steps_per_epoch", steps)
        object.__setattr__(self, "total_steps", steps * self.train.epochs)
        object.__setattr__(self, "autocast", self.arithmetic.autocast())
        object.__setattr__(self, "one", torch.ones((), device=self.train_loader.labels.device))

    @property
    def last_epoch(self) -> int:
        """The epoch with which this process ends; schedules reckon with all of them."""
        return self.train.epochs if self.pause_after is None else min(self.pause_after, self.train.epochs)

    def lr(self, state: TrainState) -> float:
        """Return the learning rate of the next optimizer step."""
        return self.base_lr * self.factor(state.step, state.schedule_state) * state.lr_scale

    def factor(self, step: int, schedule_state: Any) -> float:
        """Return what the schedule multiplies the learning rate of the step behind `step` others by."""
        factor: float = self.schedule.factor(step, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch, state=schedule_state)
        return factor

    def image_size(self, step: int) -> int | None:
        """Return the pixels square that the optimizer step behind `step` others sees; None where images stay as they are."""
        return self.train.early_size if step < self.train.early_share * self.total_steps else None

    def batches_of_step(self, step: int) -> range:
        """Return which batches of its epoch an optimizer step (the first is 1) was made of."""
        first = (step - 1) % self.steps_per_epoch * self.train.accumulate
        return range(first, min(first + self.train.accumulate, self.train_loader.num_batches))

    def num_images(self, batch: int) -> int:
        """Return how many images a batch of the epoch has, over all processes."""
        return min(self.train.batch_size, self.train_loader.num_images - batch * self.train.batch_size)

    def share(self, batch: int, num_images: int) -> float:
        """Return which part of its optimizer step a batch of the epoch is, or the part of it that this process has, of so many images."""
        size, accumulate = self.train.batch_size, self.train.accumulate
        if accumulate == 1:
            return 1.0 if self.ranks is None else num_images / self.num_images(batch)
        first = batch // accumulate * accumulate * size
        return num_images / min(accumulate * size, self.train_loader.num_images - first)
