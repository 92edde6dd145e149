"""The seal on the test set: the one place that loads it with its labels. Whoever calls it records the opening in the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstlight.config.schema import Config
from firstlight.data.build import load_experiment_part
from firstlight.data.dataset import Dataset
from firstlight.engine.matching import check_match
from firstlight.errors import DataError


def open_test_set(config: Config, data_dir: Path, record: Mapping[str, Any]) -> Dataset:
    """Return the labelled test part for a run with this `data` record.

    Raises DataError where its labels are nobody's to have, or where the run was trained on other classes or shapes.
    """
    dataset = load_experiment_part(config, "test", data_dir)
    if dataset.labels is None:
        raise DataError(f"{dataset.source}: the test images have no labels, so there is nothing to evaluate; use `firstlight predict RUN`")
    check_match(dataset, record)
    return dataset
