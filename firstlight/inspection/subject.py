"""What `inspect data` is pointed at: a run, a shipped experiment, a config file, a named data set, or images at a path."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from firstlight.config.load import check_tree, shipped_experiments
from firstlight.config.override import parse_overrides
from firstlight.config.schema import Config
from firstlight.data.build import SOURCES, load_experiment_part, load_training_data
from firstlight.data.dataset import Dataset
from firstlight.data.normalize import Normalize
from firstlight.data.training_data import TrainingData
from firstlight.engine.finished import check_same_images
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import config_of, normalize_of
from firstlight.engine.sources import REGISTRIES, load_config
from firstlight.errors import ConfigError, did_you_mean
from firstlight.tracking.run import Run, find_run, has_run

SECTIONS = frozenset(field.name for field in fields(Config))
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
SHARD_SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}


@dataclass(frozen=True)
class Subject:
    """Data as an experiment would train on them.

    run: the run they were asked for by, None for a config or a data set.
    """

    name: str
    config: Config
    run: Run | None
    data_dir: Path

    def training_data(self) -> TrainingData:
        """Return the training and validation images. Raises DataError where they are not those of the run."""
        data = load_training_data(self.config, self.data_dir)
        if self.run is not None:
            check_same_images(data, self.run)
        return data

    def part(self, part: str) -> Dataset:
        """Return the "train" (with validation) or "test" part."""
        return load_experiment_part(self.config, part, self.data_dir)

    def normalize(self, data: TrainingData) -> Normalize:
        """Return the normalisation of the run, or what its training would measure."""
        return data.record.normalize if self.run is None else normalize_of(self.run)


def find_subject(word: str, settings: Sequence[str], *, runs_dir: Path | None, data_dir: Path | None) -> Subject:
    """Return what a word names, with overrides: a run, else a data set, an experiment or a config file, else images at a path.

    For a data set or a path, settings such as image_size=64 are its own, those such as augment.flip=true the experiment's.
    Raises ConfigError where it names nothing.
    """
    folder = data_dir_of(data_dir)
    if has_run(word, runs_dir_of(runs_dir)):
        run = find_run(word, runs_dir_of(runs_dir))
        if settings:
            raise ConfigError(f"{settings[0]}: the data of a run are what they were; leave it out, or name the experiment and not the run")
        return Subject(run.name, config_of(run), run, folder)
    if word in SOURCES:
        return Subject(word, _config_around({"name": word}, settings), None, folder)
    if word in shipped_experiments() or Path(word).suffix in (".yaml", ".yml"):
        config = load_config(word, *settings)
        return Subject(config.name, config, None, folder)
    if kind := kind_at(word):
        name = Path(word).expanduser().resolve().name.partition(".")[0] or kind
        return Subject(name, _config_around({"name": kind, "path": word}, settings), None, folder)
    known = did_you_mean(word, [*SOURCES, *shipped_experiments()])
    raise ConfigError(f"{word!r} is no data set, experiment, run or folder here{known}; `firstlight data list` shows the data sets")


def kind_at(path: str) -> str | None:
    """Return what lies at a path: an HDF5 file, shards (a folder of them, a pattern, a .parquet file), or class folders; None for nothing.

    A single .tar is taken for an archive of class folders, as it always was.
    """
    given = Path(path).expanduser()
    if not given.exists():
        return next((name for name, suffix in SHARD_SUFFIXES.items() if path.endswith(suffix) and set(path) & set("{*?[")), None)
    for name, suffix in SHARD_SUFFIXES.items():
        if given.is_dir() and next(chain(given.glob(f"*{suffix}"), given.glob(f"*/*{suffix}")), None):
            return name
    if given.suffix.lower() in HDF5_SUFFIXES:
        return "hdf5"
    return "parquet" if given.suffix == ".parquet" else "folder"


def _config_around(data: dict[str, Any], settings: Sequence[str]) -> Config:
    """Return the default experiment on a data set; settings that begin with no section of a config are those of the data set."""
    words = [word if word.partition("=")[0].split(".")[0].strip() in SECTIONS else f"data.{word}" for word in settings]
    tree = parse_overrides(words)
    given = tree.get("data", {})
    if "name" in given:
        raise ConfigError(f"data={given['name']} beside the data set {data['name']}; name one of them")
    config, problems = check_tree({**tree, "data": {**data, **given}}, REGISTRIES)
    if problems:
        raise ConfigError("; ".join(problem.message for problem in problems))
    return config
