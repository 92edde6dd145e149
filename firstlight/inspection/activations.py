"""What happens inside a network by depth: of a run at its start and trained, of several runs, or of variants of an experiment.

Reading order: activations, look_at_run, compare_runs, look_at_variants.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from firstlight.config.load import shipped_experiments
from firstlight.config.schema import Config
from firstlight.data.loader import Batch
from firstlight.engine.device import Arithmetic, choose_device
from firstlight.engine.finders import endless_steps, step_on
from firstlight.engine.finished import spread
from firstlight.engine.memory import out_of_memory, smaller_batch
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.seeding import private_randomness
from firstlight.engine.sources import load_config
from firstlight.engine.train import prepare
from firstlight.errors import ConfigError, RunNotFoundError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.inspection.layer_images import feature_maps, filters_of, first_layer_change
from firstlight.inspection.layer_statistics import Layer, measure_layers, weight_layers
from firstlight.inspection.one_image import one_image
from firstlight.inspection.opened import Opened, opened
from firstlight.models.build import build_model
from firstlight.models.whitening import Whitened
from firstlight.plotting.activations import Series, plot_depth, plot_feature_maps, plot_filters, plot_gradients
from firstlight.tracking.console import Console
from firstlight.tracking.csv_table import write_csv
from firstlight.tracking.run import has_run
from firstlight.tracking.table import print_table

MAX_IMAGES = 256
"""Images that the figures come from, or the training's batch where that is smaller: so many had room in a step of the training."""
MAX_VARIANTS = 8
"""More lines than that on the same axes are not told apart."""
START = "at its start"
NUM_FILTERS = 32
NUM_MAPS = 8


