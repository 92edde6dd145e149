"""From a config to a finished run: data, network, run folder, fit, best weights, summary, pictures.

Reading order: train, resume, run_training, prepare.
"""

import json
import os
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from firstlight.config.describe import to_dict, to_yaml
from firstlight.config.schema import Config, Kind
from firstlight.data.build import load_training_data, make_loader, make_train_loader
from firstlight.data.measure import SAMPLE_BYTES, content_hash, sample
from firstlight.data.training_data import DataRecord, TrainingData
from firstlight.engine.checkpoint import go_on_from, load_weights, newest_whole, prune, read_weights, restore_state
from firstlight.engine.device import Arithmetic
from firstlight.engine.distributed import Ranks, agreed, joined, restarts
from firstlight.engine.evaluate import evaluate_model
from firstlight.engine.graph import check_graph
from firstlight.engine.init_from import describe_start, start_from
from firstlight.engine.loop import fit, is_paused
from firstlight.engine.memory import keep_freed_memory, out_of_memory, smaller_batch
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.probe import settle
from firstlight.engine.ranked_layers import share_layers
from firstlight.engine.ranked_record import NoWriter, RankedRecorder, share_state
from firstlight.engine.record import Recorder
from firstlight.engine.restore import arithmetic_of, config_of
from firstlight.engine.resume import changed_settings, check_config, check_data, check_ranks, inexact, keeps_memory, machine
from firstlight.engine.sealed import open_test_set
from firstlight.engine.signals import raising_signals
from firstlight.engine.sources import completed, config_from, load_config, load_with_origins
from firstlight.engine.state import Setup, TrainState
from firstlight.errors import CheckpointError, ConfigError, InterruptedRunError, LostRankError, StorageError
from firstlight.files import Lock, Writing, carry_out, write_figure, write_text
from firstlight.metrics.evaluation import Evaluation
from firstlight.models.build import build_model
from firstlight.models.flops import flops_per_image
from firstlight.models.layers import count_parameters, freeze_norm_scales
from firstlight.models.whitening import NUM_IMAGES, Whitened
from firstlight.optim.build import build_optimizer, build_schedule
from firstlight.plotting.curves import plot_curves, plot_steps
from firstlight.tracking.console import Console
from firstlight.tracking.environment import describe_environment
from firstlight.tracking.run import Run, find_run_to_resume
from firstlight.tracking.table import show_mflop
from firstlight.tracking.trackers import Chosen, Trackers, choose_trackers
from firstlight.tracking.writer import RunWriter, check_free, check_name


