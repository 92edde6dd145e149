"""`firstlight new DIR`: a project of a hundred lines that a beginner owns, with its own tests."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_text

SUFFIX = ".template"


def new_project(folder: Path) -> list[Path]:
    """Write model.py, data.py, main.py, their tests and a README into a new folder, and return the files.

    Raises ConfigError, and writes nothing, where one of them is there already.
    """
    folder = folder.expanduser()
    templates = {folder / entry.name.removesuffix(SUFFIX): entry.read_text(encoding="utf-8") for entry in _templates()}
    if taken := sorted(path.name for path in templates if path.exists()):
        raise ConfigError(f"{folder} holds {', '.join(taken)} already; name a new folder")
    make_dir(folder)
    name = folder.resolve().name or "Corrupted digits"
    for path, text in templates.items():
        write_text(path, text.replace("NAME", name) if path.suffix == ".md" else text)
    return sorted(templates)


def _templates() -> list[Traversable]:
    return [entry for entry in files("firstlight.notebooks").joinpath("project").iterdir() if entry.name.endswith(SUFFIX)]
