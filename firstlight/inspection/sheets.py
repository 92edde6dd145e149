"""Sheets of labelled images: as they are, and as the network sees them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from firstlight.config.schema import AugmentConfig, Config
from firstlight.data.augment import Draws
from firstlight.data.build import make_train_loader
from firstlight.data.dataset import Dataset
from firstlight.data.normalize import Normalize
from firstlight.plotting.datasets import plot_sheet

COLUMNS = 10
"""Images of each class on a sheet."""
ROWS = 10
"""Classes on a sheet; of more, evenly spread ones."""
EPOCHS = COLUMNS - 1
"""Epochs beside the image as it is, where augmentation is drawn."""


def shown_classes(dataset: Dataset, most: int = ROWS) -> list[int]:
    """Return the classes that have images, evenly spread where there are more than `most`."""
    assert dataset.labels is not None
    present = dataset.labels.unique()
    return present[torch.linspace(0, len(present) - 1, min(len(present), most)).round().long()].tolist()  # type: ignore[no-any-return]


def chosen_images(dataset: Dataset, per_class: int = COLUMNS) -> Tensor:
    """Return the places of the first images of each shown class, int64."""
    assert dataset.labels is not None
    return torch.cat([(dataset.labels == label).nonzero().flatten()[:per_class] for label in shown_classes(dataset)])


def draw_sheet(dataset: Dataset, title: str | None = None) -> Any:
    """Return a figure with up to ten images of each of up to ten classes, a row a class."""
    chosen = _chosen_rows(dataset)
    rows = [[dataset.pixels(index) for index in places] for places in chosen.values()]
    return plot_sheet(rows, list(chosen), title=title or dataset.source)


def draw_as_seen(dataset: Dataset, config: Config, normalize: Normalize, *, seed: int, title: str) -> tuple[Any, dict[str, float]]:
    """Return a figure of images as the training loader gives them, normalisation undone to show them, and the values that it gave.

    With augmentation, one image of each class in a row: as it is, then in the first epochs of a training with this seed.
    title: said before what the values are. The values: `least`, `greatest`, `mean`, `std` of what the network gets for the images shown.
    """
    assert dataset.labels is not None
    augmented = config.augment != AugmentConfig()
    chosen = chosen_images(dataset, 1 if augmented else COLUMNS)
    few = dataset.subset(chosen)
    few = replace(few, images=few.images[:])  # in memory, though the others may be streamed
    loader = make_train_loader(config, few, normalize, seed=seed, device="cpu", channels_last=False)
    seen_views = []
    for epoch in range(EPOCHS if augmented else 1):
        drawn = Draws(loader.augment, seed, epoch).of(chosen, *dataset.image_shape[1:])
        seen_views.append(loader.make(drawn._replace(indices=torch.arange(len(chosen)))).images.contiguous())
    seen = torch.stack(seen_views, 1)
    values = {"least": float(seen.min()), "greatest": float(seen.max()), "mean": float(seen.mean()), "std": float(seen.std(correction=0))}
    said = (
        f"{title}: values from {values['least']:.2f} to {values['greatest']:.2f}, mean {values['mean']:.2f}, deviation {values['std']:.2f}"
    )
    if augmented:
        names = [dataset.class_names[label] for label in dataset.labels[chosen].tolist()]
        rows = [
            [dataset.pixels(index), *(to_pixels(view, normalize) for view in views)]
            for index, views in zip(chosen.tolist(), seen, strict=True)
        ]
        columns = ["as it is", *(f"epoch {epoch + 1}" for epoch in range(EPOCHS))]
        return plot_sheet(rows, names, column_names=columns, title=said), values
    shown = dict(zip(chosen.tolist(), seen[:, 0], strict=True))
    plain = {name: [to_pixels(shown[index], normalize) for index in places] for name, places in _chosen_rows(dataset).items()}
    return plot_sheet(list(plain.values()), list(plain), title=f"{said}; no augmentation is set"), values


def to_pixels(image: Tensor, normalize: Normalize) -> Any:
    """Return what the network sees of an image, float [C, H, W], as pixels to look at: uint8 [H, W] or [H, W, C]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalize.mean, normalize.std))
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return pixels.squeeze(2).numpy() if pixels.shape[2] == 1 else pixels.numpy()


def _chosen_rows(dataset: Dataset) -> dict[str, list[int]]:
    """Return the places of the chosen images by the name of their class."""
    assert dataset.labels is not None
    rows: dict[str, list[int]] = {}
    for index in chosen_images(dataset).tolist():
        rows.setdefault(dataset.class_names[int(dataset.labels[index])], []).append(index)
    return rows