def train(
    source: str | Path = "quickstart",
    *overrides: str,
    name: str | None = None,
    note: str | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Run:
    """Train an experiment and return its run.

    source: a shipped experiment's name or a YAML file; overrides: "optim.lr=0.1"; settings: the same, `optim={"lr": 0.1}`.
    Raises the errors of firstlight.errors; a run that was interrupted can be resumed.
    """
    with joined() as ranks:
        console = _console_of(ranks, console)
        loaded = load_with_origins(source, overrides, settings)
        for remark in loaded.notes:
            console.line(f"note: {remark}")

        def choose_path() -> tuple[str, str]:
            chosen = name or default_name(loaded.config.name)
            check_name(chosen)
            path = runs_dir_of(runs_dir) / chosen
            begun = ranks is not None and begun_before(path, loaded.config, named=name is not None)
            if begun:
                return str(path), Run(path).state
            check_free(path)  # before minutes go into reading data
            return str(path), "new"

        chosen, state = agreed(ranks, "run", choose_path)
        path = Path(chosen)
        if state == "finished":  # the restart came after the end
            return Run(path)
        resumed = None if state == "new" else GoingOn(Run(path))
        place = (path, console, data_dir_of(data_dir))
        return run_training(loaded.config, *place, notes=[note] if note and not resumed else [], resumed=resumed, ranks=ranks)


def resume(
    run: str | Path,
    *overrides: str,
    override: bool = False,
    exact: bool = False,
    note: str | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> Run:
    """Go on with a run from its last whole checkpoint, on the same path, and return it.

    run: a path or a name, or "latest" for the youngest run that was interrupted; overrides: settings to change on the way, such as
    "train.epochs=20". Those that would lead the training elsewhere are refused without `override`; `exact` refuses another machine.
    """
    with joined() as ranks:

        def to_resume() -> tuple[str, dict[str, Any]]:
            path, config = _find_to_resume(run, runs_dir_of(runs_dir), overrides)
            check_ranks(Run(path).info, 1 if ranks is None else ranks.size, override=override)
            return str(path), to_dict(config)

        path, settings = agreed(ranks, "run", to_resume)
        going_on = GoingOn(Run(Path(path)), override=override, exact=exact)
        place = (Path(path), _console_of(ranks, console), data_dir_of(data_dir))
        return run_training(config_from(settings), *place, notes=[note] if note else [], resumed=going_on, ranks=ranks)


def begun_before(path: Path, config: Config, *, named: bool) -> bool:
    """Tell whether torchrun has started these ranks anew (--max-restarts), and they had begun this run. Raises ConfigError."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) and not named:
        raise ConfigError("torchrun --max-restarts starts the ranks again, and they find their run by its name; add --name NAME")
    if not restarts() or not (path / "run.json").is_file():
        return False
    run = Run(path)
    return not run.damage and config_of(run) == config


def _find_to_resume(run: str | Path, runs_dir: Path, overrides: Sequence[str]) -> tuple[Path, Config]:
    """Return the path of a run that can go on, and its config with the overrides. Raises ConfigError and RunBusyError."""
    found = find_run_to_resume(run, runs_dir)
    with Lock(found.path / "run.lock", f"run {found.path}"):
        pass  # before minutes go into reading data; the writer takes the lock again
    config = load_config(found.path / "config.yaml", *overrides)
    done = found.summary.get("epochs", config.train.epochs)
    if found.state == "finished" and (config.train.epochs <= done or config == config_of(found)):
        raise ConfigError(
            f"run {found.path} is finished; train it for longer with train.epochs=N (it had {done}), "
            f"or start another with `firstlight train {shlex.quote(str(found.path / 'config.yaml'))}`"
        )
    return found.path, config


def _console_of(ranks: Ranks | None, console: Console | None) -> Console:
    """Return the console of a process: of several, rank 0 alone speaks."""
    return console or Console() if ranks is None or ranks.leads else Console(quiet=True)


BY_TRAIN = "train (test_at_end)"
"""Who opened the test set, in run.json."""
OPENED = "test set opened"
"""What rank 0 tells the others: whether it was opened before."""
ONE_THREAD = Arithmetic("cpu", threads=1)
"""To read and copy the data: memory sets the pace, and beside a busy process two threads took 43 s for CIFAR-10 instead of 1.7."""
TOO_MUCH_DATA = "try a smaller input.image_size, or fewer images"


def default_name(experiment: str) -> str:
    """Return a new name: the experiment, the date and four random hexadecimal digits."""
    return f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Prepared:
    """What stands before the run folder is made: if anything is wrong with the data or the network, nothing was written."""

    data: DataRecord
    warnings: tuple[str, ...]
    state: TrainState
    setup: Setup
    facts: dict[str, Any]
    model: Kind
    """The network's settings: others of the same ones have the same facts."""
    start: dict[str, Any] | None = None
    """Which weights it began with, and from where, where they were not drawn."""


@dataclass(frozen=True)
class GoingOn:
    """A run that is taken up again, and what may differ from before."""

    run: Run
    override: bool = False
    exact: bool = False


def run_training(
    config: Config,
    path: Path,
    console: Console,
    data_dir: Path,
    *,
    notes: list[str] | None = None,
    resumed: GoingOn | None = None,
    pause_after: int | None = None,
    pause_when: Callable[[int, Mapping[str, float]], bool] | None = None,
    entries: Mapping[str, Any] | None = None,
    alone: bool = True,
    ranks: Ranks | None = None,
) -> Run:
    """Train `config` into the run folder `path`; with `resumed`, go on from its last whole checkpoint.

    pause_after: epoch behind which the run is left, saved and `interrupted`; pause_when: asked behind each epoch, with its number and
    figures, whether it is left there; entries: what run.json says beside the usual; alone: no trial of a study, which has trackers for all
    of its trials and needs no curves of each; ranks: the processes that train it together.
    """
    if ranks is not None and not ranks.leads:
        return follow(config, path, data_dir, ranks)
    trackers = Trackers(path, trackers_of(config) if alone else {}, console, wait_seconds=config.tracking.wait_seconds)
    with out_of_memory("building the network", "try a smaller one (its settings stand under `model`)"):
        prepared = prepare(config, data_dir, arithmetic=_arithmetic_of(resumed, config), ranks=ranks, init=resumed is None)
    smaller = smaller_batch(config.train.batch_size, config.train.accumulate, prepared.data.num_train)
    with (
        trackers,
        raising_signals(),
        RunWriter(path, resume=resumed is not None, entries=entries) as writer,
        console.logging_to(writer.log),
        prepared.setup.arithmetic.on_threads(),
        keep_freed_memory(),
        out_of_memory(f"training with train.batch_size={config.train.batch_size}", smaller),
    ):
        line = resume_line(path, data_dir, ranks)
        facts: dict[str, Any] = {"facts": prepared.facts, "config": to_dict(config), "resume_line": line, "trackers": trackers}
        recorder = Recorder(writer, console, **facts) if ranks is None else RankedRecorder(writer, console, ranks=ranks, **facts)
        try:
            if resumed is None:
                carry_out(open_folder(writer, config, prepared, notes or []))
            else:
                go_on(writer, config, prepared, resumed, console, notes or [])
            _announce(console, prepared, writer, resumed=resumed is not None)
            if ids := trackers.ids():
                writer.update(**ids)
            trackers.start()
            setup = replace(prepared.setup, pause_after=pause_after, pause_when=pause_when)
            if ranks is not None:
                share_state(prepared.state, ranks)
            fit(prepared.state, setup, recorder)
            if is_paused(prepared.state, setup):
                writer.pause()
            else:
                conclude(config, prepared, writer, console, data_dir, pictures=alone)
        except (KeyboardInterrupt, InterruptedRunError) as error:
            if line in str(error):
                raise
            if isinstance(error, LostRankError):
                raise LostRankError(f"{error}; {recorder.kept()}; go on with: {line}") from error
            code = error.exit_code if isinstance(error, InterruptedRunError) else 130
            raise InterruptedRunError(recorder.how_to_resume("outside of the training itself"), exit_code=code) from None
    return Run(path)


def trackers_of(config: Config) -> Chosen:
    """Return the trackers that a config asks for. Raises ConfigError for one that is not installed, or not logged in."""
    asked = config.tracking
    return choose_trackers(tensorboard_too=asked.tensorboard, wandb=asked.wandb, project=asked.project, entity=asked.entity)


def follow(config: Config, path: Path, data_dir: Path, ranks: Ranks) -> Run:
    """Take part in a training whose run folder is rank 0's."""
    with out_of_memory("building the network", "try a smaller one (its settings stand under `model`)"):
        prepared = prepare(config, data_dir, ranks=ranks, init=False)
    smaller = smaller_batch(config.train.batch_size, config.train.accumulate, prepared.data.num_train)
    line = resume_line(path, data_dir, ranks)
    with (
        raising_signals(),
        prepared.setup.arithmetic.on_threads(),
        keep_freed_memory(),
        out_of_memory(f"training with train.batch_size={config.train.batch_size}", smaller),
    ):
        facts: dict[str, Any] = {"facts": {}, "config": {}, "resume_line": line}
        try:
            share_state(prepared.state, ranks)
            fit(prepared.state, prepared.setup, RankedRecorder(NoWriter(path), Console(quiet=True), ranks=ranks, **facts))
            if config.train.test_at_end and not agreed(ranks, OPENED, bool):
                evaluate_test_set(config, prepared, data_dir, Console(quiet=True))
        except KeyboardInterrupt:
            raise InterruptedRunError(f"interrupted; go on with: {line}") from None
        except LostRankError as error:
            raise LostRankError(f"{error}; go on with: {line}") from error
    return Run(path)


def resume_line(path: Path, data_dir: Path, ranks: Ranks | None = None) -> str:
    """Return the command that goes on with a run, ready to be pasted into a shell."""
    elsewhere = [] if data_dir == data_dir_of(None) else ["--data-dir", str(data_dir)]
    words = ["firstlight", "train", "--resume", str(path), *elsewhere]
    return shlex.join(words) if ranks is None else ranks.launch(words)


def prepare(
    config: Config,
    data_dir: Path,
    *,
    arithmetic: Arithmetic | None = None,
    like: Prepared | None = None,
    data: TrainingData | None = None,
    ranks: Ranks | None = None,
    init: bool = True,
) -> Prepared:
    """Load the data, build the network and its optimizer, settle the arithmetic.

    like: what was prepared for a config with the same data, order and arithmetic, whose loaders are shared. data: what the config's
    data are, where somebody has read them already. ranks: the processes that train it together. init: take the weights that
    train.init_from names. Raises ConfigError where ranks have other settings, versions or data than rank 0.
    """
    if like is not None:
        return _prepare_like(config, like)
    if ranks is not None:
        check_shared(config, ranks)
    with ONE_THREAD.on_threads(), out_of_memory("reading the data", TOO_MUCH_DATA):
        data = data or load_training_data(config, data_dir)
    record = data.record
    if ranks is not None:
        ranks.compare("data", _as_json({**record.to_json(), "source": ""}), changed_settings)
    init_seed = config.seed if config.init_seed is None else config.init_seed
    order_seed = config.seed if config.order_seed is None else config.order_seed
    model = build_model(config.model, record.image_shape, record.num_classes, init_seed, whiten=config.input.whiten)
    if isinstance(model, Whitened):
        every = max(1, len(data.train) // NUM_IMAGES)  # folders come sorted by class
        model.whitening.measure(record.normalize.apply(data.train.images[::every]))
    start = start_from(model, config.train) if init else None
    if config.train.freeze_norm_scale:
        freeze_norm_scales(model)
    if config.train.early_size is not None:
        check_early_size(model, config.model.name, record.image_shape[0], config.train.early_size)
    facts = {"num_parameters": count_parameters(model), "flops_per_image": flops_per_image(model, record.image_shape)}
    if arithmetic is None and (ranks is None or ranks.leads):
        arithmetic = settle(config.device, model, record.image_shape, record.num_classes)
    if ranks is not None:
        arithmetic = Arithmetic(**ranks.agree("arithmetic", lambda: asdict(arithmetic) if arithmetic else {}))
        ranks.open(arithmetic.device, config.device.wait_seconds)
        share_layers(model, ranks)
    assert arithmetic is not None
    model = arithmetic.place(model)
    if config.device.graph:
        check_graph(config, arithmetic.device, streamed=record.streamed)
    optimizer, schedule = build_optimizer(config.optim, model), build_schedule(config.schedule)
    place: dict[str, Any] = {"device": arithmetic.device, "channels_last": arithmetic.channels_last}
    place |= {} if ranks is None else {"shard": ranks.shard}
    with ONE_THREAD.on_threads(), out_of_memory(f"placing the data on {arithmetic.device}", TOO_MUCH_DATA):
        train_loader = make_train_loader(config, data.train, record.normalize, seed=order_seed, **place)
        val_loader = None if data.val is None else make_loader(data.val, config, record.normalize, **place)
    setup = Setup(
        train=config.train,
        evaluation=config.evaluation,
        checkpoint=config.checkpoint,
        train_loader=train_loader,
        val_loader=val_loader,
        schedule=schedule,
        base_lr=optimizer.param_groups[0]["lr"],
        order_seed=order_seed,
        arithmetic=arithmetic,
        num_classes=record.num_classes,
        graph=config.device.graph,
        ranks=ranks,
    )
    ema = None if config.train.ema_decay == 0 else _copy(model, config, record, arithmetic)
    state = TrainState(model, optimizer, schedule.start(), ema=ema)
    return Prepared(record, data.warnings, state, setup, facts, config.model, start)


def check_shared(config: Config, ranks: Ranks) -> None:
    """Raise ConfigError where a training cannot be shared by so many processes, or where they were given other settings or versions."""
    ranks.compare("versions", describe_environment()["packages"], changed_settings)
    ranks.compare("config", _as_json(to_dict(config)), changed_settings)
    if config.train.batch_size < ranks.size:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} is the batch of all {ranks.size} ranks together, so each must get an image of it; "
            f"set train.batch_size={ranks.size} or larger, or start fewer"
        )
    if config.device.graph:
        raise ConfigError("device.graph: a step of several ranks is not captured; set device.graph=false")


def _prepare_like(config: Config, like: Prepared) -> Prepared:
    """Return a network, an optimizer and a schedule of their own beside the data and the arithmetic of another config."""
    record, init_seed = like.data, config.seed if config.init_seed is None else config.init_seed
    model = like.setup.arithmetic.place(build_model(config.model, record.image_shape, record.num_classes, init_seed))
    optimizer, schedule = build_optimizer(config.optim, model), build_schedule(config.schedule)
    setup = replace(like.setup, train=config.train, schedule=schedule, base_lr=optimizer.param_groups[0]["lr"])
    facts = like.facts
    if config.model != like.model:
        facts = {"num_parameters": count_parameters(model), "flops_per_image": flops_per_image(model, record.image_shape)}
    return Prepared(record, like.warnings, TrainState(model, optimizer, schedule.start()), setup, facts, config.model)


def check_early_size(model: Any, name: str, num_channels: int, size: int) -> None:
    """Raise ConfigError where a network cannot take images of train.early_size pixels as well."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, num_channels, size, size))
    except RuntimeError:
        raise ConfigError(
            f"train.early_size is {size}, but {name} does not take images of that size beside its own; "
            f"set train.early_size=null, or take a network that ends in a pooling over the whole image (airbench, resnet18, small_cnn)"
        ) from None
    finally:
        model.train(was_training)


def _copy(model: Any, config: Config, record: DataRecord, arithmetic: Arithmetic) -> Any:
    """Return a second network with the same weights."""
    copy = arithmetic.place(build_model(config.model, record.image_shape, record.num_classes, seed=0, whiten=config.input.whiten))
    copy.load_state_dict(model.state_dict())
    return copy


def _arithmetic_of(resumed: GoingOn | None, config: Config) -> Arithmetic | None:
    """Return the arithmetic of a run that goes on, but where its settings ask for another; None is to be settled."""
    if resumed is None:
        return None
    recorded, device = arithmetic_of(resumed.run), config.device
    asked = {"device": device.name, "precision": device.precision, "memory_format": device.memory_format, "threads": device.threads}
    fits = all(value in ("auto", None, getattr(recorded, key)) for key, value in asked.items())
    return recorded if fits else None


def open_folder(
    writer: RunWriter, config: Config, prepared: Prepared, notes: list[str], *, environment: dict[str, Any] | None = None
) -> Writing[None]:
    """Make the folder a run: write its config, and in run.json where and with what it is trained."""
    seeds = {"seed": config.seed, "init_seed": config.init_seed, "order_seed": config.order_seed, "split_seed": config.split.seed}
    return writer.starting(
        to_yaml(config),
        environment=environment or describe_environment(),
        seeds=seeds,
        network=prepared.facts | ({"init_from": prepared.start} if prepared.start else {}),
        notes=notes,
        **_made_with(prepared),
    )


def _made_with(prepared: Prepared) -> dict[str, Any]:
    """Return what run.json says of the data and the arithmetic."""
    arithmetic = prepared.setup.arithmetic
    num_ranks = 1 if prepared.setup.ranks is None else prepared.setup.ranks.size
    return {"arithmetic": asdict(arithmetic), "data": prepared.data.to_json(), "machine": machine(arithmetic), "ranks": num_ranks}


def go_on(writer: RunWriter, config: Config, prepared: Prepared, resumed: GoingOn, console: Console, notes: list[str]) -> None:
    """Take a run up where its newest whole checkpoint stands: compare first, restore then, write last."""
    state, folder = prepared.state, writer.path / "checkpoints"
    remarks: list[str] = []
    checkpoint = newest_whole(folder, remarks.append)
    facts = {} if checkpoint is None else checkpoint.record["facts"]
    trained_with, asked_for = _as_json(completed(facts.get("config", resumed.run.config))), _as_json(to_dict(config))
    changes = {} if checkpoint is None else check_config(trained_with, asked_for, override=resumed.override)
    other_data = check_data(writer.info.get("data", {}), _as_json(prepared.data.to_json()), override=resumed.override or checkpoint is None)
    made_with = _made_with(prepared)
    other_ranks = check_ranks(writer.info, made_with["ranks"], override=resumed.override)
    reason = "; ".join(filter(None, (inexact(writer.info.get("machine", {}), made_with["machine"]), other_ranks))) or None
    if reason and resumed.exact:
        raise ConfigError(f"{reason}; leave out --exact to go on all the same")
    if checkpoint is not None:
        restore_state(checkpoint, state, optimizer=keeps_memory(changes))
        if config.train.epochs < state.epoch + (state.batch > 0):
            raise ConfigError(f"train.epochs is {config.train.epochs}, but the run stands in epoch {state.epoch + 1}; set a larger one")
        remarks += _begin_anew(state, prepared.setup, folder, changes, other_data)
    else:
        remarks.append("nothing was saved yet; training begins at step 0")
        for model in filter(None, (state.model, state.ema)):
            start_from(model, config.train)
    for remark in [*([reason] if reason else []), *(f"the data changed since the run began: {change}" for change in other_data), *remarks]:
        console.warn(remark)
    for key, change in changes.items():
        console.line(f"changed: {key} {change}")
    entry = {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "step": state.step, "changed": changes, "inexact": reason, "data": other_data}
    writer.take_up(
        resumes=[*writer.info.get("resumes", []), entry],
        rollbacks=writer.info.get("rollbacks", [])[: state.rollbacks],
        notes=[*writer.info.get("notes", []), *notes],
        **made_with,
    )
    if checkpoint is not None:
        go_on_from(folder, checkpoint, state.best)
        prune(folder, config.checkpoint.keep_last)  # a kill may have come between the last save and this
        writer.seconds_before = max(writer.seconds_before, float(facts.get("seconds", 0)))
    if missing := writer.cut_rows_after(state.step, state.epoch):
        console.warn(f"metrics.jsonl lacks {missing} rows up to step {state.step:,}; the curves will have a gap")
    if resumed.run.config != asked_for:
        write_text(writer.path / "config.yaml", to_yaml(config))


def _begin_anew(state: TrainState, setup: Setup, folder: Path, changes: dict[str, str], other_data: list[str]) -> list[str]:
    """Forget what the state remembers of figures that no longer compare, or of a best epoch that is damaged; say so."""
    remarks = []
    if not keeps_memory(changes):
        remarks.append("the optimizer changed; it begins with an empty memory")
    if any(key.startswith("schedule.") for key in changes) or other_data:
        state.schedule_state = setup.schedule.start()
    if other_data:
        state.best, state.stale_epochs = None, 0
        remarks.append("the best epoch is looked for anew: figures on other data do not compare")
    elif state.best is not None:
        try:
            read_weights(folder / f"step-{state.best.step}")
        except CheckpointError as error:
            remarks.append(f"{error}; the best epoch is looked for anew")
            state.best, state.stale_epochs = None, 0
    return remarks


def _as_json(value: Any) -> Any:
    """Return plain data as they come back from a file: lists for tuples."""
    return json.loads(json.dumps(value))


def _announce(console: Console, prepared: Prepared, writer: RunWriter, *, resumed: bool) -> None:
    setup, facts = prepared.setup, prepared.facts
    console.line(f"run {writer.path}{f' (resumed at step {prepared.state.step:,})' if resumed else ''}")
    for line in prepared.data.lines():
        console.line(line)
    for warning in prepared.warnings:
        console.warn(warning)
    chosen = setup.arithmetic
    console.line(
        f"network: {facts['num_parameters']:,} parameters, {show_mflop(facts['flops_per_image'])} MFLOP an image; "
        f"{setup.steps_per_epoch:,} steps an epoch, {setup.train.epochs} epochs"
    )
    if prepared.start is not None:
        console.line(describe_start(prepared.start))
    console.line(f"device: {chosen.describe()}")
    if setup.ranks is not None:
        console.line(f"ranks: {setup.ranks.size} processes share each batch of {setup.train.batch_size}")


def conclude(config: Config, prepared: Prepared, writer: RunWriter, console: Console, data_dir: Path, *, pictures: bool = True) -> None:
    """Restore the best weights, open the test set if the config says so, write the summary and the pictures."""
    state, setup = prepared.state, prepared.setup
    if state.best is None:
        raise CheckpointError("the best epoch was forgotten and none came after it; train on with train.epochs=N beside --resume")
    path, best = writer.path / "checkpoints" / f"step-{state.best.step}", state.best.figures
    load_weights(state.evaluated_model, read_weights(path), path)
    summary: dict[str, Any] = {"best_epoch": state.best.epoch, "epochs": state.epoch, "steps": state.step}
    summary |= {key: best[key] for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy") if key in best}
    if state.epoch < setup.train.epochs:
        console.line(f"stopped early: no better epoch in the last {state.stale_epochs}")
    console.line(
        f"best epoch {state.best.epoch}: its weights are restored"
        + (f", val accuracy {best['val_accuracy']:.4f}" if "val_accuracy" in best else "")
    )
    (writer.update if pictures or config.train.test_at_end else writer.note)(summary=summary | {"seconds": round(writer.seconds, 3)})
    try:
        drawn = draw_pictures(Run(writer.path)) if pictures else []
    except StorageError as error:
        console.warn(f"{error}; the run is whole without its pictures")
        drawn = []
    if config.train.test_at_end:
        summary |= _open_test_set(config, prepared, writer, console, data_dir)
        writer.update(summary=summary | {"seconds": round(writer.seconds, 3)})
    console.line(f"run folder: {writer.path}")
    if drawn:
        console.line(f"curves: {drawn[0]}")


def _open_test_set(config: Config, prepared: Prepared, writer: RunWriter, console: Console, data_dir: Path) -> dict[str, float]:
    """Evaluate the best weights on the sealed test set, record the opening, and return its figures."""
    ranks, best = prepared.setup.ranks, prepared.state.best
    assert best is not None
    opened = [entry for entry in writer.info["test_openings"] if entry.get("by") == BY_TRAIN and entry.get("step") == best.step]
    if agreed(ranks, OPENED, lambda: bool(opened)):  # by a process that was stopped behind it
        return {"test_accuracy": opened[-1]["accuracy"], "test_loss": opened[-1]["loss"]}
    test = evaluate_test_set(config, prepared, data_dir, console)
    opening = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "by": BY_TRAIN,
        "step": best.step,
        "accuracy": test.accuracy,
        "loss": test.loss,
        "num_images": test.num_images,
    }
    openings = [*writer.info["test_openings"], opening]
    writer.update(test_openings=openings)
    times = "once" if len(openings) == 1 else f"{len(openings)} times by now"
    console.line(
        f"test accuracy {test.accuracy:.4f} on {test.num_images:,} images (the sealed test set, opened {times})", style="bold green"
    )
    return {"test_accuracy": test.accuracy, "test_loss": test.loss}


def evaluate_test_set(config: Config, prepared: Prepared, data_dir: Path, console: Console) -> Evaluation:
    """Return what the best weights, which rank 0 has, make of the test set; several processes share its batches."""
    setup, ranks = prepared.setup, prepared.setup.ranks
    dataset = open_test_set(config, data_dir, prepared.data.to_json())
    for warning in dataset.warnings:
        console.warn(warning)
    place: dict[str, Any] = {"device": setup.arithmetic.device, "channels_last": setup.arithmetic.channels_last}
    if ranks is not None:
        ranks.compare(
            "test data", {"num_images": len(dataset), "content_hash": content_hash(sample(dataset, SAMPLE_BYTES))}, changed_settings
        )
        share_state(prepared.state, ranks)
        place["shard"] = ranks.shard
    loader = make_loader(dataset, config, prepared.data.normalize, **place)
    return evaluate_model(prepared.state.evaluated_model, loader, setup.num_classes, setup.arithmetic, setup.evaluation, ranks=ranks)


def draw_pictures(run: Run) -> list[Path]:
    """Draw the curves of a run, and its loss and learning rate by step, into its folder; return the files."""
    curves = write_figure(run.path / "curves.png", plot_curves({run.name: run.epochs}))
    return [curves, write_figure(run.path / "steps.png", plot_steps(run.steps))]
