"""Training of lanes into run folders: each lane ends as the run that its config would have made alone, checkpoints and rows included.

Reading order: group_key, train_lanes, _train_one_epoch, _finish_epoch.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from firstlight.config.describe import to_dict
from firstlight.config.schema import Config
from firstlight.data.loader import Loader
from firstlight.engine.loop import close_epoch, due
from firstlight.engine.memory import keep_freed_memory
from firstlight.engine.record import Recorder, StepRow
from firstlight.engine.seeding import private_randomness
from firstlight.engine.signals import StopRequest, stop_requests
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.train import Prepared, conclude, open_folder, prepare, resume_line
from firstlight.engine.vectorized import Lane, LaneFigures, Lanes
from firstlight.errors import DivergedError, FirstlightError
from firstlight.metrics.totals import Totals
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run
from firstlight.tracking.writer import RunWriter

MEMORY_NAMES = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq", "step": "step"}
"""What torch's optimizers call what the rules of optim/rules.py remember."""
RMSPROP_NAMES = {"square": "square_avg"}


def group_key(config: Config) -> str | None:
    """Return what lanes of one program have in common, as text; None for a config that cannot be a lane."""
    train, model, optim = config.train, config.model, config.optim
    plain_train = replace(train, label_smoothing=0.0, on_divergence="stop")
    is_plain = (
        model.name == "mlp"
        and model.options["hidden"]
        and model.options["norm"] == "none"
        and not model.options["input_norm"]
        and not model.options["output_norm"]
        and optim.name in ("sgd", "rmsprop", "adam", "adamw")
        and not (optim.name == "rmsprop" and optim.options["momentum"])
        and (train.accumulate, train.clip_norm, train.ema_decay, train.early_size, train.patience) == (1, None, 0.0, None, None)
        and not train.freeze_norm_scale
        and train.on_divergence == "stop"
        and config.checkpoint.every_steps is None
        and config.evaluation.views == "one"
        and config.input.whiten == 0
        and config.device.name in ("auto", "cpu")
        and config.device.precision in ("auto", "float32")
    )
    if not is_plain:
        return None
    order_seed = config.seed if config.order_seed is None else config.order_seed
    shared = (config.data, config.split, config.input, config.augment, plain_train, config.checkpoint, config.device)
    return json.dumps([to_dict(part) for part in shared] + [order_seed, len(model.options["hidden"]), rule_of(config)])


def rule_of(config: Config) -> str:
    """Return the name of the update rule that an optimizer is, in optim/rules.py."""
    if config.optim.name != "sgd":
        return config.optim.name
    if not config.optim.options["momentum"]:
        return "sgd"
    return "nesterov" if config.optim.options["nesterov"] else "momentum"


@dataclass
class _LaneRun:
    """One lane with the run that it becomes. error: why it ended before the others."""

    config: Config
    prepared: Prepared
    writer: RunWriter
    recorder: Recorder
    error: FirstlightError | None = None
    pending: list[tuple[int, float, int]] = field(default_factory=list)
    """Step, learning rate and images of the steps whose figures were not fetched yet."""

    @property
    def state(self) -> TrainState:
        """Where it stands."""
        return self.prepared.state

    @property
    def setup(self) -> Setup:
        """What it never changes."""
        return self.prepared.setup


def train_lanes(configs: Sequence[Config], paths: Sequence[Path], console: Console, data_dir: Path) -> list[Run | FirstlightError]:
    """Train configs of one group (group_key) side by side into run folders; return each run, or the error that ended it early.

    Raises InterruptedRunError after a checkpoint of every lane when Ctrl-C or SIGTERM came.
    """
    prepared = _prepare(configs, data_dir)
    with ExitStack() as stack:
        runs: list[_LaneRun] = []
        for config, path, ready in zip(configs, paths, prepared, strict=True):
            writer = stack.enter_context(RunWriter(path))
            recorder = Recorder(writer, console, facts=ready.facts, config=to_dict(config), resume_line=resume_line(path, data_dir))
            open_folder(writer, config, ready, [])
            runs.append(_LaneRun(config, ready, writer, recorder))
        stack.enter_context(prepared[0].setup.arithmetic.on_threads())
        stack.enter_context(keep_freed_memory())
        stack.enter_context(private_randomness())
        stop = stack.enter_context(stop_requests())
        _fit(runs, stop)
        for one in runs:
            if one.error is None:
                conclude(one.config, one.prepared, one.writer, console, data_dir)
    return [Run(path) if one.error is None else one.error for path, one in zip(paths, runs, strict=True)]


def _prepare(configs: Sequence[Config], data_dir: Path) -> list[Prepared]:
    """Return what `prepare` returns for each config, with the data read once."""
    first = prepare(configs[0], data_dir)
    return [first, *(prepare(config, data_dir, like=first) for config in configs[1:])]


def _fit(runs: list[_LaneRun], stop: StopRequest) -> None:
    """Train until the last epoch; a lane that diverges leaves, and the others go on."""
    loader = runs[0].setup.train_loader
    alive, lanes = runs, _side_by_side(runs)
    while alive and alive[0].state.epoch < alive[0].setup.train.epochs:
        for one in alive:
            one.state.model.train()
        _train_one_epoch(alive, lanes, loader, stop)
        _finish_epoch(alive, lanes, stop)
        left = [one for one in alive if one.error is None]
        if len(left) < len(alive):
            alive, lanes = left, _side_by_side(left) if left else lanes


