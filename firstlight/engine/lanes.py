"""Training of lanes into run folders: each lane ends as the run that its config would have made alone, checkpoints and rows included.

Reading order: group_key, train_lanes, _fit, _train_one_epoch, _finish_epoch.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor

from firstlight.config.describe import to_dict
from firstlight.config.schema import Config, Kind
from firstlight.data.build import load_training_data
from firstlight.data.training_data import TrainingData
from firstlight.engine.convolutional_lanes import ConvolutionalLanes
from firstlight.engine.device import Arithmetic, choose_device, is_present
from firstlight.engine.evaluate import TOP_K
from firstlight.engine.graph import WARM_UP, LaneGraph
from firstlight.engine.loop import close_epoch, due, is_paused
from firstlight.engine.memory import keep_freed_memory, out_of_memory
from firstlight.engine.record import Recorder, StepRow
from firstlight.engine.seeding import private_randomness
from firstlight.engine.signals import StopRequest, stop_requests
from firstlight.engine.state import Setup, TrainState
from firstlight.engine.step import train_step
from firstlight.engine.train import ONE_THREAD, TOO_MUCH_DATA, GoingOn, Prepared, conclude, go_on, open_folder, prepare, resume_line
from firstlight.engine.vectorized import Lane, LaneFigures, Lanes
from firstlight.errors import DivergedError, FirstlightError, InterruptedRunError
from firstlight.files import WriteBatch, Writing, together
from firstlight.metrics.evaluation import Evaluation
from firstlight.metrics.totals import Totals
from firstlight.optim.rules import RULES
from firstlight.tracking.console import Console
from firstlight.tracking.environment import describe_environment
from firstlight.tracking.run import Run
from firstlight.tracking.writer import RunWriter

T = TypeVar("T")

MEMORY_NAMES = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq", "step": "step"}
"""What torch's optimizers call what the rules of optim/rules.py remember."""
CONVOLUTIONAL = ("lenet", "small_cnn", "digit_cnn")
"""Networks with convolutions that can be lanes: one nn.Sequential of layers in convolutional_lanes.PASSES."""
CONVOLUTIONAL_BYTES = 100 << 20
"""What such a lane is taken to need, most of it for the values between its layers."""
NUM_TIMED = 4
"""Steps that are timed each way before a group is trained."""
PROGRAM_SIZES = (4, 8, 32)
"""Lanes of one program that are tried beside all of a group."""


class GroupKey(NamedTuple):
    """What lanes of one program have in common; two that differ in the seed of the order alone take equally long."""

    order_seed: int
    rest: str


AnyLanes = Lanes | ConvolutionalLanes
Load = Callable[[Config, Path], TrainingData]
"""What reads the training data of a config below a folder."""


def group_key(config: Config, *, cuda: bool = False) -> GroupKey | None:
    """Return what lanes of one program have in common; None for a config that cannot be a lane. cuda: whether they may be on CUDA."""
    train, model, optim = config.train, config.model, config.optim
    plain_train = replace(train, label_smoothing=0.0, epochs=1)
    is_plain = (
        (_is_plain_mlp(model) or model.name in CONVOLUTIONAL)
        and optim.name in ("sgd", "rmsprop", "adam", "adamw")
        and not (optim.name == "rmsprop" and optim.options["momentum"])
        and (train.accumulate, train.clip_norm, train.ema_decay, train.early_size, train.patience) == (1, None, 0.0, None, None)
        and not train.freeze_norm_scale
        and train.init_from is None
        and train.on_divergence == "stop"
        and config.checkpoint.every_steps is None
        and config.evaluation.views == "one"
        and config.input.whiten == 0
        and (_fits_cpu(config) or (cuda and _fits_cuda(config)))
    )
    if not is_plain:
        return None
    order_seed = config.seed if config.order_seed is None else config.order_seed
    network = len(model.options["hidden"]) if model.name == "mlp" else to_dict(Kind(model.name, {**model.options, "dropout": 0.0}))
    shared = (config.data, config.split, config.input, config.augment, plain_train, config.checkpoint, config.device)
    return GroupKey(order_seed, json.dumps([to_dict(part) for part in shared] + [network, rule_of(config)]))


def _fits_cpu(config: Config) -> bool:
    on_cpu = config.device.name == "cpu" or (config.device.name == "auto" and choose_device("auto") == "cpu")
    return on_cpu and config.device.precision in ("auto", "float32")


