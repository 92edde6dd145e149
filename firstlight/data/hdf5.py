"""Images in HDF5 files: Medium ImageNet's layout, or any arrays with a name. The pixels stay in the file until they are asked for.

A file is looked at in a child process (hdf5_probe.py) before anything here touches it. Reading order: load_hdf5, facts_of, _asked.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from firstlight.data.class_names import given_names, names_beside, numbered_names
from firstlight.data.dataset import Dataset, checked_labels
from firstlight.data.places import missing
from firstlight.data.probe import Arrays, ask_child
from firstlight.data.stored import ArrayFacts, Identity, ImageFile, Order, StoredImages, identity_of
from firstlight.errors import ConfigError, DataError
from firstlight.limits import PositiveInt

PARTS = {"train": "training", "val": "validation", "test": "test"}
MEDIUM_IMAGENET = {
    96: ("medium-imagenet-nmep-96.hdf5", "medium-imagenet-96.hdf5"),
    224: ("medium-imagenet-nmep-224.hdf5", "medium-imagenet-nmep.hdf5", "medium-imagenet-224.hdf5"),
}
FOLDERS = ("medium-imagenet", "medium_imagenet", "imagenet", ".")

DEFAULT_KEYS: dict[str, Any] = {
    "images_key": "images-{part}",
    "labels_key": "labels-{part}",
    "class_names": None,
    "stream": "auto",
    "buffer_mib": 1024,
}
"""The settings of load_hdf5 but the path."""


def load_hdf5(
    part: str,
    data_dir: Path,
    *,
    path: str,
    images_key: str = "images-{part}",
    labels_key: str = "labels-{part}",
    class_names: str | None = None,
    stream: Literal["auto", "on", "off"] = "auto",
    buffer_mib: PositiveInt = 1024,
) -> Dataset:
    """Return one part of the images in an HDF5 file, which stay there where they are more than a quarter of the memory.

    path: the file; a relative path is tried from the working directory, then from the data folder.
    images_key, labels_key: names of the arrays, with {part} for train, val or test; without it the file has a training part alone.
    class_names: a .txt or .json with the names of the classes; null looks in the file and beside it.
    stream: `on` leaves the pixels in the file, `off` loads them whole, `auto` decides by their size.
    buffer_mib: memory in which streamed images are shuffled.

    Pixels are uint8 [N, H, W, C], [N, C, H, W] or [N, H, W]. Raises DataError that names the file, the key and the row.
    """
    found = load_hdf5_part(
        part,
        data_dir,
        path=path,
        images_key=images_key,
        labels_key=labels_key,
        class_names=class_names,
        stream=stream,
        buffer_mib=buffer_mib,
    )
    if found is None:
        raise DataError(
            f"{path} has no {PARTS[part]} part (no {images_key.format(part=part)!r}); set data.images_key, or leave that part out"
        )
    return found


def load_medium_imagenet(
    part: str,
    data_dir: Path,
    *,
    path: str | None = None,
    pixels: Literal[96, 224] = 96,
    stream: Literal["auto", "on", "off"] = "auto",
    buffer_mib: PositiveInt = 1024,
) -> Dataset:
    """Return one part of Medium ImageNet, 200 classes in one HDF5 file, with its own validation part and no labels to test.

    path: the file; null looks for its usual names in the data folder.
    pixels: which of its two sizes is looked for.
    stream: `on` leaves the pixels in the file, `off` loads them whole, `auto` decides by their size.
    buffer_mib: memory in which streamed images are shuffled.
    """
    settings: dict[str, Any] = {"stream": stream, "buffer_mib": buffer_mib}
    return load_hdf5(part, data_dir, path=path or _medium_imagenet(data_dir, pixels), **settings)


def load_medium_imagenet_part(part: str, data_dir: Path, *, path: str | None, pixels: int, stream: str, buffer_mib: int) -> Dataset | None:
    """Return a part as load_medium_imagenet does, or None where the file has no such part."""
    found = path or _medium_imagenet(data_dir, pixels)
    return load_hdf5_part(part, data_dir, path=found, **{**DEFAULT_KEYS, "stream": stream, "buffer_mib": buffer_mib})


def _medium_imagenet(data_dir: Path, pixels: int) -> str:
    candidates = [data_dir / folder / name for folder in FOLDERS for name in MEDIUM_IMAGENET[pixels]]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        remedy = "ask your course for the file and name it with data.path=FILE, or make a small one: `firstlight data generate FILE.h5`"
        raise missing(f"Medium ImageNet ({MEDIUM_IMAGENET[pixels][0]})", [data_dir / FOLDERS[0], data_dir], remedy)
    return str(found)


def load_hdf5_part(
    part: str, data_dir: Path, *, path: str, images_key: str, labels_key: str, class_names: str | None, stream: str, buffer_mib: int
) -> Dataset | None:
    """Return a part as load_hdf5 does, or None where the file has no such part."""
    file = find_file(path, data_dir)
    facts, labels, answer = facts_of(file, part, images_key, labels_key)
    if facts is None:
        return None
    names = given_names(class_names, file.parent) if class_names is not None else None
    names = names or tuple(answer["class_names"] or ()) or names_beside(file.parent, file.stem)
    if names is None:
        known = labels if part == "train" else facts_of(file, "train", images_key, labels_key)[1]
        names = numbered_names(cast(Tensor, known), file.name)
    if labels is not None:
        labels = checked_labels(labels, facts.shape[0], len(names), f"{file.name} {answer['parts'][part]['labels_key']}")
    images = StoredImages(ImageFile(facts), policy=stream, buffer_bytes=buffer_mib << 20)
    kind = PARTS[part] if labels is not None else f"unlabelled {PARTS[part]}"
    return Dataset(cast(Tensor, images), labels, names, f"{file.name} ({len(images):,} {kind} images)")


def find_file(path: str, data_dir: Path) -> Path:
    """Return the absolute path of a file that is given as it is or below the data folder."""
    given = Path(path).expanduser()
    for candidate in (given, data_dir / given):
        if candidate.is_file():
            return candidate.resolve()
        if candidate.exists():
            raise DataError(f"{candidate} is a folder, a device or a pipe; name an HDF5 file with data.path")
    raise missing(f"the HDF5 file {path!r}", [Path.cwd(), data_dir], "correct data.path")


def facts_of(path: Path, part: str, images_key: str, labels_key: str) -> tuple[ArrayFacts | None, Tensor | None, dict[str, Any]]:
    """Return where the images of a part lie (None where there is no such part), its labels int64 [N] or None, and the whole answer."""
    if "{part}" not in images_key and part != "train":
        return None, None, {}
    for name, key in (("images_key", images_key), ("labels_key", labels_key)):
        if "{" in key.replace("{part}", "") or "}" in key.replace("{part}", ""):
            raise ConfigError(f"data.{name} is {key!r}; the only braces in it are those of {{part}}; take the others out")
    identity = identity_of(path)
    keys = (part, images_key.replace("{part}", part), labels_key.replace("{part}", part))
    answer, arrays = _asked(path, identity, keys)
    found = answer["parts"].get(part)
    if found is None:
        return None, None, answer
    shape = tuple(found["shape"])
    facts = ArrayFacts(
        path,
        found["key"],
        identity,
        shape,
        _order(shape),
        offset=found.get("offset"),
        chunk_shape=tuple(found["chunk_shape"]) if "chunk_shape" in found else None,
        chunks=arrays[found["chunks"]] if "chunks" in found else None,
        filters=tuple(found.get("filters", ())),
        library=found.get("library", False),
        sha256=found.get("sha256"),
        sums=arrays[found["sums"]] if "sums" in found else None,
        sum_rows=found.get("sum_rows", 0),
    )
    return facts, torch.from_numpy(arrays[found["labels"]].copy()) if "labels" in found else None, answer


def require_h5py() -> None:
    """Raise DataError where h5py is not installed; nothing is imported."""
    if importlib.util.find_spec("h5py") is None:
        raise DataError('HDF5 files need h5py, which is not installed; pip install "firstlight[hdf5]"')


def _order(shape: tuple[int, ...]) -> Order:
    """Return the order of axes that a shape speaks for; where both ends could be channels, the last one is."""
    if len(shape) == 3:
        return "nhw"
    return "nhwc" if shape[3] in (1, 3) and (shape[1] not in (1, 3) or shape[1] == shape[2]) else "nchw"


@lru_cache(maxsize=16)
def _asked(path: Path, identity: Identity, keys: tuple[str, str, str]) -> tuple[dict[str, Any], Arrays]:
    """Return what the child process says of a file; identity: so that another file at the same path is asked about anew."""
    require_h5py()
    part, images_key, labels_key = keys
    request = {"path": str(path), "parts": {part: [images_key, labels_key]}, "required": ["train"]}
    return ask_child("firstlight.data.hdf5_probe", request, str(path))