@dataclass(frozen=True)
class Measured:
    """A network at one moment. name: of its run or variant; step: optimizer steps that it had; loss: nats, of the measured batch."""

    name: str
    when: str
    loss: float
    layers: list[Layer]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a layer."""
        return [
            {"name": self.name, "when": self.when, "depth": place} | layer.to_json() for place, layer in enumerate(self.layers, start=1)
        ]


def is_run(source: str, runs_dir: str | Path | None) -> bool:
    """Tell whether a word names a run, and not a config. Raises RunNotFoundError where it is neither."""
    if has_run(source, runs_dir_of(runs_dir)):
        return True
    if source not in shipped_experiments() and not Path(source).is_file():
        raise RunNotFoundError(
            f"{source} is no run in {runs_dir_of(runs_dir)}, no experiment and no file; `firstlight runs` lists the runs there are"
        )
    return False


def look_at_runs(
    runs: Sequence[str | Path], *, refused: Sequence[str] = (), image: str = "0", split: str = "val", **places: Any
) -> dict[str, Any]:
    """Look at one run, or compare several. refused: settings and grid of the command, which belong to an experiment."""
    if refused:
        raise ConfigError(f"{runs[0]} is a run, whose settings stand; leave out {refused[0]}, or name an experiment")
    return compare_runs(runs, split=split, **places) if len(runs) > 1 else look_at_run(runs[0], image=image, split=split, **places)


def look_at_run(
    run: str | Path, *, image: str = "0", split: str = "val", runs_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> dict[str, Any]:
    """Draw a run's first filters, its feature maps of one image, and activations and gradients by depth, at its start and trained.

    image: a place in the split, or an image file. Raises ConfigError for a network without named layers.
    """
    with opened(run, "activations", split=split, runs_dir=runs_dir, data_dir=data_dir) as found:
        refuse_without_layers(found.model, found.config, f"run {found.run.path}")
        one, called = one_image(found, image)
        first = initial_model(found)
        batch = batch_of(found)
        moments = [
            measure(found.run.name, when, model, batch, found.config, found.arithmetic.device)
            for when, model in ((START, first), ("trained", found.model))
        ]
        says = f"{found.run.name}: {say_moments(moments)}"
        files = draw_moments(found.stem, moments, says)
        moved = first_layer_change(first, found.model)
        pair = [filters_of(model, found.dataset.image_shape, NUM_FILTERS) for model in (first, found.model)]
        if pair[0] is not None and pair[1] is not None:
            title = f"{found.run.name}: training moved the weights of the first layer, {pair[0][0]}, by {moved:.0%} of their norm"
            both = {START: pair[0][1], "trained": pair[1][1]}
            files += write_pictures(found.stem.with_name(f"{found.stem.name}-filters"), plot_filters(both, title=title))
        maps = feature_maps(found.model, next(one.loader().batches(0)).images, NUM_MAPS)
        if maps:
            title = f"{found.run.name}: what each convolution makes of {called}; brighter is larger"
            files += write_pictures(
                found.stem.with_name(f"{found.stem.name}-maps"), plot_feature_maps(one.dataset.pixels(0), maps, title=title)
            )
        rows = [row for moment in moments for row in moment.rows()]
        files.append(write_csv(found.stem.with_name(f"{found.stem.name}.csv"), rows))
        return found.keep({"says": says, "batch": len(batch.labels), "first_layer_moved": moved, "layers": rows}, files)


def compare_runs(
    runs: Sequence[str | Path], *, split: str = "val", runs_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> dict[str, Any]:
    """Draw activations and gradients by depth of several runs on the same axes, at their starts and trained; kept with the first run."""
    if len(runs) > MAX_VARIANTS:
        raise ConfigError(f"--compare makes {len(runs)} runs, at most {MAX_VARIANTS} are told apart on the same axes; name fewer")
    moments: list[Measured] = []
    first: Opened | None = None
    for run in runs:
        with opened(run, "activations-compare", split=split, runs_dir=runs_dir, data_dir=data_dir) as found:
            refuse_without_layers(found.model, found.config, f"run {found.run.path}")
            batch, device = batch_of(found), found.arithmetic.device
            moments.append(measure(found.run.name, START, initial_model(found), batch, found.config, device))
            moments.append(measure(found.run.name, "trained", found.model, batch, found.config, device))
            first = first or found
    assert first is not None
    says = say_moments(moments)
    rows = [row for moment in moments for row in moment.rows()]
    files = [*draw_moments(first.stem, moments, says), write_csv(first.stem.with_name(f"{first.stem.name}.csv"), rows)]
    return first.keep({"says": says, "runs": [str(run) for run in runs], "layers": rows}, files)


def look_at_variants(
    source: str,
    overrides: Sequence[str],
    grid: Sequence[str],
    *,
    num_steps: int = 50,
    compare: Sequence[str] | None = None,
    out: Path = Path("activations"),
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Draw activations and gradients by depth of variants of an experiment, new and after some optimizer steps, on the same axes.

    grid: entries such as "model.norm=true,false", of which every combination is a variant. No run folder is made.
    """
    said = console or Console(quiet=True)
    if compare:
        raise ConfigError(f"--compare goes with a run, and {source} is none; vary an experiment with --grid model.norm=true,false")
    if num_steps < 0:
        raise ConfigError(f"--steps is {num_steps}; allowed: 0 or more")
    variants = variants_of(overrides, grid)
    configs = [load_config(source, *words) for _, words in variants]  # all are checked before the first is trained
    moments: list[Measured] = []
    for (name, _), config in zip(variants, configs, strict=True):
        moments += follow(name or config.name, config, num_steps, data_dir_of(data_dir))
        said.line(f"{moments[-1].name} {moments[-1].when}: loss {moments[-1].loss:.3f}")
    says = f"{configs[0].name}: {say_moments(moments)}"
    make_dir(out)
    rows = [row for moment in moments for row in moment.rows()]
    files = [*draw_moments(out / "activations", moments, says), write_csv(out / "activations.csv", rows)]
    found: dict[str, Any] = {"experiment": configs[0].name, "what": "activations", "says": says, "num_steps": num_steps, "layers": rows}
    found["files"] = [str(file) for file in (*files, out / "activations.json")]
    write_json(out / "activations.json", found)
    return found