def _fits_cuda(config: Config) -> bool:
    """Tell whether a config is an MLP on a CUDA device whose lane makes the numbers of its solo run: dropout is drawn another way there."""
    on_cuda = config.device.name in ("auto", "cuda") and is_present("cuda")
    plain = config.device.precision == "float32" and not config.device.graph and config.model.options.get("dropout", 0.0) == 0
    return on_cuda and plain and _is_plain_mlp(config.model)


def _is_plain_mlp(model: Kind) -> bool:
    options = model.options
    normalized = model.name == "mlp" and (options["norm"] != "none" or options["input_norm"] or options["output_norm"])
    return model.name == "mlp" and bool(options["hidden"]) and not normalized


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

    @property
    def state(self) -> TrainState:
        """Where it stands."""
        return self.prepared.state

    @property
    def setup(self) -> Setup:
        """What it never changes."""
        return self.prepared.setup

    @property
    def goes_on(self) -> bool:
        """Whether epochs are left for it."""
        return self.error is None and self.state.epoch < self.setup.last_epoch


class _Pending(NamedTuple):
    """Steps whose figures were not fetched yet: what the lanes say, their learning rates, the images of the batch."""

    figures: list[LaneFigures]
    lrs: list[Tensor]
    sizes: list[int]


def train_lanes(
    configs: Sequence[Config],
    paths: Sequence[Path],
    console: Console,
    data_dir: Path,
    *,
    resumed: Sequence[Run | None] | None = None,
    pause_after: int | None = None,
    threads: int = 1,
    entries: Sequence[Mapping[str, Any]] | None = None,
    load: Load = load_training_data,
    tell: Callable[[str], None] = lambda where: None,
) -> list[Run | FirstlightError]:
    """Train configs of one group (group_key) side by side into run folders; return each run, or the error that ended it early.

    resumed: for each config the run that it goes on with, from its last whole checkpoint; pause_after: epoch behind which all are left;
    entries: what run.json of a new run says beside the usual; load: reads the data, a LastData where programs follow each other; tell: is
    given a line about where training stands now and then.
    Raises InterruptedRunError after a checkpoint of every lane when Ctrl-C or SIGTERM came.
    """
    arithmetic = _arithmetic(configs[0], threads)
    first = _prepare_first(configs[0], data_dir, arithmetic, load)
    with ExitStack() as stack:
        stack.enter_context(arithmetic.on_threads())
        stack.enter_context(keep_freed_memory())
        stack.enter_context(private_randomness(arithmetic.device))
        runs: list[_LaneRun] = []
        environment = describe_environment()
        none = [None] * len(configs)
        _make_dirs(path for path, run in zip(paths, resumed or none, strict=True) if run is None)
        openings: list[Writing[None]] = []
        for config, path, run, more in zip(configs, paths, resumed or none, entries or none, strict=True):
            prepared = first if not runs else prepare(config, data_dir, like=first)
            prepared = replace(prepared, setup=replace(prepared.setup, pause_after=pause_after))
            writer = stack.enter_context(RunWriter(path, resume=run is not None, entries=more))
            recorder = Recorder(writer, console, facts=prepared.facts, config=to_dict(config), resume_line=resume_line(path, data_dir))
            if run is None:
                openings.append(open_folder(writer, config, prepared, [], environment=environment))
            else:
                go_on(writer, config, prepared, GoingOn(run), console, [])
            runs.append(_LaneRun(config, prepared, writer, recorder))
        _all_of(together(openings))
        stop = stack.enter_context(stop_requests())
        for group in _at_one_place(runs):
            _fit(group, stop, tell)
        for one in runs:
            if one.error is None and is_paused(one.state, one.setup):
                one.writer.pause()
            elif one.error is None:
                conclude(one.config, one.prepared, one.writer, console, data_dir, pictures=False)
            else:
                one.writer.fail()
        _all_of(together([one.writer.leaving() for one in runs]))
    return [Run(path) if one.error is None else one.error for path, one in zip(paths, runs, strict=True)]


def _prepare_first(config: Config, data_dir: Path, arithmetic: Arithmetic, load: Load) -> Prepared:
    with ONE_THREAD.on_threads(), out_of_memory("reading the data", TOO_MUCH_DATA):
        data = load(config, data_dir)
    return prepare(config, data_dir, arithmetic=arithmetic, data=data)


def _make_dirs(paths: Iterable[Path]) -> None:
    """Create folders that are missing, with one flush of the folder in which they lie."""
    with WriteBatch() as batch:
        for path in paths:
            batch.make_dir(path)
        batch.commit()


def _all_of(outcomes: Sequence[T | FirstlightError]) -> list[T]:
    """Return what came of writings; raise the first error."""
    for outcome in outcomes:
        if isinstance(outcome, FirstlightError):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, FirstlightError)]


