"""Carry out the shipped studies as docs/studies.md prints their commands, and write what they found into that page, with the figures.

`python scripts/make_studies.py [NAME ...]` takes those that are named, else all that are meant for a machine without a GPU. The studies
stand in the folder of runs; what is finished there is not trained again. All of them take hours on one core.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from firstlight.engine.restore import load_model
from firstlight.files import write_text
from firstlight.studies.statistics import estimate
from firstlight.studies.study import load_study, shipped_studies
from firstlight.tracking.run import Run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "studies.md"
IMAGES = ROOT / "docs" / "images" / "studies"
LOOKS = {"alexnet_lr": ("split.num_train=2000", "train.epochs=1"), "alexnet_batch_size": ("split.num_train=2000", "train.epochs=1")}
"""Studies for a GPU, and the settings under which a CPU can show that they work; their figures mean nothing."""
FIGURES = {
    "mnist_batch_size": ("curves.png",),
    "lenet_lr": ("curves.png", "response.png"),
    "lenet_batch_size": ("curves.png",),
    "mnist_900_grid": ("coverage.png",),
    "mnist_900_random": (),
}
"""Pictures that the page shows of a study; of the others the map, or else the response, or else parallel coordinates."""
WORKERS = {"mnist_search": ("--workers", "2")}
BESIDE = {"mnist_900_grid": "mnist_900_random"}
MOST_ROWS = 12
"""Points of a study that its table on the page lists; the best of more."""
WIDTH, COLORS = 800, (128, 32, 8)
MOST_BYTES = 60 << 10
"""Pixels of a picture on the page, and its colours: so many, or fewer where it would take more bytes than that."""
KIND = re.compile(r"\{name: ([^}]*)\}")
"""A kind with its settings, which the page writes shorter."""

Facts = Mapping[str, Any]


def main() -> None:
    """Carry out the studies that are named on the command line, or all, and bring the page up to date."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in sys.argv[1:] or [name for name in shipped_studies() if name not in LOOKS]:
        began = time.monotonic()
        facts = firstlight("sweep", name, *WORKERS.get(name, ()), *([*LOOKS[name], "--name", f"{name}_look"] if name in LOOKS else []))
        lines = look(facts, time.monotonic() - began) if name in LOOKS else [*pictures(name, facts), *findings(name, facts)]
        write_block(name, lines)
        print(
            f"{name}: {facts['trials']} trainings, {facts['seconds']:.0f} s of training, {time.monotonic() - began:.0f} s in all",
            flush=True,
        )


