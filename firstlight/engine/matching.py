"""Whether images are of the kind that a run was trained on: the same classes in the same order, the same shape."""

from collections.abc import Iterable, Mapping
from typing import Any

from firstlight.data.dataset import Dataset
from firstlight.errors import DataError

MAX_NAMED = 5


def check_match(dataset: Dataset, record: Mapping[str, Any]) -> None:
    """Raise DataError where a data set has other classes or another shape than the `data` of a run (run.json, DataRecord.to_json)."""
    names, shape = tuple(record["class_names"]), tuple(record["image_shape"])
    if dataset.class_names != names:
        raise DataError(
            f"{dataset.source}: its classes are not those that the run was trained on: {_difference(dataset.class_names, names)}; "
            "put the old data back, or train anew"
        )
    if dataset.image_shape != shape:
        raise DataError(
            f"{dataset.source}: its images are {_shape(dataset.image_shape)}, but the run was trained on {_shape(shape)}; "
            "put the old data back, or train anew"
        )


def _difference(found: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    lacking, added = ([name for name in names if name not in others] for names, others in ((wanted, set(found)), (found, set(wanted))))
    parts = [f"{what} {_listed(names)}" for what, names in (("it lacks", lacking), ("it has also", added)) if names]
    return ", ".join(parts) or "they come in another order"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(str(size) for size in shape)
