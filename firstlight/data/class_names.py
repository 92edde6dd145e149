"""Names of the classes from a file that is given or lies beside the data, or made up from the labels."""

import json
from pathlib import Path

from torch import Tensor

from firstlight.errors import DataError

MAX_NAME_BYTES = 1 << 22
MAX_CLASSES = 100_000
NAME_FILES = ("class-names", "class_names", "classes")
"""Where class names lie beside the data, with the suffix .txt (a name a line) or .json (a list, or names by label)."""


def given_names(given: str, folder: Path) -> tuple[str, ...]:
    """Return the class names in a file that is named as it is or below the folder of the data."""
    path = Path(given).expanduser()
    return _read(path if path.is_file() else folder / given)


def names_beside(folder: Path, stem: str | None = None) -> tuple[str, ...] | None:
    """Return the class names in a file in a folder, where there is one; stem: of the data's own file, which may be part of the name."""
    candidates = [*([] if stem is None else [f"{stem}-classes", f"{stem}_classes"]), *NAME_FILES]
    found = next((path for name in candidates for suffix in (".txt", ".json") if (path := folder / f"{name}{suffix}").is_file()), None)
    return None if found is None else _read(found)


def numbered_names(labels: Tensor, where: str) -> tuple[str, ...]:
    """Return a name for each class up to the largest label."""
    largest = int(labels.max())
    if not 0 <= largest < MAX_CLASSES:
        row = int(labels.argmax())
        raise DataError(f"{where}: row {row} of labels: {largest}, allowed 0..{MAX_CLASSES - 1:,}; correct it")
    return tuple(f"class {label}" for label in range(largest + 1))


def _read(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_bytes()[:MAX_NAME_BYTES].decode("utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines() if line.strip()]
        if isinstance(names, dict):
            names = [names[str(label)] for label in range(len(names))]
    except OSError as error:
        raise DataError(f"cannot read the class names {path}: {error.strerror}; correct data.class_names") from error
    except (UnicodeDecodeError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no class names ({' '.join(str(error).split())}); write one a line, or a JSON list") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} holds no class names; write one a line, or a JSON list of texts")
    return tuple(names)
