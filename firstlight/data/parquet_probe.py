"""A look into Parquet shards, made in a process of its own: types of the columns, labels, row groups, names of the classes.

A request names paths, images_key and labels_key (null finds them). Reading order: look, _columns, _labels, _groups.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.parquet import FileMetaData, ParquetFile

from firstlight.data.probe import NO_LABEL, Array, answer, short
from firstlight.errors import DataError, did_you_mean

IMAGES, LABELS = ("image", "img", "images"), ("label", "labels", "cls")
"""What the columns are called where the file does not say itself which they are."""
MAX_GROUP_BYTES = 1 << 30
MAX_NAMES = 100_000


def look(request: dict[str, Any], arrays: list[Array]) -> dict[str, Any]:
    """Return for each path its columns and class names, or what is wrong with it; arrays holds labels and row groups, in turn."""
    shards: list[dict[str, Any]] = []
    for path in request["paths"]:
        try:
            with ParquetFile(path) as file:
                found = _columns(file.schema_arrow, request["images_key"], request["labels_key"])
                arrays += [_labels(file, found["labels"]), _groups(file.metadata, found["images"])]
        except DataError as error:
            found = {"error": str(error)}
        except Exception as error:  # pyarrow raises a dozen kinds on damaged bytes
            found = {"error": f"it cannot be read ({short(error)}); it is damaged or no Parquet file, get it again"}
        shards.append(found)
        if "error" in found:
            break
    return {"shards": shards}


def _columns(schema: pa.Schema, images_key: str | None, labels_key: str | None) -> dict[str, Any]:
    """Return the names and types of the columns (labels None where there is none), and the class names that the file brings."""
    features = _features(schema)
    images = images_key or _of_kind(features, "Image") or next((name for name in IMAGES if name in schema.names), IMAGES[0])
    labels = labels_key or _of_kind(features, "ClassLabel") or next((name for name in LABELS if name in schema.names), None)
    for setting, name in (("images_key", images), ("labels_key", labels)):
        if name is not None and name not in schema.names:
            raise DataError(f"it has no column {name!r}{did_you_mean(name, schema.names[:50])}; set data.{setting}")
    kind = schema.field(images).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise DataError(
            f"the column {images!r} is {str(kind)[:80]}; expected encoded images, binary or a struct with `bytes`; set data.images_key"
        )
    if labels is not None and not pa.types.is_integer(schema.field(labels).type):
        raise DataError(f"the column {labels!r} is {str(schema.field(labels).type)[:80]}; expected whole numbers; set data.labels_key")
    names = (features.get(labels) or {}).get("names") if labels else None
    good = isinstance(names, list) and 0 < len(names) <= MAX_NAMES and all(isinstance(name, str) for name in names)
    return {"images": images, "labels": labels, "struct": inner is not kind, "class_names": names if good else None}


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return what Hugging Face's library says of the columns, by name."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _of_kind(features: dict[str, Any], kind: str) -> str | None:
    return next((name for name, feature in features.items() if feature.get("_type") == kind), None)


def _labels(file: ParquetFile, name: str | None) -> Array:
    """Return the labels int64 [N]; NO_LABEL without a column of them."""
    if name is None:
        return np.full(file.metadata.num_rows, NO_LABEL, np.int64)
    column = file.read(columns=[name], use_threads=False).column(0)
    if column.null_count:
        row = next(row for row, value in enumerate(column) if not value.is_valid)
        raise DataError(f"row {row:,} of {name!r} is null ({column.null_count:,} such rows); give it a label or leave it out")
    return np.array(column.cast(pa.int64()).to_numpy(), np.int64)


def _groups(metadata: FileMetaData, images: str) -> Array:
    """Return number and rows of each row group that is not empty, int64 [G, 2]."""
    groups = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(at) for at in range(group.num_columns)]
        size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == images)
        if size > MAX_GROUP_BYTES:
            raise DataError(
                f"row group {number} has {group.num_rows:,} images in {size / 2**20:,.0f} MiB, and is read as a whole; at most "
                f"{MAX_GROUP_BYTES >> 20:,} MiB are; write it with smaller ones (row_group_size=1000)"
            )
        if group.num_rows:
            groups.append((number, group.num_rows))
    return np.array(groups, np.int64).reshape(-1, 2)


if __name__ == "__main__":
    answer(look)
