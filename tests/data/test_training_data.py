"""What a run remembers of its data, and what it is warned of."""

from dataclasses import replace

import pytest
import torch

from firstlight.data.dataset import Dataset, make_dataset
from firstlight.data.training_data import TrainingData, content_hash, part_training_data

IMAGES = torch.arange(40 * 3 * 4 * 4, dtype=torch.int64).remainder(251).to(torch.uint8).view(40, 3, 4, 4)
DATA = make_dataset(IMAGES, torch.arange(40) % 4, ["a", "b", "c", "d"], "made up (40 training images)")


def parted(dataset: Dataset = DATA, **settings: object) -> TrainingData:
    return part_training_data(dataset, **({"val_fraction": 0.2, "split_seed": 0, "num_train": None, "normalize": True} | settings))


def test_the_content_hash_of_the_same_data_never_changes():
    """A resume tells changed data from the same data, wherever they lie and whatever they are called."""
    assert parted().record.content_hash == parted(replace(DATA, source="elsewhere", images=DATA.images.clone())).record.content_hash
    assert parted().record.content_hash == "ab5bc1b8658e92dd40c54690420a60bd2a8d35b5d2ece44740369b02e8883168"
    assert parted().record.to_json()["content_hash"] == parted().record.content_hash


def one_pixel_brighter(data: Dataset) -> Dataset:
    images = data.images.clone()
    images[17, 2, 3, 1] += 1
    return replace(data, images=images)


@pytest.mark.parametrize(
    "changed",
    [
        one_pixel_brighter(DATA),
        replace(DATA, labels=DATA.labels.flip(0)),
        replace(DATA, images=DATA.images.view(40, 3, 2, 8)),
        replace(DATA, images=DATA.images.float() / 255),
        DATA.subset(torch.arange(39)),
    ],
    ids=["one pixel", "labels", "shape", "dtype", "one image fewer"],
)
def test_the_content_hash_notices(changed: Dataset):
    assert parted(changed).record.content_hash != parted().record.content_hash


def test_the_content_hash_covers_both_parts_and_their_border():
    first, second = DATA.subset(torch.arange(30)), DATA.subset(torch.arange(30, 40))
    hashes = {content_hash(first, second), content_hash(second, first), content_hash(DATA), content_hash(first)}
    assert len(hashes) == 4
    assert parted(val_fraction=0.0).record.content_hash != parted().record.content_hash
