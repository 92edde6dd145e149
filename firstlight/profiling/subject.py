"""What is profiled: an experiment, or a run with the arithmetic that it was trained in; and where what is found is kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.config.load import find_config
from firstlight.config.schema import Config
from firstlight.data.build import load_training_data
from firstlight.engine.device import Arithmetic
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import runs_dir_of
from firstlight.engine.restore import arithmetic_of, data_record
from firstlight.engine.sources import load_config
from firstlight.errors import ConfigError, RunNotFoundError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.tracking.run import Run, find_run

FOLDER = "profile"
SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
    "corrupted_mnist": ((1, 28, 28), 10),
    "kaggle_digits": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
}
"""Shape and number of classes of the data sets that come in one size: a network on them is described without reading an image."""


@dataclass(frozen=True)
class Subject:
    """An experiment, of a run where there is one."""

    config: Config
    run: Run | None
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the run, or of the experiment."""
        return self.config.name if self.run is None else self.run.name

    @property
    def arithmetic(self) -> Arithmetic | None:
        """The arithmetic of the run; None where it is still to be settled, or an override asks for another."""
        if self.run is None or any(word.startswith("device") for word in self.overrides):
            return None
        return arithmetic_of(self.run)

    def image_shape(self, data_dir: Path) -> tuple[tuple[int, int, int], int]:
        """Return the shape of an image as the network gets it, and the number of classes; unknown data are read for it."""
        config = self.config
        if self.run is not None and not any(word.startswith(("data", "input")) for word in self.overrides):
            record = data_record(self.run)
            channels, height, width = record["image_shape"]
            return (channels, height, width), len(record["class_names"])
        if config.data.name in SHAPES:
            (channels, *sides), num_classes = SHAPES[config.data.name]
            height, width = [config.input.image_size] * 2 if config.input.image_size is not None else sides
            return (channels, height, width), num_classes
        with out_of_memory("reading the data", "try a smaller input.image_size, or fewer images"):
            found = load_training_data(config, data_dir).record
        return found.image_shape, found.num_classes

    def keep(self, what: str, figures: dict[str, Any], pictures: Any, out: Path | None) -> dict[str, Any]:
        """Write the figures as JSON and a figure as PNG and SVG, and return the figures with `files`, as a command prints them.

        They go into RUN/profile/<what>.*, or for an experiment into `out`/<what>-<experiment>.*.
        """
        folder = out or (Path(FOLDER) if self.run is None else self.run.path / FOLDER)
        stem = make_dir(folder) / (f"{what}-{self.config.name}" if self.run is None else what)
        files = [] if pictures is None else write_pictures(stem, pictures)
        path = stem.with_name(f"{stem.name}.json")
        found = {"run": None if self.run is None else str(self.run.path), "experiment": self.config.name, "what": what, "split": "train"}
        found |= {"overrides": list(self.overrides)} | figures | {"files": [str(file) for file in (*files, path)]}
        write_json(path, found)
        return found


def find_subject(source: str | None, overrides: tuple[str, ...] | list[str], runs_dir: str | Path | None = None) -> Subject:
    """Return what a name or path means: a run folder, an experiment, or a run in the folder of runs; by default the quickstart.

    Raises ConfigError where it is none of them.
    """
    words, name = tuple(overrides), source or "quickstart"
    if (Path(name) / "run.json").is_file():
        return _of_run(find_run(name, runs_dir_of(runs_dir)), words)
    try:
        find_config(name)
    except ConfigError as error:
        try:
            return _of_run(find_run(name, runs_dir_of(runs_dir)), words)
        except RunNotFoundError:
            raise ConfigError(f"{error}, and no run in {runs_dir_of(runs_dir)}; `firstlight runs` lists the runs there are") from None
    return Subject(load_config(name, *words), None, words)


def _of_run(run: Run, overrides: tuple[str, ...]) -> Subject:
    arithmetic_of(run), data_record(run)  # a run that was stopped before it knew them is refused here
    return Subject(load_config(run.path / "config.yaml", *overrides), run, overrides)