def _side_by_side(runs: Sequence[_LaneRun]) -> Lanes:
    """Return the lanes of runs, from where their states stand."""
    lanes = Lanes(
        [_lane_of(one.config) for one in runs],
        [one.state.model.state_dict() for one in runs],
        rule=rule_of(runs[0].config),
        num_classes=runs[0].setup.num_classes,
    )
    if runs[0].state.optimizer.state:
        lanes.remember([_memory_of(one) for one in runs])
    return lanes


def _lane_of(config: Config) -> Lane:
    model, optim = config.model.options, config.optim.options
    hyper = {name: float(value) for name, value in optim.items() if name not in ("lr", "nesterov")}
    return Lane(tuple(model["hidden"]), model["activation"], model["dropout"], config.train.label_smoothing, hyper)


def _train_one_epoch(runs: Sequence[_LaneRun], lanes: Lanes, loader: Loader, stop: StopRequest) -> None:
    """Go once over the training data with all lanes."""
    setup, pending = runs[0].setup, list[LaneFigures]()
    with torch.no_grad():
        for number, batch in enumerate(loader.batches(runs[0].state.epoch, reuse_buffers=True)):
            lrs = [one.setup.lr(one.state) for one in runs]
            seeds = (setup.order_seed, runs[0].state.epoch, number)
            pending.append(lanes.step(batch.images, batch.labels, lrs, seeds=seeds))
            num_images = batch.labels.size(0)
            for one, lr in zip(runs, lrs, strict=True):
                one.state.step += 1
                one.pending.append((one.state.step, lr, num_images))
            if due(setup.train.log_every, runs[0].state.step) or number == loader.num_batches - 1:
                _fetch(runs, pending)
                pending = []


def _fetch(runs: Sequence[_LaneRun], pending: Sequence[LaneFigures]) -> None:
    """Bring the figures of the pending steps over, and write each lane's rows."""
    losses = torch.stack([figures.loss for figures in pending], 1).tolist()
    norms = torch.stack([figures.grad_norm for figures in pending], 1).tolist()
    hits = torch.stack([figures.hits for figures in pending], 1).sum(1).tolist()
    for one, lane_losses, lane_norms, num_correct in zip(runs, losses, norms, hits, strict=True):
        if one.error is not None:
            one.pending = []
            continue
        epoch, total = one.state.epoch + 1, one.state.running[0]
        rows = []
        for (step, lr, num_images), loss, norm in zip(one.pending, lane_losses, lane_norms, strict=True):
            rows.append(StepRow(step, epoch, lr, loss, norm))
            total += loss * num_images
        one.pending, one.state.running = [], (total, one.state.running[1] + num_correct)
        one.writer.append_numbers("step", StepRow._fields, rows)
        broken = next((row for row in rows if not torch.isfinite(torch.tensor([row.loss, row.grad_norm])).all()), None)
        if broken is not None:
            one.error = one.recorder.diverged(one.state, one.setup, f"the loss became {broken.loss}", broken)


def _finish_epoch(runs: Sequence[_LaneRun], lanes: Lanes, stop: StopRequest) -> None:
    """Validate all lanes at once, then close the epoch of each as its solo run would."""
    totals = _validate(runs, lanes)
    for place, one in enumerate(runs):
        if one.error is not None:
            continue
        _hand_back(one, lanes, place)
        try:
            close_epoch(one.state, one.setup, one.recorder, None if totals is None else totals[place].result())
        except DivergedError as error:
            one.error = error
    if stop.asked:
        for one in runs:
            if one.error is None:
                one.recorder.save_and_stop(one.state, one.setup, stop.exit_code)


def _validate(runs: Sequence[_LaneRun], lanes: Lanes) -> list[Totals] | None:
    setup = runs[0].setup
    if setup.val_loader is None:
        return None
    totals = [Totals.zeros(setup.num_classes, top_k=min(5, setup.num_classes)) for _ in runs]
    with torch.inference_mode():
        for batch in setup.val_loader.batches(0):
            logits = lanes.logits(batch.images)
            flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.repeat(len(runs)), reduction="none")
            for lane, (one, losses) in enumerate(zip(totals, flat.view(len(runs), -1), strict=True)):
                one.add(logits[lane], batch.labels, losses)
    return totals


def _hand_back(one: _LaneRun, lanes: Lanes, place: int) -> None:
    """Put the weights and the memory of a lane into the model and the optimizer of its run."""
    one.state.model.load_state_dict(lanes.weights(place))
    names = {**MEMORY_NAMES, **(RMSPROP_NAMES if one.config.optim.name == "rmsprop" else {})}
    for parameter, memory in zip(one.state.model.parameters(), lanes.memory_of(place), strict=True):
        one.state.optimizer.state[parameter] = {names[name]: value for name, value in memory.items()}


def _memory_of(one: _LaneRun) -> list[Mapping[str, Tensor]]:
    """Return what the optimizer of a run remembers of each parameter, by the names of the rules."""
    names = {theirs: ours for ours, theirs in {**MEMORY_NAMES, **(RMSPROP_NAMES if one.config.optim.name == "rmsprop" else {})}.items()}
    state = one.state.optimizer.state
    return [{names[name]: value for name, value in state[parameter].items() if name in names} for parameter in one.state.model.parameters()]
