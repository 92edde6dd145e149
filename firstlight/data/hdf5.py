"""Images in HDF5 files: Medium ImageNet's layout, or any arrays with a name. The pixels stay in the file until they are asked for.

A file is looked at in a child process (hdf5_probe.py) before anything here touches it. Reading order: load_hdf5, facts_of, _asked.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from firstlight.data.dataset import Dataset, checked_labels
from firstlight.data.places import missing
from firstlight.data.stored import Facts, Identity, ImageFile, Order, StoredImages, identity_of
from firstlight.errors import ConfigError, DataError
from firstlight.limits import PositiveInt

PARTS = {"train": "training", "val": "validation", "test": "test"}
MAX_SECONDS = 300
"""For the look into a file, which takes half a second."""
MAX_NAME_BYTES = 1 << 22
MAX_CLASSES = 100_000
NAME_FILES = ("{stem}-classes", "{stem}_classes", "class-names", "class_names", "classes")
"""Where class names lie beside a file, with the suffix .txt (a name a line) or .json (a list, or names by label)."""
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

Arrays = list["np.ndarray[tuple[int, ...], np.dtype[np.int64]]"]


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
    names = _class_names(file, class_names, answer)
    if names is None:
        known = labels if part == "train" else facts_of(file, "train", images_key, labels_key)[1]
        names = _numbered(file, cast(Tensor, known))
    if labels is not None:
        labels = checked_labels(labels, facts.shape[0], len(names), f"{file.name} {answer['parts'][part]['labels_key']}")
    images = StoredImages(ImageFile(facts), policy=stream, buffer_bytes=buffer_mib << 20)
    kind = PARTS[part] if labels is not None else f"unlabelled {PARTS[part]}"
    return Dataset(cast(Tensor, images), labels, names, f"{file.name} ({len(images):,} {kind} images)")


def _numbered(file: Path, labels: Tensor) -> tuple[str, ...]:
    """Return a name for each class up to the largest label of the training part."""
    largest = int(labels.max())
    if not 0 <= largest < MAX_CLASSES:
        row = int(labels.argmax())
        raise DataError(f"{file.name}: row {row} of labels: {largest}, allowed 0..{MAX_CLASSES - 1:,}; correct it")
    return tuple(f"class {label}" for label in range(largest + 1))


def find_file(path: str, data_dir: Path) -> Path:
    """Return the absolute path of a file that is given as it is or below the data folder."""
    given = Path(path).expanduser()
    for candidate in (given, data_dir / given):
        if candidate.is_file():
            return candidate.resolve()
        if candidate.exists():
            raise DataError(f"{candidate} is a folder, a device or a pipe; name an HDF5 file with data.path")
    raise missing(f"the HDF5 file {path!r}", [Path.cwd(), data_dir], "correct data.path")


def facts_of(path: Path, part: str, images_key: str, labels_key: str) -> tuple[Facts | None, Tensor | None, dict[str, Any]]:
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
    facts = Facts(
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
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "firstlight.data.hdf5_probe", json.dumps(request)]
    damaged = "it is damaged, or made to do harm; get it again"
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=MAX_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise DataError(f"{path}: looking at it took more than {MAX_SECONDS} s; {damaged}") from None
    line, newline, rest = done.stdout.partition(b"\n")
    if done.returncode or not newline:
        why = (
            f"signal {-done.returncode}"
            if done.returncode < 0
            else (done.stderr.decode(errors="replace").strip().splitlines() or ["?"])[-1]
        )
        raise DataError(f"{path}: the process that looked at it broke down ({why}); {damaged}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise DataError(f"{path}: {answer['error']}")
    arrays: Arrays = []
    for shape in answer["arrays"]:
        size = int(np.prod(shape)) * 8
        arrays.append(np.frombuffer(rest[:size], "<i8").reshape(shape))
        rest = rest[size:]
    return answer, arrays


def _class_names(file: Path, given: str | None, answer: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes: from the file that is given, the HDF5 file, or a file beside it; None where nothing is."""
    if given is not None:
        path = Path(given).expanduser()
        return _read_names(path if path.is_file() else file.parent / given)
    if answer["class_names"]:
        return tuple(answer["class_names"])
    beside = [file.with_name(name.format(stem=file.stem) + suffix) for name in NAME_FILES for suffix in (".txt", ".json")]
    found = next((path for path in beside if path.is_file()), None)
    return None if found is None else _read_names(found)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_bytes()[:MAX_NAME_BYTES].decode("utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines() if line.strip()]
        if isinstance(names, dict):
            names = [names[str(label)] for label in range(len(names))]
    except OSError as error:
        raise DataError(f"cannot read the class names {path}: {error.strerror}; correct data.class_names") from error
    except (UnicodeDecodeError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no class names ({' '.join(str(error).split())}); write one a line, or a JSON list") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} holds no class names; write one a line, or a JSON list of texts")
    return tuple(names)
