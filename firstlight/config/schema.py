"""Every setting of an experiment, as frozen dataclasses: the one place where a key, its type and its default are written.

Four sections (data, model, optim, schedule) are kinds: a name, and the settings which that name's constructor takes as
keyword-only arguments. Their types and defaults stand in the constructor, so a new model is one file and one line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from firstlight.limits import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Probability, Range, Seed, Size, Threads


@dataclass(frozen=True)
class Kind:
    """One entry of a registry with its settings: `Kind("adam", {"lr": 1e-3})`; in YAML `{name: adam, lr: 1e-3}`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How validation is carved from the training part (the test part stays sealed)."""

    val_fraction: Fraction = 0.1
    """Share of the training part that is held out for validation, stratified by class; 0 trains on everything."""
    seed: Seed = 0
    """Seed of the carving, apart from `seed`, so that runs with other seeds are validated on the same images."""
    num_train: PositiveInt | None = None
    """Train on this many images only (stratified; a smaller number is a subset of a larger one); null takes all."""


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What the network sees of an image."""

    image_size: Size | None = None
    """Resize every image to this many pixels square (bilinear, antialiased); null keeps the size of the data."""
    normalize: Literal["channel", "none"] = "channel"
    """`channel`: subtract the mean and divide by the deviation of each channel of the training part; `none`: pixels in [0, 1]."""
    whiten: Annotated[int, Range(least=0, most=8)] = 0
    """Pass images through a frozen first layer that whitens patches of this many pixels square (Page 2019); 0 has no such layer."""
    num_classes: PositiveInt | None = None
    """Refuse data with another number of classes; null takes what the data have."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of the training images, drawn per image, applied to pixels before normalisation (cutout after it)."""

    flip: bool | Literal["alternating"] = False
    """Mirror left and right with probability 1/2; `alternating` draws once an image, and mirrors it in every other epoch (Jordan 2024)."""
    crop: NonNegativeInt = 0
    """Pad by this many pixels (reflected) and cut out a window of the old size at a random place."""
    rotation: NonNegative = 0.0
    """Turn by a random angle between minus and plus this many degrees."""
    color_jitter: Probability = 0.0
    """Scale brightness, contrast and saturation by random factors in [1 - x, 1 + x]."""
    cutout: NonNegativeInt = 0
    """Blank a square of this many pixels at a random place (DeVries and Taylor 2017)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The start, the length and the make of the training loop."""

    init_from: str | None = None
    """Start from the weights in this .safetensors or .pt file, or from the best ones of this run; null draws new ones."""
    init_head: Literal["keep", "new"] = "keep"
    """With `init_from`: take the last linear layer too, or draw it `new`, for other classes."""
    epochs: PositiveInt = 10
    """Times that training goes over all training images."""
    batch_size: PositiveInt = 128
    """Images in one batch."""
    drop_last: bool = False
    """Leave out the last batch of an epoch where it is smaller than the others."""
    accumulate: PositiveInt = 1
    """Add up the gradients of this many batches before one optimizer step."""
    clip_norm: Positive | None = None
    """Scale the gradient down to this norm where it is larger; null never does."""
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016)."""
    freeze_norm_scale: bool = False
    """Leave the scales of normalisation layers at 1 and train their biases alone (Page 2019)."""
    early_size: Size | None = None
    """Scale the images of the first steps to this many pixels square, which costs less (progressive resizing, Howard 2018)."""
    early_share: Fraction = 0.5
    """Share of all optimizer steps that are made at `early_size`."""
    ema_decay: Fraction = 0.0
    """Keep an exponential moving average of the weights and evaluate that; 0 keeps none."""
    monitor: Literal["val_loss", "val_accuracy"] = "val_accuracy"
    """What decides which epoch is best; where nothing is validated, the last one is."""
    patience: PositiveInt | None = None
    """Stop after this many epochs without a better one, and restore the best (needs validation); null trains to the end."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """At a loss, gradient or weight that is not finite: `stop`, or go back to the last checkpoint and halve the lr (at most 3 times)."""
    log_every: PositiveInt = 50
    """Steps between two fetches of the running loss from the device."""
    test_at_end: bool = False
    """Open the sealed test set once, after training, with the best weights; the run records it."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a network is asked: at validation, at the test and when it predicts."""

    views: Literal["one", "mirror", "shift", "mirror_shift"] = "one"
    """Average over an image and its mirror image (`mirror`), or its copies moved by a pixel to two corners (`shift`), or all of these."""
    views_below: Probability = 1.0
    """Take further views only of images whose best class got no more than this probability at the first look."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a run is saved; `last` and `best` are always kept."""

    every: PositiveInt = 1
    """Epochs between two saves."""
    every_steps: PositiveInt | None = None
    """Save also after every so many optimizer steps; null saves at epochs only."""
    keep_last: PositiveInt = 2
    """The newest checkpoints that are kept, each with its best: where the last one is damaged, a resume takes the one before."""
    keep_every: PositiveInt | None = None
    """Keep for good the checkpoint of each so-many-th epoch; null keeps none but the newest and the best."""


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where and in which arithmetic the network runs; `auto` is settled at the start and recorded in the run."""

    name: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes CUDA, else Apple's MPS, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward and backward pass; weights stay float32."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Order of the image dimensions in memory."""
    threads: Threads | None = None
    """Threads that torch may use on the CPU; null times one step with one thread and with all, and takes the faster."""
    wait_seconds: Positive = 60.0
    """How long the processes of one training (torchrun) wait for one that does not answer, before all end; alone it means nothing."""
    graph: bool = False
    """CUDA only: capture the making of a batch and the step on it as one CUDA graph; for steps so short that the GPU waits for Python."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Which services are told of a run beside its folder; none of them can change or stop a training (docs/trackers.md)."""

    tensorboard: bool = False
    """Write a TensorBoard event file into the run folder; needs the extra `tensorboard`."""
    wandb: Literal["off", "auto", "offline", "online"] = "off"
    """Weights & Biases (extra `wandb`): files in the run folder for `wandb sync`, or its server; `auto` takes the server with a login."""
    project: str = "firstlight"
    """Project of Weights & Biases."""
    entity: str | None = None
    """User or team that the project belongs to; null takes that of the login."""
    wait_seconds: Positive = 60.0
    """How long the end of a training waits for its trackers."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    name: str = "experiment"
    """Name of the experiment; the run folder's name begins with it."""
    seed: Seed = 0
    """Seed of everything random that has no seed of its own."""
    init_seed: Seed | None = None
    """Seed of the initial weights; null takes `seed`."""
    order_seed: Seed | None = None
    """Seed of the order of the data, of augmentation and of dropout; null takes `seed`."""
    data: Kind = Kind("digits")
    split: SplitConfig = field(default_factory=SplitConfig)
    input: InputConfig = field(default_factory=InputConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: Kind = Kind("small_cnn")
    optim: Kind = Kind("sgd")
    schedule: Kind = Kind("constant")
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