@dataclass(frozen=True)
class Times:
    """Seconds of a step of `num` networks of a group, one after the other (alone), and the fastest way side by side (together).

    num_lanes: networks in one program, where the values between the layers of all would not fit into the caches; threads: of a program.
    """

    num: int
    alone: float
    together: float
    num_lanes: int
    threads: int


def time_both(configs: Sequence[Config], data_dir: Path, load: Load = load_training_data) -> Times:
    """Time a few steps of the configs of one group both ways; nothing is written, and the networks are made for it alone."""
    num, arithmetic = len(configs), _arithmetic(configs[0], 1)
    with private_randomness(arithmetic.device):
        first = _prepare_first(configs[0], data_dir, arithmetic, load)
        runs = [first, *(prepare(config, data_dir, like=first) for config in configs[1:])]
        batch = next(first.setup.train_loader.batches(0))
        chosen = [runs[place] for place in sorted({round(share * (num - 1)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)})]
        with ONE_THREAD.on_threads():
            alone = [_fastest(partial(train_step, one.state, batch, one.setup, share=1.0, lr=1e-6), arithmetic.device) for one in chosen]
        found: list[tuple[float, int, int]] = []
        for size in sorted({min(size, num) for size in PROGRAM_SIZES} | {num}):
            places = [round(step * (num - 1) / max(1, size - 1)) for step in range(size)]  # spread over all, which may differ in width
            lanes = make_lanes([configs[place] for place in places], [runs[place].state for place in places], first.setup.num_classes)
            for threads in sorted({1, torch.get_num_threads()}):
                with replace(arithmetic, threads=threads).on_threads(), torch.no_grad():
                    step = partial(_stepper(lanes), batch.images, batch.labels, torch.full((size,), 1e-6), seeds=(0, 0, 0))
                    found.append((_fastest(step, arithmetic.device) * num / size, size, threads))
    together, num_lanes, threads = min(found)
    return Times(num, num * sum(alone) / len(alone), together, num_lanes, threads)


def _arithmetic(config: Config, threads: int) -> Arithmetic:
    """Return that of lanes, whose grouped convolutions are many times faster where the channels of a pixel lie together."""
    device = "cpu" if _fits_cpu(config) else "cuda"
    return Arithmetic(device, memory_format="channels_last" if config.model.name in CONVOLUTIONAL else "contiguous", threads=threads)


def _fastest(action: Callable[[], Any], device: str) -> float:
    """Return the seconds of the fastest of a few calls: what else runs on the machine only ever adds to it."""
    seconds = []
    for _ in range(NUM_TIMED if device == "cpu" else WARM_UP + 1 + NUM_TIMED):  # the first on CUDA are plain, and one is captured
        began = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _stepper(lanes: AnyLanes) -> Callable[..., LaneFigures]:
    """Return the step of lanes: on a CUDA device as one graph."""
    return LaneGraph(lanes).step if isinstance(lanes, Lanes) and lanes.device.type == "cuda" else lanes.step


def num_bytes(config: Config) -> int:
    """Return about how much memory a lane takes: weights, gradient, and what its rule remembers; images of 3,072 values are assumed."""
    if config.model.name in CONVOLUTIONAL:
        return CONVOLUTIONAL_BYTES
    sizes: tuple[int, ...] = (3072, *config.model.options["hidden"], 1000)
    return 4 * (2 + len(RULES[rule_of(config)].start(torch.zeros(1)))) * sum(a * b for a, b in pairwise(sizes))


def _at_one_place(runs: Sequence[_LaneRun]) -> list[list[_LaneRun]]:
    """Return the runs grouped by where they stand: a kill may have come between the checkpoints of two lanes."""
    places: dict[tuple[int, int], list[_LaneRun]] = {}
    for one in runs:
        places.setdefault((one.state.epoch, one.state.batch), []).append(one)
    return list(places.values())


def _fit(runs: list[_LaneRun], stop: StopRequest, tell: Callable[[str], None]) -> None:
    """Train until the last epoch; a lane that diverges is left alone and disturbs no other, one that is done makes room."""
    alive = [one for one in runs if one.goes_on]
    while alive:
        alive = _fit_until_one_is_done(alive, stop, tell)


