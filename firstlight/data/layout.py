"""How the names in an archive fall into parts and classes: train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE that is split."""

from dataclasses import dataclass

import torch

from firstlight.data.archive import Archive
from firstlight.data.decode import SUFFIXES
from firstlight.data.splits import carve
from firstlight.errors import DataError

SPLIT_SEED = 20241
UNUSED_PARTS = ("val", "valid", "validation")

Items = list[tuple[str, int]]
"""Names of images with their labels."""


@dataclass(frozen=True)
class Layout:
    """The images of an archive by part; `note` says what a reader of the numbers should know about the parting."""

    class_names: tuple[str, ...]
    train: Items
    test: Items
    note: str


def find_layout(archive: Archive, test_fraction: float) -> Layout:
    """Sort the names of an archive into parts and classes, without reading any file.

    Raises DataError where there are no class folders, where one is empty, or where a test class is none of the training classes.
    """
    names = [name for name in archive.names() if not _is_hidden(name)]
    root = _root(names)
    parts = {name.removeprefix(root).split("/")[0] for name in names if "/" in name.removeprefix(root)}
    if "train" not in parts:
        class_names, items = _training_images(archive, root, names)
        return Layout(class_names, *_split(items, test_fraction), f", {test_fraction:.0%} held out to test")
    class_names, train = _training_images(archive, f"{root}train/", names)
    note = "".join(f", {part}/ unused" for part in UNUSED_PARTS if part in parts)
    if "test" not in parts:
        return Layout(class_names, *_split(train, test_fraction), f"{note}, {test_fraction:.0%} of train/ held out to test")
    return Layout(class_names, train, _test_images(archive, f"{root}test/", names, class_names), note)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _root(names: list[str]) -> str:
    """Return the folder that wraps everything, such as `pets/`, or nothing."""
    root = ""
    while True:
        inside = [name.removeprefix(root) for name in names if name != root and name.startswith(root)]
        tops = {name.split("/")[0] for name in inside}
        depths = [name.count("/") for name in inside if _is_image(name)]
        if len(tops) != 1 or tops == {"train"} or min(depths, default=0) < 2:
            return root
        root += f"{tops.pop()}/"


def _images_below(base: str, names: list[str]) -> list[tuple[str, str]]:
    """Return (class folder, name) of each image at any depth below the class folders of `base`."""
    inside = [name.removeprefix(base) for name in names if name.startswith(base) and _is_image(name)]
    return [(name.split("/")[0], base + name) for name in inside if "/" in name]


def _training_images(archive: Archive, base: str, names: list[str]) -> tuple[tuple[str, ...], Items]:
    where = f"{archive.path}/{base}"
    images = _images_below(base, names)
    if not images:
        raise DataError(f"{where} holds no class folders with images; expected {where}CLASS/IMAGE with {', '.join(SUFFIXES[:4])}, ...")
    class_names = tuple(sorted({class_name for class_name, _ in images}))
    for name in names:
        folder = name.removeprefix(base).removesuffix("/")
        if name.startswith(base) and name.endswith("/") and folder and "/" not in folder and folder not in class_names:
            raise DataError(f"{where}: the class folder {folder!r} holds no images; fill it or remove it")
    return class_names, [(name, class_names.index(class_name)) for class_name, name in images]


def _test_images(archive: Archive, base: str, names: list[str], class_names: tuple[str, ...]) -> Items:
    images = _images_below(base, names)
    for class_name, name in images:
        if class_name not in class_names:
            raise DataError(
                f"{archive.path}: {name!r} is of a class that train/ does not have (it has {', '.join(class_names)}); move or remove it"
            )
    if not images:
        raise DataError(f"{archive.path}/{base} holds no class folders with images; fill it, or remove it to have train/ split")
    return [(name, class_names.index(class_name)) for class_name, name in images]


def _split(items: Items, test_fraction: float) -> tuple[Items, Items]:
    train, test = carve(torch.tensor([label for _, label in items]), test_fraction, SPLIT_SEED)
    return [items[row] for row in train.tolist()], [items[row] for row in test.tolist()]
