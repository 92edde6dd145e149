"""The weights in a .pt file, read in a process of its own with limits: such a file may be made to swell, or to break its reader.

`python -m firstlight.engine.weights_probe PATH` writes one line of JSON to stdout, and behind it the weights as safetensors.
Nothing that is pickled is run: torch.load(weights_only=True) builds tensors and plain containers alone. Reading order: main, read, find.
"""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.errors import CheckpointError
from firstlight.files import is_storable, tensors_to_chunks

NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
"""Under which of these names training scripts keep the weights beside an epoch and an optimizer."""
SPARE_BYTES = 1 << 30
COPIES = 4
"""Bytes that a reader may take for each byte of the file: what it reads, a copy that is laid out anew, and as much again."""
MAX_CPU_SECONDS = 120
MAX_TENSORS = 100_000


def main(path: Path) -> None:
    """Answer with the weights, or with what is wrong with the file."""
    num_bytes = path.stat().st_size
    _limit(SPARE_BYTES + COPIES * num_bytes)
    try:
        chunks = tensors_to_chunks(read(path, num_bytes))
    except CheckpointError as error:
        answer: dict[str, Any] = {"error": str(error)}
        chunks = []
    except MemoryError:
        answer = {"error": "reading it takes far more memory than the file has bytes; it is damaged, or made to do harm"}
        chunks = []
    else:
        answer = {}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def read(path: Path, num_bytes: int) -> dict[str, Tensor]:
    """Return the weights in a file by name. Raises CheckpointError, without the name of the file."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # pickle, zip and torch raise a dozen kinds
        raise CheckpointError(_explained(error)) from None
    weights = find(found)
    total = 0
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_quantized or not is_storable(tensor):
            raise CheckpointError(f"{name} is a tensor of {tensor.dtype}, {tensor.layout}; save plain numbers")
        total += tensor.numel() * tensor.element_size()
        if total > num_bytes:  # a tensor of 4 TiB can be said in 1.5 KB: one number, repeated
            raise CheckpointError(f"its tensors would take more than the {num_bytes:,} bytes that the file has; it is made to do harm")
    return {name: tensor.detach() for name, tensor in weights.items()}


def find(found: Any) -> dict[str, Tensor]:
    """Return the weights in what was loaded: a state dict, or one that lies in a training's checkpoint under a usual name."""
    for name in NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            return find(found[name])
    if not isinstance(found, dict):
        raise CheckpointError(f"it holds one {type(found).__name__}, not weights by name; save model.state_dict()")
    if not found or len(found) > MAX_TENSORS:
        raise CheckpointError(f"it holds {len(found):,} entries; save model.state_dict()")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            shown = ascii(name)[:60]
            raise CheckpointError(f"its entry {shown} is no tensor but {type(value).__name__}; save model.state_dict()")
    return found


def _explained(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "TorchScript" in text:
        return "it is TorchScript, which is code; save model.state_dict() instead"
    if named := re.search(r"(?:GLOBAL |global )([\w.]+)", text):
        return f"it holds pickled code ({named[1][:80]}), not weights alone, and is not loaded; save model.state_dict() instead"
    if "WeightsUnpickler" in text or ("weights_only" in text.lower() and "Unsupported" in text):
        return "it holds pickled objects, not weights alone, and is not loaded; save model.state_dict() instead"
    if "alloc" in text:
        return "reading it takes far more memory than the file has bytes; it is damaged, or made to do harm"
    return "it is no whole .pt file; get it again"


def _limit(num_bytes: int) -> None:
    """Let this process take so much memory beyond what it has, little time, and write no file."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, used + num_bytes))
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
