"""A finished run opened to be looked at: its network, the images of one split, and where what is found is kept.

Every inspection writes runs/<name>/inspection/<what>-<split>.json (its figures, a sentence under `says`, its `files`) with its pictures
and tables beside it. A report collects what it finds there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from firstlight.config.schema import Config
from firstlight.data.build import make_loader
from firstlight.data.dataset import Dataset
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.device import Arithmetic
from firstlight.engine.finished import MORE_MEMORY, labelled_part
from firstlight.engine.memory import out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import arithmetic_of, config_of, data_record, load_model, normalize_of
from firstlight.errors import ConfigError, DataError, FirstlightError
from firstlight.files import make_dir, write_json
from firstlight.tracking.run import Run, find_run
from firstlight.tracking.writer import record_test_opening

FOLDER = "inspection"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Opened:
    """A run with its network in eval mode on its device, and the labelled images of one split.

    what: the inspection, such as `mistakes`; it names the files.
    """

    run: Run
    what: str
    split: str
    config: Config
    arithmetic: Arithmetic
    normalize: Normalize
    model: Any
    dataset: Dataset
    data_dir: Path

    @cached_property
    def folder(self) -> Path:
        """Where what is found is kept; made when it is first asked for."""
        return make_dir(self.run.path / FOLDER)

    @property
    def stem(self) -> Path:
        """The path of what this inspection writes, without a suffix."""
        return self.folder / f"{self.what}-{self.split}"

    def loader(self, dataset: Dataset | None = None) -> Loader:
        """Return a loader over the images in order, normalised, not augmented; of the split unless others are given."""
        images = self.dataset if dataset is None else dataset
        return make_loader(images, self.config, self.normalize, device=self.arithmetic.device, channels_last=self.arithmetic.channels_last)

    def training_images(self) -> Dataset:
        """Return the images that the run was trained on."""
        return self.dataset if self.split == "train" else labelled_part(self.run, self.config, "train", self.data_dir)

    def validation_images(self) -> Dataset:
        """Return the images that the run was validated on. Raises DataError where it had none."""
        return self.dataset if self.split == "val" else labelled_part(self.run, self.config, "val", self.data_dir)

    def refuse_nonfinite(self, *values: Tensor) -> None:
        """Raise FirstlightError where what the network answered is not all numbers."""
        if not all(bool(value.isfinite().all()) for value in values):
            raise FirstlightError(
                f"the network of {self.run.path} answers with numbers that are not finite; train it anew with a smaller lr"
            )

    def keep(self, figures: dict[str, Any], files: list[Path]) -> dict[str, Any]:
        """Write the figures as JSON beside the pictures and return them with run, split and files, as a command prints them."""
        path = self.stem.with_name(f"{self.stem.name}.json")
        found = {"run": str(self.run.path), "what": self.what, "split": self.split, "num_images": len(self.dataset)} | figures
        found["files"] = [str(file) for file in (*files, path)]
        write_json(path, found)
        return found


@contextmanager
def opened(
    run: str | Path,
    what: str,
    *,
    split: str = "val",
    which: str = "best",
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    needs_model: bool = True,
) -> Iterator[Opened]:
    """Open a run for a block, in which it computes on the threads and reports memory errors as a training does.

    Opening `test` is written into the run. needs_model: where it is false, `model` is None.
    Raises ConfigError for a split that is none, DataError where the run has no such images.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; allowed: {', '.join(SPLITS)}")
    found = find_run(run, runs_dir_of(runs_dir))
    config, arithmetic, folder = config_of(found), arithmetic_of(found), data_dir_of(data_dir)
    if split == "val" and data_record(found).get("num_val") == 0:
        raise DataError(f"run {found.path} was trained without validation (split.val_fraction=0); take --split train, or open --split test")
    with arithmetic.on_threads(), out_of_memory(f"reading the {split} images and the network", MORE_MEMORY):
        dataset = labelled_part(found, config, split, folder)
        if split == "test":
            record_test_opening(found, {"by": f"inspect {what} ({which})", "num_images": len(dataset)})
        model = arithmetic.place(load_model(found, which=which)) if needs_model else None
        yield Opened(found, what, split, config, arithmetic, normalize_of(found), model, dataset, folder)
