"""Sheets of labelled images: as they are, and as the network sees them."""

from typing import Any

import torch
from torch import Tensor

from firstlight.config.schema import Config
from firstlight.data.augment import Augment, Draws
from firstlight.data.build import make_train_loader
from firstlight.data.dataset import Dataset
from firstlight.data.normalize import Normalize
from firstlight.plotting.images import plot_images

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
    """Return a figure with up to ten images of each of up to ten classes, a row a class, labelled."""
    chosen = chosen_images(dataset)
    return _sheet([dataset.pixels(int(index)) for index in chosen], _names(dataset, chosen), title or dataset.source)


def draw_as_seen(dataset: Dataset, config: Config, normalize: Normalize, *, seed: int, title: str) -> tuple[Any, dict[str, float]]:
    """Return a figure of images as the training loader gives them, normalisation undone to show them, and the values that it gave.

    With augmentation, one image of each class in a row: as it is, then in the first epochs of a training with this seed.
    title: said before what the values are. The values: `least`, `greatest`, `mean`, `std` of what the network gets for the images shown.
    """
    loader = make_train_loader(config, dataset, normalize, seed=seed, device="cpu", channels_last=False)
    assert dataset.labels is not None
    augmented = loader.augment != Augment()
    chosen = chosen_images(dataset, 1 if augmented else COLUMNS)
    views = []
    for epoch in range(EPOCHS if augmented else 1):
        drawn = Draws(loader.augment, seed, epoch).of(chosen, *dataset.image_shape[1:])
        views.append(loader.make(drawn).images.contiguous())
    seen = torch.stack(views, 1)
    values = {"least": float(seen.min()), "greatest": float(seen.max()), "mean": float(seen.mean()), "std": float(seen.std(correction=0))}
    images, titles = [], []
    for row, index in enumerate(chosen.tolist()):
        name = dataset.class_names[int(dataset.labels[index])]
        images += [dataset.pixels(index)] if augmented else []
        images += [to_pixels(view, normalize) for view in seen[row]]
        titles += [name, *(f"epoch {epoch + 1}" for epoch in range(EPOCHS))] if augmented else [name]
    said = (
        f"{title}: values from {values['least']:.2f} to {values['greatest']:.2f}, mean {values['mean']:.2f}, deviation {values['std']:.2f}"
    )
    if augmented:
        return plot_images(images, titles, columns=COLUMNS, title=f"{said}; first column as it is"), values
    return _sheet(images, titles, f"{said}; no augmentation is set"), values


def to_pixels(image: Tensor, normalize: Normalize) -> Any:
    """Return what the network sees of an image, float [C, H, W], as pixels to look at: uint8 [H, W] or [H, W, C]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalize.mean, normalize.std))
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return pixels.squeeze(2).numpy() if pixels.shape[2] == 1 else pixels.numpy()


def _names(dataset: Dataset, chosen: Tensor) -> list[str]:
    assert dataset.labels is not None
    return [dataset.class_names[label] for label in dataset.labels[chosen].tolist()]


def _sheet(images: list[Any], titles: list[str], title: str) -> Any:
    """Return a sheet that begins a row for each class; rows of classes with few images end in blanks."""
    shown: list[Any] = []
    names: list[str] = []
    for place, (image, name) in enumerate(zip(images, titles, strict=True)):
        if place and name != titles[place - 1] and len(shown) % COLUMNS:
            blanks = COLUMNS - len(shown) % COLUMNS
            shown += [None] * blanks
            names += [""] * blanks
        shown.append(image)
        names.append(name)
    return plot_images(shown, names, columns=COLUMNS, title=title)
