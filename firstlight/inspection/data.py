"""The data commands: list, fetch, check, describe. The training part alone is looked at; the test set stays sealed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from firstlight.config.kinds import check_kind
from firstlight.config.override import parse_overrides
from firstlight.config.schema import Kind
from firstlight.data.build import DOWNLOADS, SOURCES, load_part
from firstlight.data.check import check_images
from firstlight.data.dataset import Dataset
from firstlight.data.fetch import RemoteFile, fetch, install_local
from firstlight.data.normalize import channel_statistics
from firstlight.engine.doctor import describe_data
from firstlight.engine.places import data_dir_of
from firstlight.errors import ConfigError, DataError, did_you_mean
from firstlight.files import make_dir, write_figure
from firstlight.inspection.sheets import draw_sheet
from firstlight.plotting.balance import plot_class_balance
from firstlight.tracking.console import Console
from firstlight.tracking.table import print_table


def parse_source(source: str, settings: Sequence[str]) -> Kind:
    """Return the data set that a command line names: a registered name, or the path of a folder or archive."""
    if source not in SOURCES and Path(source).expanduser().exists():
        source, settings = "folder", [f"path={source}", *settings]
    name, options, problems = check_kind(SOURCES, {"name": source, **parse_overrides(settings)}, "data")
    if problems:
        raise ConfigError("; ".join(problem.message for problem in problems))
    return Kind(name, options)


def list_sources(data_dir: Path | None) -> dict[str, Any]:
    """Return every named data set, what it is, and where it lies or how to get it; nothing is read."""
    folder = data_dir_of(data_dir)
    where = {**describe_data(folder), "folder": "give its path: data.path=photos"}
    rows = [{"name": name, "what": _first_sentence(load), "where": where[name]} for name, load in SOURCES.items()]
    return {"data_dir": str(folder), "sources": rows}


def fetch_source(name: str, data_dir: Path | None, *, local: Path | None, console: Console) -> dict[str, Any]:
    """Download a data set, or install it from a local file; return the files."""
    if name not in DOWNLOADS:
        raise ConfigError(f"{name!r} cannot be fetched{did_you_mean(name, DOWNLOADS)}")
    folder, remote = make_dir(data_dir_of(data_dir)), DOWNLOADS[name]
    files = _download(remote, folder, console) if local is None else install_local(remote, local, folder)
    console.line(f"{name} is in {folder}")
    return {"name": name, "folder": str(folder), "files": [str(file) for file in files]}


def _download(remote: Sequence[RemoteFile], folder: Path, console: Console) -> list[Path]:
    """Fetch the files one after the other, each with a bar of its megabytes."""
    files = []
    for file in remote:
        console.line(f"{file.name}: {file.size / 1e6:.1f} MB")
        with console.progress(file.name, file.size) as bar:
            files += fetch([file], folder, lambda name, done, total, bar=bar: bar.update(done))  # type: ignore[misc]
    return files


def check_source(source: str, settings: Sequence[str], data_dir: Path | None) -> dict[str, Any]:
    """Read a data set whole: every image decoded, every label checked; return what is wrong with it."""
    kind = parse_source(source, settings)
    if kind.name == "folder":
        path = kind.options["path"]
        found = check_images(_existing(path, data_dir_of(data_dir)), one_size=kind.options["image_size"] is None)
        findings = [{"image": name, "wrong": reason} for name, reason in found]
        if findings:
            return {"source": path, "num_images": None, "findings": findings}
    dataset = load_part(kind, "train", data_dir_of(data_dir))
    empty = [name for name, count in zip(dataset.class_names, _counts(dataset), strict=True) if count == 0]
    findings = [{"image": f"class {name}", "wrong": "has no images"} for name in empty]
    return {"source": dataset.source, "num_images": len(dataset), "findings": findings}


def refuse_findings(result: dict[str, Any]) -> None:
    """Raise DataError where a check found something."""
    if num := len(result["findings"]):
        raise DataError(f"{num} finding{'s' * (num > 1)} in {result['source']}; repair or remove what is listed, then check again")


def describe_source(source: str, settings: Sequence[str], data_dir: Path | None, *, out: Path) -> dict[str, Any]:
    """Return counts, shape, class balance and pixel statistics of the training part; save a sheet of images and the balance."""
    kind = parse_source(source, settings)
    dataset = load_part(kind, "train", data_dir_of(data_dir))
    mean, std = channel_statistics(dataset.images)
    counts = _counts(dataset)
    make_dir(out)
    sheet = write_figure(out / f"{kind.name}-sheet.png", draw_sheet(dataset))
    balance = write_figure(out / f"{kind.name}-balance.png", plot_class_balance(dataset.class_names, counts))
    return {
        "source": dataset.source,
        "num_images": len(dataset),
        "image_shape": list(dataset.image_shape),
        "dtype": str(dataset.images.dtype).removeprefix("torch."),
        "mean": [round(value, 4) for value in mean.tolist()],
        "std": [round(value, 4) for value in std.tolist()],
        "classes": [{"class": name, "images": n, "share": n / len(dataset)} for name, n in zip(dataset.class_names, counts, strict=True)],
        "files": [str(sheet), str(balance)],
    }


def print_sources(result: dict[str, Any]) -> None:
    """Print the list of data sets."""
    print(f"data folder: {result['data_dir']}\n")
    print_table(result["sources"], ("name", "what", "where"))


def print_check(result: dict[str, Any]) -> None:
    """Print what a check found."""
    if result["findings"]:
        print_table(result["findings"], ("image", "wrong"))
    else:
        print(f"{result['source']}: every image decodes and every label is allowed")


def print_description(result: dict[str, Any]) -> None:
    """Print a description of a data set."""
    channels, height, width = result["image_shape"]
    print(result["source"])
    print(f"{result['num_images']:,} images of {channels} x {height} x {width} (channels x height x width), {result['dtype']}")
    print(f"pixels in [0, 1]: mean {result['mean']}, standard deviation {result['std']}\n")
    print_table(result["classes"], ("class", "images", "share"))
    print()
    for file in result["files"]:
        print(f"picture: {file}")


def _counts(dataset: Dataset) -> list[int]:
    if dataset.labels is None:
        raise DataError(f"{dataset.source}: these images have no labels; name a part or a folder that has them")
    counts: list[int] = torch.bincount(dataset.labels, minlength=dataset.num_classes).tolist()
    return counts


def _existing(path: str, data_dir: Path) -> Path:
    given = Path(path).expanduser()
    return given if given.exists() else data_dir / given


def _first_sentence(load: Any) -> str:
    """Return what a loader's docstring promises, without its `Return`."""
    return str(load.__doc__).splitlines()[0].removeprefix("Return ").removeprefix("one part of ").rstrip(".")