def firstlight(*words: str) -> Any:
    """Return what a command prints with --json."""
    done = subprocess.run([sys.executable, "-m", "firstlight", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def write_block(name: str, lines: Sequence[str]) -> None:
    """Put lines between the marks of a study on the page. Raises SystemExit where the page has no such marks."""
    marks = re.compile(rf"(<!-- study: {name} -->\n).*?(<!-- end of study -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    if not marks.search(text):
        sys.exit(
            f"docs/studies.md has no place for {name}; write <!-- study: {name} --> and <!-- end of study --> where its results belong"
        )
    write_text(PAGE, marks.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text))


def look(facts: Facts, seconds: float) -> list[str]:
    """Return what the page says of a study that was only looked at."""
    states = ", ".join(sorted({row["state"] for row in facts["hparams"]}))
    return [f"Not measured here. The look at it ran: {facts['trials']} trainings, {states}, {seconds:.0f} s in all; {where()}."]


def findings(name: str, facts: Facts) -> list[str]:
    """Return the table of the points, what the study says of itself, and how it was measured."""
    lines = ["", *table(name, facts["hparams"]), ""]
    said = [*facts["findings"], *(f"warning: {line}" for line in facts["warnings"])]
    lines += [f"- {KIND.sub(lambda kind: kind[1].replace(',', ' ').replace(': ', '='), line)}" for line in said]
    if name in EXTRAS:
        lines += ["", *EXTRAS[name](facts)]
    processes = "two processes, each " if name in WORKERS else ""
    return [*lines, "", f"{facts['trials']} trainings, {facts['seconds']:,.0f} s of training together; {processes}{where()}."]


def table(name: str, rows: Sequence[Facts]) -> list[str]:
    """Return the points of a study as a Markdown table: of one parameter in its order, of several the best first."""
    study = load_study(name)
    groups: dict[str, list[Facts]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row[key] for key in study.space.parameters]), []).append(row)
    shown = sorted(groups.values(), key=lambda group: -mean([row["val_acc"] for row in group]))
    if len(study.space.parameters) == 1:
        order = [json.dumps(list(point.values())) for point in study.points()]
        shown = [groups[key] for key in order if key in groups]
    heads = [
        *(f"`{key}`" for key in study.space.parameters),
        "validation accuracy",
        "95 % interval",
        "n",
        "validation loss",
        "s a training",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for group in shown[:MOST_ROWS]:
        accuracies = [row["val_acc"] for row in group if row["val_acc"] is not None]
        found = estimate(accuracies) if accuracies else None
        spread = f"{found.low:.4f} to {found.high:.4f}" if found is not None and found.n > 1 else ""
        cells = [*(show(group[0][key]) for key in study.space.parameters), f"{found.mean:.4f}" if found else group[0]["state"], spread]
        cells += [str(len(accuracies)), f"{mean([row['val_loss'] for row in group]):.3f}", f"{mean([row['seconds'] for row in group]):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if len(shown) > MOST_ROWS:
        lines += ["", f"The best {MOST_ROWS} of {len(shown)} points."]
    return lines


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of those that are there, NaN of none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else float("nan")


def show(value: Any) -> str:
    """Return a setting as the page writes it."""
    if isinstance(value, dict):
        return " ".join(show(item) if key == "name" else f"{key}={show(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value).strip("[]").replace(", ", "-")


def pictures(name: str, facts: Facts) -> list[str]:
    """Store the figures of a study for the page, small, and return the lines that show them."""
    if name in BESIDE and (Path(facts["study"]).parent / BESIDE[name] / "answer.json").is_file():
        facts = firstlight("study", facts["study"], "--beside", str(Path(facts["study"]).parent / BESIDE[name]))
    drawn = {Path(file).name: Path(file) for file in facts["files"]}
    preferred = [file for file in ("map.png", "response.png", "parallel.png", "curves.png") if file in drawn][:1]
    lines = []
    for file in FIGURES.get(name, preferred):
        target = IMAGES / (f"{name}_{file}" if len(FIGURES.get(name, ())) > 1 else f"{name}.png")
        shrink(drawn[file], target)
        lines.append(f"![{name}: {Path(file).stem}](images/studies/{target.name})\n")
    return [line.rstrip() for line in "\n".join(lines).splitlines()]


def shrink(source: Path, target: Path) -> None:
    """Store a picture with few pixels and few colours."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        small = picture.convert("RGB").resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    for colors in COLORS:
        small.quantize(colors, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < MOST_BYTES:
            break


def where() -> str:
    """Return the machine and the day."""
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), flags=re.MULTILINE)
    processor = models[0] if models else platform.processor()
    return f"one thread of {processor}, {datetime.now(UTC):%d %B %Y}"


def hidden_units(facts: Facts) -> list[str]:
    """Return how many hidden units of the first layer differ from all others in the end (C3), from the weights that the runs kept."""
    lines = ["| init | activation | hidden units that differ, of 64 |", "|---|---|---|"]
    for row in sorted((row for row in facts["hparams"] if row["seed"] == 0), key=lambda row: (row["model.activation"], row["model.init"])):
        weight = load_model(str(Path(facts["study"]) / row["trial"])).state_dict()["linear1.weight"]
        lines.append(f"| {row['model.init']} | {row['model.activation']} | {len(weight.unique(dim=0))} |")
    return lines


def peak_memory(facts: Facts) -> list[str]:
    """Return the peak memory and the time of one epoch of all MNIST at each batch size, each in a process of its own (E1)."""
    lines = ["| batch size, of 54,000 images | peak memory of the process, MiB | one epoch, s |", "|---|---|---|"]
    for size in (1, 32, 64, 128, 256, 512, 54_000):
        words = ["optim.lr=0.01", "optim.momentum=0", "schedule=constant", "train.epochs=1", f"train.batch_size={size}"]
        run = Run(Path(firstlight("train", "mnist_mlp", *words)["run"]))
        lines.append(f"| {size:,} | {run.epochs[-1]['memory_mib']:.0f} | {run.epochs[-1]['seconds']:.2f} |")
    return lines


EXTRAS: dict[str, Callable[[Facts], list[str]]] = {"mnist_init": hidden_units, "mnist_batch_size": peak_memory}
"""What the page shows of a study beside its table."""


if __name__ == "__main__":
    main()
