"""A run as a graph that torch itself loads: torch.export's .pt2, and TorchScript, which torch deprecated in 2.11.

Both are code: whoever loads one runs what it holds. A file of foreign origin is loaded only where the user says so.
"""

import io
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import CheckpointError, ConfigError
from firstlight.export.description import EXTRA_FILE, Description, read_description
from firstlight.export.network import PixelNetwork
from firstlight.export.quiet import quiet
from firstlight.export.reader import Exported, first_line, read_content

MAX_BYTES = 2**34
ZIP_HEADER = 30
"""Bytes ahead of the name of a member of a zip archive."""
ALIGNMENT = 64
"""Each member of torch's archives begins at a multiple of so many bytes, behind an extra field of the kind PADDING."""
PADDING = 0x4246


def to_pt2(network: PixelNetwork, example: Tensor, description: Description) -> bytes:
    """Return the content of a .pt2 file with a dynamic number of images; example: images [B, C, H, W], B > 1."""
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={EXTRA_FILE: description.to_json()})
    return buffer.getvalue()


def to_torchscript(network: PixelNetwork, example: Tensor, description: Description) -> bytes:
    """Return the content of a TorchScript file; example: images [B, C, H, W], B > 1."""
    buffer = io.BytesIO()
    with _deprecated(), torch.no_grad():
        script = torch.jit.trace(network, (example,), check_trace=False)
        torch.jit.save(script, buffer, _extra_files={EXTRA_FILE: description.to_json().encode()})
    return _without_sources(buffer.getvalue())


def _without_sources(content: bytes) -> bytes:
    """Return a TorchScript archive without what only its error messages need: line and path of the source of each operation."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                member = old.read(entry)
                begin = buffer.tell() + ZIP_HEADER + len(entry.filename.encode()) + 4
                padding = -begin % ALIGNMENT
                entry.extra = struct.pack("<HH", PADDING, padding) + b"Z" * padding
                new.writestr(entry, member)
    return buffer.getvalue()


class Pt2Reader(Exported):
    """A .pt2 file by its path. Loading it runs what it holds. Raises CheckpointError."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        extra = {EXTRA_FILE: ""}
        content = content or read_content(path, MAX_BYTES)
        try:
            with quiet("torch.export"):
                self._network = torch.export.load(io.BytesIO(content), extra_files=extra).module()
        except Exception as error:  # torch raises a dozen kinds on damaged bytes
            raise CheckpointError(f"{path} is no whole .pt2 file ({first_line(error)}); export the run again") from None
        self.description = read_description(_text(extra[EXTRA_FILE]), path)

    def _ask(self, pixels: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return _as_array(self._network(torch.from_numpy(pixels)))


class TorchScriptReader(Exported):
    """A TorchScript file by its path. Loading it runs what it holds. Raises CheckpointError."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        extra = {EXTRA_FILE: ""}
        content = content or read_content(path, MAX_BYTES)
        try:
            with _deprecated():
                self._network = torch.jit.load(io.BytesIO(content), "cpu", _extra_files=extra)
        except Exception as error:
            raise CheckpointError(f"{path} is no whole TorchScript file ({first_line(error)}); export the run again") from None
        self.description = read_description(_text(extra[EXTRA_FILE]), path)

    def _ask(self, pixels: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad(), _deprecated():
            return _as_array(self._network(torch.from_numpy(pixels)))


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive, from its table of contents alone. Raises CheckpointError where it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_content(path, MAX_BYTES))) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def check_trusted(path: Path, *, trust_code: bool) -> None:
    """Raise ConfigError for a file that is code, unless the user trusts it."""
    if not trust_code:
        raise ConfigError(
            f"{path}: this file is code, and loading it runs what it holds; pass --trust-code if you know who made it, "
            "or export the run as onnx or safetensors"
        )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _as_array(values: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = np.asarray(values)
    return found


@contextmanager
def _deprecated() -> Iterator[None]:
    """Keep torch from saying at each call that TorchScript is deprecated: the command says so once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit.*is (deprecated|not supported)", DeprecationWarning)
        yield
