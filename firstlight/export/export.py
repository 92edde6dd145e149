"""A run as files that other programs load: one a format, each written only after it has answered as the run does.

Reading order: export, _subject, FORMATS, _write.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import firstlight
from firstlight.config.describe import to_dict
from firstlight.config.schema import Config
from firstlight.data.build import make_loader
from firstlight.data.dataset import Dataset
from firstlight.data.normalize import Normalize
from firstlight.engine.checkpoint import find_checkpoint, read_record
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import logits_of
from firstlight.engine.finished import labelled_part, spread
from firstlight.engine.memory import is_out_of_memory, out_of_memory
from firstlight.engine.places import data_dir_of, runs_dir_of
from firstlight.engine.restore import arithmetic_of, config_of, data_record, load_model, normalize_of
from firstlight.errors import ConfigError, DataError, FirstlightError, did_you_mean
from firstlight.export.description import Description, without_folders
from firstlight.export.network import PixelNetwork, pixel_network
from firstlight.export.onnx_file import OPSET, to_onnx
from firstlight.export.parity import check_parity, compare
from firstlight.export.reader import Exported, Reader, first_line
from firstlight.export.torch_files import Pt2Reader, TorchScriptReader, to_pt2, to_torchscript
from firstlight.export.weights_file import WeightsReader, to_safetensors
from firstlight.files import make_dir, write_bytes
from firstlight.tracking.run import Run, find_run

NUM_IMAGES = 100
"""Images on which a file must answer as its run."""
EXAMPLES = 2
"""Images that a graph is traced with: of one alone, torch would take the number for part of the graph."""
SYNTHETIC = "synthetic images"


@dataclass(frozen=True)
class Subject:
    """A run that is exported: its network as it is and with pixels as input, and images with the logits that it gives them.

    images: [N, C, H, W], uint8 or float32 in [0, 1]; wanted: float32 [N, num_classes], computed as `evaluate` does, but in float32.
    """

    run: Run
    config: Config
    model: Any
    network: PixelNetwork
    description: Description
    images: Tensor
    wanted: NDArray[np.float32]
    source: str

    @property
    def example(self) -> Tensor:
        """Images to trace a graph with."""
        return self.images[:EXAMPLES]


@dataclass(frozen=True)
class Format:
    """One format: how its files end, how one is made, and how it is read."""

    suffix: str
    make: Callable[[Subject], bytes]
    reader: Callable[[Path, bytes], Exported]
    note: str = ""


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(".safetensors", lambda subject: to_safetensors(subject.model, subject.description), WeightsReader),
    "onnx": Format(".onnx", lambda subject: to_onnx(subject.network, subject.example, subject.description), Reader),
    "pt2": Format(".pt2", lambda subject: to_pt2(subject.network, subject.example, subject.description), Pt2Reader),
    "torchscript": Format(
        ".pt",
        lambda subject: to_torchscript(subject.network, subject.example, subject.description),
        TorchScriptReader,
        note="TorchScript is deprecated since torch 2.11; prefer onnx or pt2",
    ),
}


def export(
    run: str | Path,
    formats: Sequence[str] = ("onnx",),
    *,
    out: str | Path | None = None,
    which: str = "best",
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Write a run in one format or several, each checked against the run on 100 of its validation images, and return what was written.

    out: a file, or (for several formats, or without a suffix) a folder; the default is the folder `export` of the run.
    which: the `best` weights or the `last`. A format that fails is told in `failed`, and the others are written all the same.
    Raises the error of the format where there is but one.
    """
    formats = list(dict.fromkeys(formats))
    found = find_run(run, runs_dir_of(runs_dir))
    paths = _paths(found, formats, out)
    with arithmetic_of(found).on_threads(), out_of_memory("exporting the network", "close other programs, or use a larger machine"):
        subject, difference, warnings = _subject(found, which, data_dir_of(data_dir))
        exports: list[dict[str, Any]] = []
        failed: list[dict[str, str]] = []
        for name, path in paths.items():
            try:
                exports.append(_write(name, path, subject))
            except FirstlightError as error:
                if len(paths) == 1:
                    raise
                failed.append({"format": name, "error": str(error)})
    notes = [FORMATS[entry["format"]].note for entry in exports if FORMATS[entry["format"]].note]
    result = {"run": str(found.path), "checkpoint": which, "num_images": len(subject.images), "images": subject.source, "exports": exports}
    result |= {"failed": failed, "run_arithmetic": difference, "warnings": [*warnings, *notes]}
    return result | {"files": [entry["file"] for entry in exports]}


def refuse_failed(result: Mapping[str, Any]) -> None:
    """Raise FirstlightError where formats failed beside others that were written."""
    if failed := result["failed"]:
        reasons = "; ".join(entry["error"] for entry in failed)
        raise FirstlightError(f"{len(failed)} of {len(failed) + len(result['exports'])} formats were not written: {reasons}")