def _fit_until_one_is_done(runs: Sequence[_LaneRun], stop: StopRequest, tell: Callable[[str], None]) -> list[_LaneRun]:
    """Train epochs of one program; return those that are to go on in a smaller one."""
    lanes = side_by_side(runs)
    take_step = _stepper(lanes)
    while True:
        _train_one_epoch(runs, lanes, take_step, stop, tell)
        _finish_epoch(runs, lanes, stop)
        going_on = [one for one in runs if one.goes_on]
        if not going_on or len(going_on) < sum(one.error is None for one in runs):
            return going_on


def side_by_side(runs: Sequence[_LaneRun]) -> AnyLanes:
    """Return the lanes of runs, from where their states stand."""
    lanes = make_lanes([one.config for one in runs], [one.state for one in runs], runs[0].setup.num_classes)
    if runs[0].state.optimizer.state:
        lanes.remember([_memory_of(one) for one in runs])
    return lanes


def make_lanes(configs: Sequence[Config], states: Sequence[TrainState], num_classes: int) -> AnyLanes:
    """Return networks of one group side by side, each from the weights of its state."""
    weights = [state.model.state_dict() for state in states]
    if configs[0].model.name in CONVOLUTIONAL:
        return ConvolutionalLanes(states[0].model, [lane_of(config) for config in configs], weights, rule=rule_of(configs[0]))
    return Lanes([lane_of(config) for config in configs], weights, rule=rule_of(configs[0]), num_classes=num_classes)


def lane_of(config: Config) -> Lane:
    """Return what a config has for itself as a lane."""
    model, optim = config.model.options, config.optim.options
    hyper = {name: float(value) for name, value in optim.items() if name not in ("lr", "nesterov")}
    hidden, activation = tuple(model.get("hidden", ())), model.get("activation", "")
    return Lane(hidden, activation, model.get("dropout", 0.0), config.train.label_smoothing, hyper)


def _train_one_epoch(
    runs: Sequence[_LaneRun], lanes: AnyLanes, take_step: Callable[..., LaneFigures], stop: StopRequest, tell: Callable[[str], None]
) -> None:
    """Go once over the training data with all lanes, from the batch where they stand; take_step: as lanes.step."""
    setup, epoch, start = runs[0].setup, runs[0].state.epoch, runs[0].state.batch
    pending, rates, step = _Pending([], [], []), _rates(runs), runs[0].state.step
    with torch.no_grad():
        for number, batch in enumerate(setup.train_loader.batches(epoch, start=start, reuse_buffers=True), start):
            lrs = rates(step)
            figures = take_step(batch.images, batch.labels, lrs, seeds=(setup.order_seed, epoch, number))
            pending.figures.append(figures)
            pending.lrs.append(lrs)
            pending.sizes.append(batch.labels.size(0))
            step += 1
            if due(setup.train.log_every, step) or stop.asked:
                pending = _fetch(runs, pending)
                tell(f"{len(runs)} side by side, step {step:,} of {setup.total_steps:,}")
            if stop.asked:
                _save_and_stop(runs, lanes, stop.exit_code)
        _fetch(runs, pending)


def _rates(runs: Sequence[_LaneRun]) -> Callable[[int], Tensor]:
    """Return what gives the learning rates of the step behind so many, float64 [L]: those with one schedule are reckoned once."""
    kinds: dict[str, list[int]] = {}
    for place, one in enumerate(runs):
        key = json.dumps([to_dict(one.config.schedule), repr(one.state.schedule_state), one.setup.total_steps])
        kinds.setdefault(key, []).append(place)
    base = torch.tensor([one.setup.base_lr * one.state.lr_scale for one in runs], dtype=torch.float64)
    group = torch.empty(len(runs), dtype=torch.int64)
    for number, places in enumerate(kinds.values()):
        group[places] = number
    first = [(runs[places[0]].setup, runs[places[0]].state.schedule_state) for places in kinds.values()]
    return lambda step: base * torch.tensor([setup.factor(step, state) for setup, state in first], dtype=torch.float64)[group]


def _fetch(runs: Sequence[_LaneRun], pending: _Pending) -> _Pending:
    """Bring the figures of the pending steps over and write each lane's rows; return that nothing is pending."""
    if pending.sizes:
        for one in runs:
            one.state.step += len(pending.sizes)
            one.state.batch += len(pending.sizes)
        losses = torch.stack([figures.loss for figures in pending.figures], 1).tolist()
        norms = torch.stack([figures.grad_norm for figures in pending.figures], 1).tolist()
        hits = torch.stack([figures.hits for figures in pending.figures]).sum(0).tolist()
        for one, lane_losses, lane_norms, lrs, num_correct in zip(
            runs, losses, norms, torch.stack(pending.lrs, 1).tolist(), hits, strict=True
        ):
            if one.error is None:
                _write_rows(one, lrs, lane_losses, lane_norms, pending.sizes, num_correct)
    return _Pending([], [], [])


