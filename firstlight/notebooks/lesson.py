"""What the cells of a lesson call: the data and the size it runs at, guesses beside what is true, and numbers that are checked.

>>> lesson = begin("training_loop")
>>> train, val = lesson.load()
>>> lesson.reveal(guess=2.0, truth=2.3026, what="loss before training")
"""

import builtins
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from firstlight.data.build import load_data
from firstlight.data.normalize import pixel_scale
from firstlight.data.places import data_dir_of
from firstlight.data.splits import carve, take
from firstlight.engine.train import train
from firstlight.errors import ConfigError, DataError
from firstlight.files import figure_bytes, make_dir, remove, write_bytes
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

SIZES = ("small", "full")
"""Values of FIRSTLIGHT_LESSON: small is a quick walk that shows the same effects on fewer images and epochs, full is what a reader runs."""
PICTURES = Path("pictures")
"""Where a lesson writes its figures, below the folder it runs in."""
RUNS = Path("runs")
"""Where it trains, in a folder of its own."""
CLOSE = 0.1
"""A guess within this share of the truth counts as right."""


class Part(NamedTuple):
    """Images of a part of a data set: float32 [N, C, H, W] in [0, 1], and their labels int64 [N]."""

    images: Tensor
    labels: Tensor


class Quiet(float):
    """A number that a notebook does not show below a cell which has printed it already."""

    def _ipython_display_(self) -> None:
        """Show nothing."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A lesson that runs.

    name: names its pictures. data: mnist, or digits where MNIST is not here. size: small or full.
    numbers: what it measured so far, by name. bounds: the least and the most that it says of each.
    """

    name: str
    data: str
    size: str
    numbers: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Whether this is the quick walk."""
        return self.size == "small"

    def pick(self, *, small: T, full: T) -> T:
        """Return the value for the size at which the lesson runs."""
        return small if self.small else full

    def on(self, *, mnist: T, digits: T) -> T:
        """Return the value for the data with which the lesson runs."""
        return mnist if self.data == "mnist" else digits

    def load(self, *, num_train: int | None = None, val_fraction: float = 1 / 6, seed: int = 0) -> tuple[Part, Part]:
        """Return training and validation images, both carved from the training part: the test set stays sealed.

        num_train: so many training images, with the classes in proportion; all of them otherwise.
        """
        dataset = load_data(self.data)
        assert dataset.labels is not None
        train, val = carve(dataset.labels, val_fraction, seed)
        if num_train is not None and num_train < len(train):
            train = train[take(dataset.labels[train], num_train, seed)]
        pixels = dataset.images / pixel_scale(dataset.images)
        return Part(pixels[train], dataset.labels[train]), Part(pixels[val], dataset.labels[val])

    def reveal(self, guess: float | str | None, truth: float | str, what: str) -> None:
        """Print a guess beside the truth. Without a guess it asks for one, so that the cell is run again after some thought."""
        if guess is None:
            print(f"{what}: write your guess first, then run this cell again")
        else:
            if isinstance(truth, str) or isinstance(guess, str):
                right = _plain(guess).lower() == _plain(truth).lower()
            else:
                right = abs(guess - truth) <= CLOSE * abs(truth)
            print(f"{what}: you said {_plain(guess)}, it is {_plain(truth)}: {'right' if right else 'look again at why'}")

    def measured(self, name: str, value: float | Tensor, *, least: float | None = None, most: float | None = None) -> float:
        """Print a number that the lesson states, keep it in `numbers`, and hold it against its bounds.

        Raises AssertionError where it lies outside: then the text around it does not hold here.
        """
        number = float(value)
        self.numbers[name], self.bounds[name] = number, (least, most)
        bounds = " and ".join(f"at {which} {_written(bound)}" for which, bound in (("least", least), ("most", most)) if bound is not None)
        print(f"{name}: {_written(number)}" + (f" ({bounds})" if bounds else ""))
        assert least is None or number >= least, f"{name} is {number:.4g}, and the lesson says at least {least:g}"
        assert most is None or number <= most, f"{name} is {number:.4g}, and the lesson says at most {most:g}"
        return Quiet(number)

    def fresh(self, name: str) -> Path:
        """Return the path runs/LESSON/NAME, at which nothing stands: what an earlier walk through the lesson left is removed."""
        path = make_dir(RUNS / self.name) / name
        remove(path)
        return path

    def train(self, name: str, source: str | Path, *overrides: str, **settings: Any) -> Run:
        """Return the run of `fl.train` at runs/LESSON/NAME, in the plain arithmetic that gives the same numbers on every walk."""
        place = self.fresh(name)
        device = {"device": {"precision": "float32", "memory_format": "contiguous", "threads": 1}}
        return train(source, *overrides, name=name, runs_dir=place.parent, console=Console(quiet=True), **device | settings)

    def show(self, figure: "Figure", name: str) -> None:
        """Write a figure to pictures/LESSON-NAME.png, and show it below the cell where this is a notebook."""
        content = figure_bytes(figure, "png")
        path = make_dir(PICTURES) / f"{self.name}-{name}.png"
        write_bytes(path, content)
        print(f"picture: {path.as_posix()}")
        if "get_ipython" in vars(builtins):
            from IPython.display import Image, display

            display(Image(content, width=figure.get_figwidth() * 72))


def begin(name: str) -> Lesson:
    """Return the lesson's surroundings and say what it runs on: MNIST where its files are here, otherwise the digits of the package.

    FIRSTLIGHT_LESSON=small asks for the quick walk. torch draws from seed 0 from here on.
    """
    size = os.environ.get("FIRSTLIGHT_LESSON") or "full"
    if size not in SIZES:
        raise ConfigError(f"FIRSTLIGHT_LESSON={size} is no size of a lesson (allowed: {', '.join(SIZES)}); set one of them, or nothing")
    torch.manual_seed(0)
    lesson = Lesson(name=name, data=data_here(), size=size)
    where = lesson.on(mnist="MNIST, 28x28 pixels", digits="8x8 digits that come with firstlight (MNIST is not in the data folder)")
    print(f"data: {where}; size: {size}")
    return lesson


def _plain(value: float | str) -> str:
    """Return a word without blanks around it, or a number as `measured` writes it."""
    return value.strip() if isinstance(value, str) else _written(value)


def _written(number: float) -> str:
    """Return a number with four digits, or all of them where it is a whole one."""
    return f"{number:,.0f}" if number == round(number, 0) and abs(number) < 1e15 else f"{number:.4g}"


def data_here(data_dir: Path | None = None) -> str:
    """Return the name of the data that lessons run on here: mnist where its files are, otherwise digits."""
    try:
        load_data("mnist", data_dir=data_dir_of(data_dir))
    except DataError:
        return "digits"
    return "mnist"
