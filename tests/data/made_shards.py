"""Shards for tests, written by tarfile and pyarrow, and the plain way to read them: the list that they were made from."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

NUM, CLASSES = 300, 5
NAMES = ["ant", "bee", "cow", "dog", "eel"]


def pixels_of(num: int, seed: int = 0, *, shape: tuple[int, ...] = (9, 10, 3)) -> np.ndarray:
    """Return random images, uint8 [num, *shape]: height and width differ, so that nobody takes one for the other."""
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **how: Any) -> bytes:
    """Return an image file; PNG gives the pixels back to the bit."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def labels_of(num: int) -> list[int]:
    """Return the labels of a part."""
    return [row * 7 % CLASSES for row in range(num)]


Files = list[tuple[str, bytes]]


def files_of(pixels: np.ndarray, labels: Sequence[int] | None, first: int = 0) -> Files:
    """Return the members of a tar: NAME.png, NAME.cls."""
    files: Files = []
    for row, image in enumerate(pixels):
        files.append((f"{first + row:06}.png", encoded(image)))
        if labels is not None:
            files.append((f"{first + row:06}.cls", str(labels[row]).encode()))
    return files


def write_tar(path: Path, files: Files) -> Path:
    """Write members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_tars(folder: Path, *, num: int = NUM, shards: int = 4, shape: tuple[int, ...] = (9, 10, 3), sort: bool = False) -> Path:
    """Write train-000000.tar ... (labelled), val-000000.tar (labelled, a fifth of it) and test-000000.tar (7, not labelled)."""
    for seed, (part, count) in enumerate((("train", num), ("val", num // 5), ("test", 7))):
        pixels, labels = pixels_of(count, seed, shape=shape), None if part == "test" else labels_of(count)
        labels = sorted(labels) if labels and sort else labels
        for shard, rows in enumerate(np.array_split(np.arange(count), shards if part == "train" else 1)):
            mine = None if labels is None else [labels[row] for row in rows]
            write_tar(folder / f"{part}-{shard:06}.tar", files_of(pixels[rows], mine, int(rows[0])))
    (folder / "class-names.txt").write_text("\n".join(NAMES))
    return folder


def table_of(images: list[bytes | None], labels: list[int] | None, *, plain: bool = False, names: list[str] | None = None) -> pa.Table:
    """Return a table as Hugging Face's library writes it, or with plain binary images."""
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values: list[Any] = images if plain else [None if image is None else {"bytes": image, "path": "x.png"} for image in images]
    columns: dict[str, Any] = {"image": pa.array(values, kind)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
        features["label"] = {"_type": "ClassLabel", "names": names} if names else {"_type": "Value", "dtype": "int64"}
    table = pa.table(columns)
    if plain:
        return table
    import json

    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, table: pa.Table, rows: int = 20) -> Path:
    """Write a table with row groups of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=rows)
    return path


def make_parquets(folder: Path, *, num: int = NUM, shards: int = 4, plain: bool = False, rows: int = 20) -> Path:
    """Write data/train-00000-of-0000N.parquet ... (labelled), validation (a fifth of it) and test (7, all labels -1)."""
    for seed, (part, count) in enumerate((("train", num), ("validation", num // 5), ("test", 7))):
        pixels, labels = pixels_of(count, seed), labels_of(count) if part != "test" else [-1] * count
        some = np.array_split(np.arange(count), shards if part == "train" else 1)
        for shard, places in enumerate(some):
            table = table_of([encoded(image) for image in pixels[places]], [labels[row] for row in places], plain=plain, names=NAMES)
            write_parquet(folder / "data" / f"{part}-{shard:05}-of-{len(some):05}.parquet", table, rows)
    return folder
