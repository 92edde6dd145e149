"""The seal on the test set: the one place that loads it with its labels. Whoever calls it records the opening in the run."""

from pathlib import Path

from firstlight.config.schema import Config
from firstlight.data.build import load_experiment_part
from firstlight.data.dataset import Dataset
from firstlight.errors import DataError


def open_test_set(config: Config, data_dir: Path) -> Dataset:
    """Return the labelled test part. Raises DataError where its labels are nobody's to have."""
    dataset = load_experiment_part(config, "test", data_dir)
    if dataset.labels is None:
        raise DataError(f"{dataset.source}: the test images have no labels, so there is nothing to evaluate; use `firstlight predict RUN`")
    return dataset
