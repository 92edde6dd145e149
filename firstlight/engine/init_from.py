"""The start from weights that exist: a run's, or a .safetensors or .pt file from anywhere, put into a new network name by name.

Reading order: start_from, read_foreign, fit_names.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.config.schema import TrainConfig
from firstlight.engine.checkpoint import find_checkpoint, read_weights
from firstlight.engine.places import runs_dir_of
from firstlight.errors import CheckpointError
from firstlight.files import sha256_of_file, tensors_from_bytes
from firstlight.tracking.run import find_run

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
MAX_BYTES = 2**34
MAX_SECONDS = 300
PREFIXES = ("module.", "_orig_mod.", "model.", "network.")
"""What wrappers (DataParallel, torch.compile, Lightning) put before every name."""
MAX_NAMED = 3


def start_from(model: Any, train: TrainConfig) -> dict[str, Any] | None:
    """Put the weights that train.init_from names into a model, and return what was taken from where; None where nothing is named.

    Raises CheckpointError for a file that cannot be read, holds code, or does not fit; the model is as it was then.
    """
    if train.init_from is None:
        return None
    path = Path(train.init_from).expanduser()
    weights, source = (_of_run(path)) if _is_run(path) else (read_foreign(path), {"file": str(path), "sha256": sha256_of_file(path)})
    own: Mapping[str, Tensor] = model.state_dict()
    chosen = fit_names(weights, own, where=path, new_head=train.init_head == "new")
    model.load_state_dict({**own, **chosen})
    return {**source, "tensors": len(chosen), "new": [name for name in own if name not in chosen]}


def describe_start(start: Mapping[str, Any]) -> str:
    """Return one line about what `start_from` did."""
    new = f"; drawn anew: {', '.join(start['new'])}" if start["new"] else ""
    return f"weights: {start['tensors']} tensors from {start['file']}{new}"


def _is_run(path: Path) -> bool:
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"train.init_from: {path} ends in none of {', '.join(SUFFIXES)}; name a file of weights, or a run")
    return path.suffix.lower() not in SUFFIXES or path.is_dir()


def _of_run(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.exists() and not (runs_dir_of(None) / path).exists():
        raise CheckpointError(f"train.init_from: {path} is not there; name a run, or a file that ends in {' or '.join(SUFFIXES[:2])}")
    folder = find_checkpoint(find_run(path, runs_dir_of(None)).path / "checkpoints", "best")
    return read_weights(folder), {"file": str(folder)}


def read_foreign(path: Path) -> dict[str, Tensor]:
    """Return the weights in a .safetensors file, or in a .pt file that a process of its own reads, by name, on the CPU.

    Raises CheckpointError for a file that is missing, too large, damaged, holds anything but tensors, or numbers that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"train.init_from: {path} is not there, or is no file; name a .safetensors or .pt file")
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"train.init_from: {path} has more than {MAX_BYTES >> 30} GiB; take a smaller network")
    try:
        with path.open("rb") as handle:
            content = handle.read() if path.suffix.lower() == ".safetensors" else b""
    except OSError as error:
        raise CheckpointError(f"train.init_from: {path} cannot be read ({error.strerror}); name a file that you may read") from None
    weights = tensors_from_bytes(content or _unpickled(path), path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"train.init_from: {path}: {name} holds numbers that are not finite; take weights of a training that went well"
            )
    return weights


def _unpickled(path: Path) -> bytes:
    """Return the weights in a .pt file as safetensors."""
    command = [sys.executable, "-m", "firstlight.engine.weights_probe", str(path.resolve())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=MAX_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"train.init_from: {path}: reading it took more than {MAX_SECONDS} s; take another file") from None
    line, newline, rest = done.stdout.partition(b"\n")
    if done.returncode or not newline:
        raise CheckpointError(
            f"train.init_from: {path}: the process that read it broke down ({done.returncode}); it is damaged, get it again"
        )
    if "error" in (answer := json.loads(line)):
        raise CheckpointError(f"train.init_from: {path}: {answer['error']}")
    return rest


def fit_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], *, where: Path, new_head: bool) -> dict[str, Tensor]:
    """Return the weights under the names that a network has for them, all of the same shapes as its own.

    new_head: leave out the last linear layer and what stands behind it, also where the file calls it by another name.
    Raises CheckpointError with the first that differ.
    """
    weights = _without_prefix(weights, own)
    head = head_names(own) if new_head else set()
    left_out = head | (_one_layer(weights.keys() - own.keys()) if new_head else set())
    chosen = {name: tensor for name, tensor in weights.items() if name not in left_out}
    differences = [f"{name} is missing" for name in own if name not in chosen and name not in head]
    differences += [f"{name} is not in the network" for name in chosen if name not in own]
    for name in [name for name in own if name in chosen]:
        if chosen[name].shape != own[name].shape:
            differences.append(f"{name} is {list(chosen[name].shape)} there and {list(own[name].shape)} in the network")
        elif chosen[name].is_floating_point() != own[name].is_floating_point():
            differences.append(f"{name} is {_dtype(chosen[name])} there and {_dtype(own[name])} in the network")
    if differences:
        more = f" and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
        only_head = not new_head and all(line.split(" ")[0] in head_names(own) for line in differences)
        remedy = "set train.init_head=new to draw the last layer anew" if only_head else "take the network they were saved from"
        raise CheckpointError(
            f"train.init_from: the weights in {where} are for another network: {', '.join(differences[:MAX_NAMED])}{more}; {remedy}"
        )
    return chosen


def head_names(weights: Mapping[str, Tensor]) -> set[str]:
    """Return the names of a network's last linear layer: its last matrix, and what belongs to that or stands behind it."""
    names = list(weights)
    matrices = [place for place, name in enumerate(names) if weights[name].ndim == 2]
    if not matrices:
        return set()
    layer = names[matrices[-1]].rpartition(".")[0]
    return {name for place, name in enumerate(names) if place >= matrices[-1] or name.rpartition(".")[0] == layer}


def _one_layer(names: set[str]) -> set[str]:
    """Return the names if they are all of one layer, else none."""
    return names if len({name.rpartition(".")[0] for name in names}) == 1 else set()


def _without_prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take away what a wrapper put before all names, but where the network itself has such names."""
    found = dict(weights)
    while prefix := next((word for word in PREFIXES if all(name.startswith(word) for name in found)), None):
        if any(name.startswith(prefix) for name in own) or not found:
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
