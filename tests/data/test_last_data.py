"""Programs of a study that follow each other read their data once."""

from pathlib import Path

import firstlight as fl
from firstlight.data.build import LastData


def test_the_same_data_are_read_once() -> None:
    load = LastData()
    first = load(fl.load_config("quickstart"), Path())
    assert load(fl.load_config("quickstart", train={"batch_size": 7}, optim={"lr": 0.5}, seed=3), Path()) is first


def test_other_data_are_read() -> None:
    load = LastData()
    first = load(fl.load_config("quickstart"), Path())
    for other in ({"split": {"seed": 1}}, {"split": {"num_train": 100}}, {"input": {"image_size": 16}}):
        assert load(fl.load_config("quickstart", **other), Path()) is not first
    again = load(fl.load_config("quickstart"), Path())
    assert again is not first  # only the last is kept
    assert again.train.images.equal(first.train.images)