def _write_rows(
    one: _LaneRun, lrs: Sequence[float], losses: Sequence[float], norms: Sequence[float], sizes: Sequence[int], num_correct: int
) -> None:
    """Write the rows of the last steps of a lane, as far as they are finite."""
    state = one.state
    first = state.step - len(sizes) + 1
    rows = list(zip(range(first, state.step + 1), repeat(state.epoch + 1), lrs, losses, norms, strict=False))
    total, recognised = state.running
    for loss, size in zip(losses, sizes, strict=True):
        total += loss * size
    state.running = (total, recognised + num_correct)
    one.recorder.watch_norms(one.setup, list(norms))
    one.writer.append_numbers("step", StepRow._fields, rows)
    if not math.isfinite(total + sum(norms)):
        broken = next(row for row in map(StepRow._make, rows) if not math.isfinite(row.loss + row.grad_norm))
        what = "loss" if not math.isfinite(broken.loss) else "gradient"
        value = broken.loss if what == "loss" else broken.grad_norm
        one.error = one.recorder.diverged(state, one.setup, f"the {what} became {value}", broken)


def _finish_epoch(runs: Sequence[_LaneRun], lanes: AnyLanes, stop: StopRequest) -> None:
    """Validate all lanes at once, then close the epoch of each as its solo run would."""
    validations = _validate(runs, lanes)
    closing: list[tuple[_LaneRun, Writing[Any]]] = []
    for place, one in enumerate(runs):
        if one.error is None:
            _hand_back(one, lanes, place)
            closing.append((one, close_epoch(one.state, one.setup, one.recorder, None if validations is None else validations[place])))
    outcomes = together([writing for _, writing in closing])
    for (one, _), outcome in zip(closing, outcomes, strict=True):
        if isinstance(outcome, DivergedError):
            one.error = outcome
    _all_of([outcome for outcome in outcomes if not isinstance(outcome, DivergedError)])
    if stop.asked:
        _save_and_stop(runs, lanes, stop.exit_code)


def _save_and_stop(runs: Sequence[_LaneRun], lanes: AnyLanes, exit_code: int) -> NoReturn:
    """Save every lane where it stands, and raise InterruptedRunError."""
    saving: list[Writing[bool]] = []
    for place, one in enumerate(runs):
        if one.error is None:
            _hand_back(one, lanes, place)
            saving.append(one.recorder.saving_once(one.state, one.setup))
    saved = sum(_all_of(together(saving)))
    raise InterruptedRunError(f"interrupted, {saved} of {len(runs)} trials saved; run the same command again to go on", exit_code=exit_code)


def _validate(runs: Sequence[_LaneRun], lanes: AnyLanes) -> list[Evaluation] | None:
    setup = runs[0].setup
    if setup.val_loader is None:
        return None
    totals = [Totals.zeros(setup.num_classes, top_k=min(TOP_K, setup.num_classes), device=setup.arithmetic.device) for _ in runs]
    with torch.inference_mode():
        for batch in setup.val_loader.batches(0):
            logits = lanes.logits(batch.images)
            flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.repeat(len(runs)), reduction="none")
            for lane, (one, losses) in enumerate(zip(totals, flat.view(len(runs), -1), strict=True)):
                one.add(logits[lane], batch.labels, losses)
    return [one.result() for one in totals]


def _hand_back(one: _LaneRun, lanes: AnyLanes, place: int) -> None:
    """Put the weights and the memory of a lane into the model and the optimizer of its run."""
    one.state.model.load_state_dict(lanes.weights(place))
    names = memory_names(one.config)
    for parameter, memory in zip(one.state.model.parameters(), lanes.memory_of(place), strict=True):
        one.state.optimizer.state[parameter] = {names[name]: value for name, value in memory.items()}


def _memory_of(one: _LaneRun) -> list[Mapping[str, Tensor]]:
    """Return what the optimizer of a run remembers of each parameter, by the names of the rules."""
    names = {theirs: ours for ours, theirs in memory_names(one.config).items()}
    state = one.state.optimizer.state
    return [{names[name]: value for name, value in state[parameter].items() if name in names} for parameter in one.state.model.parameters()]


def memory_names(config: Config) -> dict[str, str]:
    """Return what torch's optimizer calls what the rule of a config remembers."""
    return {**MEMORY_NAMES, "square": "square_avg"} if config.optim.name == "rmsprop" else MEMORY_NAMES
