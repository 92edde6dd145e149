"""Where the memory of a training goes, for several networks at one batch size: counted from the tensors, and measured beside it.

Each network is measured in a process of its own (profiling/memory_step.py), on noise in the shape of its data.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from firstlight.config.describe import to_dict
from firstlight.engine.children import OUT_OF_MEMORY, Child
from firstlight.engine.places import data_dir_of
from firstlight.errors import ConfigError, FirstlightError, OutOfMemoryError
from firstlight.files import make_dir, write_json, write_pictures
from firstlight.plotting.memory import NAMES, plot_memory
from firstlight.profiling.subject import FOLDER, Subject, find_subject
from firstlight.tracking.console import Console

COUNTED = tuple(NAMES)
"""What is counted from tensors, in bytes; the moving average of the weights where the training keeps one."""


def profile_memory(
    sources: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    batch_size: int = 128,
    out: Path | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure the memory of a training step of some experiments or runs at one batch size, draw it, and return the figures as plain data.

    Of one run, the files go into its folder; else into `out` (default ./profile). Raises OutOfMemoryError where none fits.
    """
    if batch_size < 1:
        raise ConfigError(f"--batch is {batch_size}; take 1 or more")
    said = console or Console(quiet=True)
    subjects = [find_subject(source, tuple(overrides), runs_dir) for source in sources or ["quickstart"]]
    rows = []
    for subject in subjects:
        rows.append(measure(subject, batch_size, data_dir_of(data_dir)))
        said.line(show_row(rows[-1]))
    fitting = [row for row in rows if "why" not in row]
    if not fitting and rows[0]["why"] != OUT_OF_MEMORY:
        raise FirstlightError(f"a step of {rows[0]['network']} failed: {rows[0]['why']}; try `firstlight train` with it")
    if not fitting:
        raise OutOfMemoryError(f"a step of {rows[0]['network']} on {batch_size:,} images does not fit; try a smaller --batch")
    says = explain(fitting, batch_size)
    figure = plot_memory(fitting, counted=COUNTED, title=says)
    alone = subjects[0] if len(subjects) == 1 else None
    figures = {"batch_size": batch_size, "num_images": batch_size, "says": says, "networks": rows}
    if alone is not None:
        return alone.keep("memory", figures, figure, out)
    stem = make_dir(out or Path(FOLDER)) / "memory"
    files = [*write_pictures(stem, figure), stem.with_name("memory.json")]
    found = {
        "run": None,
        "what": "memory",
        "split": "train",
        "overrides": list(overrides),
        **figures,
        "files": [str(file) for file in files],
    }
    write_json(files[-1], found)
    return found


def measure(subject: Subject, batch_size: int, data_dir: Path) -> dict[str, Any]:
    """Return the bytes of one network's training step, or `why` there are none."""
    image_shape, num_classes = subject.image_shape(data_dir)
    row: dict[str, Any] = {"network": subject.name, "image_shape": list(image_shape), "optimizer": subject.config.optim.name}
    settled = subject.arithmetic
    asked = {
        "config": to_dict(subject.config),
        "arithmetic": None if settled is None else asdict(settled),
        "image_shape": image_shape,
        "num_classes": num_classes,
        "batch_size": batch_size,
    }
    child = Child("firstlight.profiling.memory_step", asked)
    try:
        found = child.tell(b"step\n")
        if found is None:
            found = {"why": child.end()}
    finally:
        child.close()
    row |= found
    if "why" not in row:
        row["sum"] = sum(row[name] for name in COUNTED)
        row["unexplained"] = row["peak"] - row["sum"]
    return row


def explain(rows: Sequence[dict[str, Any]], batch_size: int) -> str:
    """Return the finding in one sentence."""
    if len(rows) == 1:
        row = rows[0]
        return f"{row['network']} takes {mib(row['peak'])} for a step on {batch_size:,} images; {_largest(row)}"
    low, high = (choose(rows, key=lambda row: row["peak"]) for choose in (min, max))
    each = " and ".join(f"{row['network']} {mib(row['peak'])} ({_largest(row)})" for row in (low, high))
    times = high["peak"] / max(low["peak"], 1)
    return f"at batch {batch_size:,} {high['network']} takes {times:,.3g} times the memory of {low['network']}: {each}"


def _largest(row: dict[str, Any]) -> str:
    largest = max(COUNTED, key=lambda name: int(row[name]))
    return f"largest part: {NAMES[largest]}, {mib(row[largest])}"


def mib(num_bytes: float) -> str:
    """Return bytes as MiB, short."""
    value = num_bytes / 2**20
    return f"{value:,.0f} MiB" if abs(value) >= 10 else f"{value:.2g} MiB"


def show_row(row: dict[str, Any]) -> str:
    """Return one line about a network."""
    return f"{row['network']}: {row['why']}" if "why" in row else f"{row['network']}: peak {mib(row['peak'])}, counted {mib(row['sum'])}"
