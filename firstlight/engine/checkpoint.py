"""Checkpoints: step folders of safetensors with their checksums, written whole or not at all; `last` and `best` point to them.

checkpoints/step-N/model.safetensors, optim.safetensors, [ema.safetensors], state.json; checkpoints/last.json, best.json.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.engine.state import Best, TrainState
from firstlight.errors import CheckpointError
from firstlight.files import make_dir, read_tensors, remove, sha256, sha256_of_file, tensors_to_bytes, write_folder, write_json

FORMAT = 1


def save_checkpoint(folder: Path, state: TrainState, *, best: bool, keep: bool) -> Path:
    """Save the state under `folder`, point `last` (and `best`) to it, then drop checkpoints that nothing points to.

    keep: never drop this one.
    """
    make_dir(folder)
    path = folder / f"step-{state.step}"
    optim_tensors, optim_scalars = flatten_optimizer(state.optimizer)
    contents = {"model.safetensors": tensors_to_bytes(state.model.state_dict()), "optim.safetensors": tensors_to_bytes(optim_tensors)}
    if state.ema is not None:
        contents["ema.safetensors"] = tensors_to_bytes(state.ema.state_dict())
    record = {
        "format": FORMAT,
        "keep": keep,
        "sha256": {name: sha256(content) for name, content in contents.items()},
        "position": {"epoch": state.epoch, "batch": state.batch, "step": state.step, "stale_epochs": state.stale_epochs},
        "running": state.running.tolist(),
        "best": None if state.best is None else asdict(state.best),
        "schedule": asdict(state.schedule_state),
        "optimizer": optim_scalars,
    }
    write_folder(path, {**contents, "state.json": json.dumps(record, indent=1).encode()})
    write_json(folder / "last.json", {"step": state.step})
    if best:
        write_json(folder / "best.json", {"step": state.step})
    _prune(folder)
    return path


def find_checkpoint(folder: Path, which: str) -> Path:
    """Return the step folder that `last` or `best` points to. Raises CheckpointError where there is none."""
    pointer = folder / f"{which}.json"
    try:
        path = folder / f"step-{json.loads(pointer.read_text(encoding='utf-8'))['step']}"
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder} has no {which} checkpoint; the run was stopped before its first save") from None
    if not path.is_dir():
        raise CheckpointError(f"{pointer} points to {path.name}, which is not there")
    return path


def restore_state(path: Path, state: TrainState) -> None:
    """Load a checkpoint into a freshly built state. Raises CheckpointError for damage or another architecture."""
    record = read_record(path)
    load_weights(state.model, _checked_tensors(path, "model.safetensors", record), path)
    if state.ema is not None:
        load_weights(state.ema, _checked_tensors(path, "ema.safetensors", record), path)
    restore_optimizer(state.optimizer, _checked_tensors(path, "optim.safetensors", record), record["optimizer"])
    for name, value in record["position"].items():
        setattr(state, name, value)
    state.running = torch.tensor(record["running"], dtype=torch.float32, device=state.running.device)
    state.best = None if record["best"] is None else Best(**record["best"])
    state.schedule_state = type(state.schedule_state)(**record["schedule"])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights that evaluation uses: the moving average where one was kept."""
    record = read_record(path)
    name = "ema.safetensors" if "ema.safetensors" in record["sha256"] else "model.safetensors"
    return _checked_tensors(path, name, record)


def read_record(path: Path) -> dict[str, Any]:
    """Return state.json of a step folder. Raises CheckpointError where it is damaged or of another version."""
    try:
        record: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint ({type(error).__name__}: {error})") from None
    if version != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {version}; this firstlight reads {FORMAT}")
    return record


def load_weights(model: Any, weights: dict[str, Tensor], where: Path) -> None:
    """Copy weights into a model. Raises CheckpointError that names every layer that differs."""
    own = model.state_dict()
    missing = [f"{name} is missing" for name in own.keys() - weights.keys()]
    extra = [f"{name} is not in the model" for name in weights.keys() - own.keys()]
    other = [
        f"{name} is {list(weights[name].shape)} there and {list(own[name].shape)} in the model"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if differences := sorted(missing + extra + other):
        raise CheckpointError(f"the weights in {where} are for another architecture: {'; '.join(differences)}")
    model.load_state_dict(weights)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors by name ("3.momentum_buffer") and the rest as plain data."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            elif value is not None:
                scalars[f"{index}.{key}"] = value
    return tensors, scalars


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Put what flatten_optimizer returned back into an optimizer for the same parameters."""
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **scalars}.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def _checked_tensors(path: Path, name: str, record: dict[str, Any]) -> dict[str, Tensor]:
    file = path / name
    if not file.is_file():
        raise CheckpointError(f"{file} is not there; use another checkpoint")
    if sha256_of_file(file) != record["sha256"].get(name):
        raise CheckpointError(f"{file} is damaged: its sha256 is not the one recorded in state.json; use another checkpoint")
    return read_tensors(file)


def _prune(folder: Path) -> None:
    wanted = {find_checkpoint(folder, which).name for which in ("last", "best") if (folder / f"{which}.json").is_file()}
    for path in folder.glob("step-*"):
        if path.name not in wanted and not read_record(path)["keep"]:
            remove(path)