def variants_of(overrides: Sequence[str], grid: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return each combination of the grid's values, with its name and all of its overrides; one without a name where there is no grid."""
    axes = []
    for entry in grid:
        key, equals, text = entry.partition("=")
        if not equals or not text:
            raise ConfigError(f"--grid {entry!r} has no values; write such as --grid model.norm=true,false")
        axes.append([f"{key}={value}" for value in _parted(text)])
    combinations = list(itertools.product(*axes))
    if len(combinations) > MAX_VARIANTS:
        raise ConfigError(
            f"--grid makes {len(combinations)} variants, at most {MAX_VARIANTS} are told apart on the same axes; name fewer values"
        )
    keys = {axis[0].partition("=")[0] for axis in axes}
    kept = [word for word in overrides if word.partition("=")[0] not in keys]
    return [(" ".join(map(_short, combination)), [*kept, *combination]) for combination in combinations]


def _short(word: str) -> str:
    """Return a setting as a legend shows it: without its section, but for the name of a kind (model=lenet)."""
    key, _, value = word.partition("=")
    return f"{key.removesuffix('.name').rpartition('.')[2]}={value}"


def _parted(text: str) -> list[str]:
    """Return the values between the commas that stand in no brackets."""
    depth, values = 0, [""]
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    return values


def follow(name: str, config: Config, num_steps: int, data_dir: Path) -> list[Measured]:
    """Return the figures of a new network and of the same one some optimizer steps later, in float32."""
    arithmetic = Arithmetic(choose_device(config.device.name), threads=config.device.threads or torch.get_num_threads())
    with arithmetic.on_threads(), out_of_memory("building the network", "try a smaller one (its settings stand under `model`)"):
        prepared = prepare(config, data_dir, arithmetic=arithmetic)
    state, setup = prepared.state, prepared.setup
    refuse_without_layers(state.model, config, f"experiment {config.name}")
    smaller = smaller_batch(config.train.batch_size, config.train.accumulate, prepared.data.num_train)
    with arithmetic.on_threads(), private_randomness(arithmetic.device), out_of_memory("measuring a training step", smaller):
        batch = next(setup.train_loader.batches(0))
        batch = Batch(*(part[:MAX_IMAGES] for part in batch))
        moments = [measure(name, START, state.model, batch, config, arithmetic.device)]
        state.model.train()
        for done, parts in zip(range(1, num_steps + 1), endless_steps(setup), strict=False):
            if not math.isfinite(step_on(state, setup, parts, lr=setup.lr(state))):
                return [*moments, Measured(name, f"diverged at step {done}", math.nan, [])]
        if num_steps:
            moments.append(measure(name, f"after {num_steps} steps", state.model, batch, config, arithmetic.device))
    return moments


def refuse_without_layers(model: Any, config: Config, where: str) -> None:
    """Raise ConfigError for a network on raw tensors, whose parts have no names."""
    if not weight_layers(model):
        other = config.model.name.replace("scratch_", "")
        raise ConfigError(
            f"{where} has the network {config.model.name}, whose parts are raw tensors without names; "
            f"take model={other}, the same network in layers"
        )


def initial_model(opened: Opened) -> Any:
    """Return the network as the run began with it, on its device."""
    config, dataset = opened.config, opened.dataset
    seed = config.seed if config.init_seed is None else config.init_seed
    model = build_model(config.model, dataset.image_shape, dataset.num_classes, seed, whiten=config.input.whiten)
    if isinstance(model, Whitened):  # measured once on the images, and never trained
        model.whitening.load_state_dict(opened.model.whitening.state_dict())
    return opened.arithmetic.place(model)


def batch_of(opened: Opened) -> Batch:
    """Return images spread evenly over the split, as many as a training step saw, at most MAX_IMAGES."""
    chosen = opened.dataset.subset(spread(len(opened.dataset), min(opened.config.train.batch_size, MAX_IMAGES)))
    return next(opened.loader(chosen).batches(0))


def measure(name: str, when: str, model: nn.Module, batch: Batch, config: Config, device: str) -> Measured:
    """Return the figures of a network at one moment."""
    loss, layers = measure_layers(model, batch, seed=config.seed, device=device, label_smoothing=config.train.label_smoothing)
    return Measured(name, when, loss, layers)


def draw_moments(stem: Path, moments: Sequence[Measured], says: str) -> list[Path]:
    """Draw figures by depth, and the sizes of the gradients; return the paths."""
    names = list(dict.fromkeys(moment.name for moment in moments))
    series = [
        Series(
            f"{moment.name}\n{moment.when}" if len(names) > 1 else moment.when,
            names.index(moment.name) if len(names) > 1 else place,
            moment.when == START,
            [layer.to_json() for layer in moment.layers],
            [layer.histogram for layer in moment.layers],
        )
        for place, moment in enumerate(moments)
        if moment.layers
    ]
    pictures = write_pictures(stem, plot_depth(series, title=says))
    return pictures + write_pictures(stem.with_name(f"{stem.name}-gradients"), plot_gradients(series, title=says))


def say_moments(moments: Sequence[Measured]) -> str:
    """Return in one sentence what the gradients of the first layer say, and where units are dead or the training broke."""
    whole = [moment for moment in moments if moment.layers]
    if len({moment.name for moment in moments}) > 1:
        return "; ".join((_say_starts([moment for moment in whole if moment.when == START]), *_say_ends(moments)))
    sizes = ", ".join(f"{_first_gradient(moment):.2g} {moment.when}" for moment in whole)
    says = f"the norm of the first layer's gradient, over that of its weights, is {sizes}"
    units = sum(layer.num_units for layer in whole[-1].layers if layer.num_dead is not None)
    dead = sum(layer.num_dead or 0 for layer in whole[-1].layers)
    says += f"; {whole[-1].when}, {dead:,} of {units:,} units are dead" if units else ""
    return says + "".join(f"; it {moment.when}" for moment in moments if not moment.layers)


def _say_starts(starts: Sequence[Measured]) -> str:
    low, high = (choose(starts, key=_first_gradient) for choose in (min, max))
    return (
        f"at the start, the norm of the first layer's gradient over that of its weights is {_first_gradient(low):.2g} with {low.name}, "
        f"{_first_gradient(high):.2g} with {high.name}"
    )


def _say_ends(moments: Sequence[Measured]) -> list[str]:
    ends = [moment for moment in moments if moment.when != START]
    whole = [moment for moment in ends if moment.layers]
    broken = [f"{moment.name} {moment.when}" for moment in ends if not moment.layers]
    if not whole:
        return broken
    low, high = (choose(whole, key=lambda moment: moment.loss) for choose in (min, max))
    return [f"{low.when} the loss is {low.loss:.3g} with {low.name}, {high.loss:.3g} with {high.name}", *broken]


def _first_gradient(moment: Measured) -> float:
    return moment.layers[0].relative_gradient or 0.0


def print_activations(result: dict[str, Any]) -> None:
    """Print the finding and a row a layer."""
    print(result["says"] + "\n")
    columns = ("name", "when", "layer", "units", "dead", "zeros", "std", "gradient by output", "gradient by weights")
    rows = [
        {
            "name": row["name"],
            "when": row["when"],
            "layer": row["layer"],
            "units": row["num_units"],
            "dead": row["num_dead"],
            "zeros": row["zeros"],
            "std": row["std"],
            "gradient by output": row["output_gradient"],
            "gradient by weights": row["weight_gradient"],
        }
        for row in result["layers"]
    ]
    print_table(rows, columns)
    for file in result["files"]:
        print(file)