def _paths(run: Run, formats: Sequence[str], out: str | Path | None) -> dict[str, Path]:
    """Return the file of each format. Raises ConfigError for an unknown format, or an `out` that fits none."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format {name} is none{did_you_mean(name, FORMATS)}")
    if not formats:
        raise ConfigError(f"no format was named; add --format, one of {', '.join(FORMATS)}")
    folder = run.path / "export" if out is None else Path(out)
    suffixes = {form.suffix for form in FORMATS.values()}
    if folder.suffix.lower() not in suffixes or folder.is_dir():
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--out {folder} ends in none of {', '.join(sorted(suffixes))} and is no folder; choose another name")
        return {name: folder / f"{run.path.resolve().name}{FORMATS[name].suffix}" for name in formats}
    if len(formats) > 1:
        raise ConfigError(f"--out {folder} is one file, and {len(formats)} formats were named; name a folder")
    if folder.suffix.lower() != FORMATS[formats[0]].suffix:
        raise ConfigError(f"--out {folder} does not end in {FORMATS[formats[0]].suffix}, as {formats[0]} does; change the name or --format")
    return {formats[0]: folder}


def _write(name: str, path: Path, subject: Subject) -> dict[str, Any]:
    """Make one file, let it answer, and write it where it answers as the run does. Raises FirstlightError that begins with the format."""
    form, began = FORMATS[name], time.monotonic()
    try:
        content = form.make(subject)
    except FirstlightError:
        raise
    except Exception as error:  # torch's exporters raise whatever their passes meet
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{name} cannot express this network ({first_line(error)}); choose another --format") from error
    parity = check_parity(name, form.reader(path, content), subject.images.numpy(), subject.wanted, subject.source)
    make_dir(path.parent)
    write_bytes(path, content)
    entry = {"format": name, "file": str(path), "bytes": len(content), "seconds": round(time.monotonic() - began, 3)}
    return entry | parity.to_json()


def _subject(run: Run, which: str, data_dir: Path) -> tuple[Subject, dict[str, Any] | None, list[str]]:
    """Return what is exported, how far the run's own arithmetic is from float32 (None where it is the same), and warnings."""
    config, normalize = config_of(run), normalize_of(run)
    model = load_model(run, which=which)
    dataset, source, warnings = _images(run, config, data_dir)
    plain = Arithmetic("cpu", threads=torch.get_num_threads())
    wanted = _logits(model, dataset, config, normalize, plain)
    own = arithmetic_of(run)
    difference = None
    if (own.device, own.precision) != (plain.device, plain.precision):
        found = compare(_logits(own.place(load_model(run, which=which)), dataset, config, normalize, own), wanted)
        difference = {"device": own.device, "precision": own.precision, **found.to_json()}
    pixels = "uint8" if dataset.images.dtype == torch.uint8 else "float32"
    description = _describe(run, config, normalize, which, pixels)
    network = pixel_network(model, config, normalize, description.white)
    return Subject(run, config, model, network, description, dataset.images, wanted, source), difference, warnings


def _describe(run: Run, config: Config, normalize: Normalize, which: str, pixels: str) -> Description:
    record = data_record(run)
    checkpoint = read_record(find_checkpoint(run.path / "checkpoints", which))
    figures = {key: run.summary[key] for key in ("val_accuracy", "val_loss", "test_accuracy") if which == "best" and key in run.summary}
    about = {
        "run": run.path.resolve().name,
        "data": record["source"],
        "checkpoint": which,
        "step": checkpoint["position"]["step"],
        "epoch": checkpoint["position"]["epoch"],
        "weights": "moving average" if "ema.safetensors" in checkpoint["sha256"] else "as trained",
        "figures": figures,
        "views": config.evaluation.views,
        "opset": OPSET,
        "versions": {"firstlight": firstlight.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "config": without_folders(to_dict(config)),
    }
    names, shape = tuple(record["class_names"]), tuple(record["image_shape"])
    return Description(class_names=names, image_shape=shape, pixels=pixels, mean=normalize.mean, std=normalize.std, about=about)


def _images(run: Run, config: Config, data_dir: Path) -> tuple[Dataset, str, list[str]]:
    """Return 100 images of the run that are not of its test set, and what they are; made up, with a warning, where the data are missing."""
    validated = data_record(run).get("num_val", 0) > 0
    try:
        part = labelled_part(run, config, "val" if validated else "train", data_dir)
        return part.subset(spread(len(part), NUM_IMAGES)), "validation images" if validated else "training images", []
    except DataError as error:
        names, shape = tuple(data_record(run)["class_names"]), tuple(data_record(run)["image_shape"])
        pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, *shape), dtype=np.uint8)
        warning = f"the run's images cannot be read ({error}); the files are compared on {NUM_IMAGES} random images instead"
        return Dataset(torch.from_numpy(pixels), None, names, SYNTHETIC), SYNTHETIC, [warning]


def _logits(model: Any, dataset: Dataset, config: Config, normalize: Normalize, arithmetic: Arithmetic) -> NDArray[np.float32]:
    """Return the logits of a network as `evaluate` computes them."""
    loader = make_loader(dataset, config, normalize, device=arithmetic.device, channels_last=arithmetic.channels_last)
    found: NDArray[np.float32] = torch.cat([logits.cpu() for logits, _ in logits_of(model, loader, arithmetic, config.evaluation)]).numpy()
    return found
