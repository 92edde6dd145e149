"""How the files end that an export writes, and what tells such a file from a run. Needs nothing."""

from pathlib import Path

SUFFIXES = (".onnx", ".safetensors", ".pt2", ".pt")
"""How the files end that can be asked."""


def is_exported_file(name: str, runs_dir: Path) -> bool:
    """Tell whether a name is that of an exported file, and not of a run whose name ends so too."""
    return name.lower().endswith(SUFFIXES) and not Path(name).is_dir() and not (runs_dir / name).is_dir()
