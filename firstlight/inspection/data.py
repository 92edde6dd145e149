"""The data commands: list, fetch, check, describe. The training part alone is looked at; the test set stays sealed."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from firstlight.config.kinds import check_kind
from firstlight.config.override import parse_overrides
from firstlight.config.schema import Kind
from firstlight.data.build import DOWNLOADS, OWN_VALIDATION, SOURCES, load_all_parts, load_part
from firstlight.data.check import check_images
from firstlight.data.convert import convert_datasets, convert_folder
from firstlight.data.dataset import Dataset
from firstlight.data.fetch import RemoteFile, fetch, install_local
from firstlight.data.generate import generate_hdf5
from firstlight.data.hdf5 import DEFAULT_KEYS, load_hdf5_part
from firstlight.data.measure import SAMPLE_BYTES, sample
from firstlight.data.normalize import channel_statistics
from firstlight.data.stored_check import check_parts
from firstlight.engine.doctor import describe_data
from firstlight.engine.places import data_dir_of
from firstlight.errors import ConfigError, DataError, did_you_mean
from firstlight.files import make_dir, write_figure
from firstlight.inspection.sheets import draw_sheet
from firstlight.inspection.subject import kind_at
from firstlight.plotting.balance import plot_class_balance
from firstlight.tracking.console import Bar, Console
from firstlight.tracking.table import print_table

WHERE = {
    "folder": "give its path: data.path=photos",
    "hdf5": "give its path: data.path=FILE.h5",
    "webdataset": "give their path: data.path=shards, or 'shards/train-{000..099}.tar'",
    "parquet": "give their path: data.path=shards, or 'shards/{part}-*.parquet'",
}
"""What `data list` says of the data sets that lie wherever one says."""


def parse_source(source: str, settings: Sequence[str]) -> Kind:
    """Return the data set that a command line names: a registered name, or the path of a folder or archive."""
    if source not in SOURCES and (found := kind_at(source)):
        source, settings = found, [f"path={json.dumps(source, ensure_ascii=False)}", *settings]
    name, options, problems = check_kind(SOURCES, {"name": source, **parse_overrides(settings)}, "data")
    if problems:
        raise ConfigError("; ".join(problem.message for problem in problems))
    return Kind(name, options)


def list_sources(data_dir: Path | None) -> dict[str, Any]:
    """Return every named data set, what it is, and where it lies or how to get it; nothing is read."""
    folder = data_dir_of(data_dir)
    where = {**describe_data(folder), **WHERE}
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


def check_source(source: str, settings: Sequence[str], data_dir: Path | None, *, full: bool = False) -> dict[str, Any]:
    """Read a data set whole: every image decoded, every label checked; return what is wrong with it.

    Of an HDF5 file and of shards, arrays and labels are checked, and with `full` all pixels too, by the checksums that there are.
    """
    kind = parse_source(source, settings)
    if kind.name in OWN_VALIDATION:
        return check_stored(kind, data_dir_of(data_dir), full=full)
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


def check_stored(kind: Kind, data_dir: Path, *, full: bool) -> dict[str, Any]:
    """Check the parts of an HDF5 file or of shards, to the last pixel where `full`; what has no checksums is read all the same."""
    load = OWN_VALIDATION[kind.name]
    with Console().progress("checking", 1000) as bar:
        found = check_parts(
            lambda part: load(part, data_dir, **kind.options),
            full=full,
            progress=lambda what, done, total: bar.update(1000 * done // total),
        )
    findings = [{"image": where, "wrong": reason} for where, reason in found.findings]
    return {"source": found.source, "num_images": found.num_images, "findings": findings, "says": found.says}


def convert_source(
    source: str,
    settings: Sequence[str],
    out: Path,
    data_dir: Path | None,
    *,
    size: int | None,
    layout: str,
    val_fraction: float,
    chunked: bool,
    shuffled: bool,
    console: Console,
) -> dict[str, Any]:
    """Write a data set as one HDF5 file in Medium ImageNet's layout; return what it holds."""
    kind = parse_source(source, settings)
    how: dict[str, Any] = {"order": layout, "chunked": chunked, "shuffled": shuffled}
    with console.progress(f"writing {out.name}", 1000) as bar:
        progress = _progress_on(bar, console)
        if kind.name == "folder":
            path = _existing(kind.options["path"], data_dir_of(data_dir))
            how |= {"size": size or kind.options["image_size"], "test_fraction": kind.options["test_fraction"]}
            convert_folder(path, out, progress, val_fraction=val_fraction, **how)
        else:
            convert_datasets(load_all_parts(kind, data_dir_of(data_dir), size, val_fraction), out, progress, made_from=source, **how)
    return describe_hdf5(out)


def generate_source(out: Path, *, console: Console, **settings: Any) -> dict[str, Any]:
    """Write a made-up data set in Medium ImageNet's layout; return what it holds."""
    with console.progress(f"writing {out.name}", 1000) as bar:
        generate_hdf5(out, _progress_on(bar, console), **settings)
    return describe_hdf5(out)


def describe_hdf5(path: Path) -> dict[str, Any]:
    """Return the parts of an HDF5 file in the usual layout, and its bytes."""
    found = {part: load_hdf5_part(part, Path(), path=str(path), **DEFAULT_KEYS) for part in ("train", "val", "test")}
    parts = [
        {"part": part, "images": len(dataset), "labels": "yes" if dataset.labels is not None else "no"}
        for part, dataset in found.items()
        if dataset is not None
    ]
    train = found["train"]
    assert train is not None
    facts = {"image_shape": list(train.image_shape), "num_classes": train.num_classes, "bytes": path.stat().st_size}
    return {"file": str(path), "parts": parts, **facts, "files": [str(path)]}


def print_hdf5(result: dict[str, Any]) -> None:
    """Print what an HDF5 file holds."""
    channels, height, width = result["image_shape"]
    print(f"{result['file']}: {result['bytes'] / 1e6:,.1f} MB, {result['num_classes']} classes, {channels} x {height} x {width}")
    print_table(result["parts"], ("part", "images", "labels"))
    print(f"train on it: firstlight train resnet18_medium_imagenet data.path={shlex.quote(result['file'])}")


def _progress_on(bar: Bar, console: Console) -> Callable[[str, int, int], None]:
    """Return a way to say how many images are done: on the bar, and where there is none a line for each tenth."""
    said = [("", -1)]

    def progress(what: str, done: int, total: int) -> None:
        bar.update(1000 * done // total)
        tenth = (what, 10 * done // total)
        if tenth != said[0] and not sys.stderr.isatty():
            console.line(f"{what}: {done:,} of {total:,}")
            said[0] = tenth

    return progress


def refuse_findings(result: dict[str, Any]) -> None:
    """Raise DataError where a check found something."""
    if num := len(result["findings"]):
        raise DataError(f"{num} finding{'s' * (num > 1)} in {result['source']}; repair or remove what is listed, then check again")


def describe_source(source: str, settings: Sequence[str], data_dir: Path | None, *, out: Path) -> dict[str, Any]:
    """Return counts, shape, class balance and pixel statistics of the training part; save a sheet of images and the balance."""
    kind = parse_source(source, settings)
    dataset = load_part(kind, "train", data_dir_of(data_dir))
    mean, std = channel_statistics(sample(dataset, SAMPLE_BYTES).images)
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
        print(result.get("says") or f"{result['source']}: every image decodes and every label is allowed")


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
