"""Checkpoints: step folders of safetensors with their checksums, written whole or not at all; `last` and `best` point to them.

checkpoints/step-N/model.safetensors, optim.safetensors, [ema.safetensors], state.json; checkpoints/last.json, best.json.
A save writes its folder, then `best`, then `last`, then drops what is no longer wanted: a kill in between leaves both
pointers on whole checkpoints. Reading order: save_checkpoint, find_checkpoint, newest_whole, restore_state.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.engine.state import Best, TrainState
from firstlight.errors import CheckpointError, CheckpointFormatError
from firstlight.files import (
    Appender,
    Chunk,
    WriteBatch,
    Writing,
    carry_out,
    move,
    remove,
    replacing,
    sha256,
    storage_errors,
    tensors_from_bytes,
    tensors_to_chunks,
    to_json,
)

FORMAT = 1
"""Version of the layout above."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole: its record, and its tensors by file and name."""

    path: Path
    record: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save_checkpoint(
    folder: Path, state: TrainState, *, keep: bool = False, scheduled: bool = True, facts: dict[str, Any] | None = None
) -> Path:
    """Save the state under `folder`, then point `best` and `last` where they belong; return the step folder.

    keep: never drop this one; scheduled: it would have been saved without an interruption, too; facts: plain data that are kept with it.
    Raises StorageError; then the checkpoint before is still there.
    """
    return carry_out(saving_checkpoint(folder, state, [], keep=keep, scheduled=scheduled, facts=facts))


def saving_checkpoint(
    folder: Path,
    state: TrainState,
    rows: Sequence[Appender],
    *,
    keep: bool = False,
    scheduled: bool = True,
    facts: dict[str, Any] | None = None,
) -> Writing[Path]:
    """Do what save_checkpoint does, beside others. rows: what has to be safe before the step folder appears."""
    path = folder / name_of(state)
    contents, plain = flatten_state(state)
    record = {
        "format": FORMAT,
        "keep": keep,
        "scheduled": scheduled,
        "sha256": {name: sha256(*chunks) for name, chunks in contents.items()},
        **plain,
        "facts": facts or {},
    }
    record["sha256_of_record"] = _sha256_of(record)
    with WriteBatch() as batch:
        for appender in rows:
            batch.append(appender)
        batch.make_dir(folder)
        batch.write_folder(path, {**contents, "state.json": [json.dumps(record).encode()]})
        del contents  # written, and as large as the network
        yield batch
    yield from _pointing(folder, state.best, path)
    return path


def flatten_state(state: TrainState) -> tuple[dict[str, list[Chunk]], dict[str, Any]]:
    """Return a state as the safetensors files of a checkpoint by name, in chunks, and the rest as plain data."""
    optim_tensors, optim_scalars = flatten_optimizer(state.optimizer)
    contents = {"model.safetensors": tensors_to_chunks(state.model.state_dict()), "optim.safetensors": tensors_to_chunks(optim_tensors)}
    if state.ema is not None:
        contents["ema.safetensors"] = tensors_to_chunks(state.ema.state_dict())
    return contents, {
        "position": {name: getattr(state, name) for name in POSITION},
        "running": list(state.running),
        "best": None if state.best is None else asdict(state.best),
        "schedule": asdict(state.schedule_state),
        "lr": [group["lr"] for group in state.optimizer.param_groups],
        "optimizer": optim_scalars,
    }


POSITION = ("epoch", "batch", "step", "stale_epochs", "lr_scale", "rollbacks")
"""The plain numbers of a state."""
STEP_FOLDER = re.compile(r"step-(\d+)(?:-batch-(\d+))?")
"""Name of a step folder; anything else beside them is not ours."""


def name_of(state: TrainState) -> str:
    """Return the name of the state's folder: another position in the training, another name."""
    return f"step-{state.step}" + (f"-batch-{state.batch}" if state.batch else "")


def _pointing(folder: Path, best: Best | None, path: Path) -> Writing[None]:
    """Let `best` point to the best epoch's checkpoint, if it does not yet, and then `last` to a step folder."""
    pointer, wanted = folder / "best.json", None if best is None else {"folder": f"step-{best.step}", "step": best.step}
    if wanted is None:
        if pointer.exists():
            remove(pointer)
    elif _read_json(pointer) != wanted:
        yield from replacing(pointer, to_json(wanted))
    yield from _pointing_to_last(folder, path)


def _pointing_to_last(folder: Path, path: Path) -> Writing[None]:
    return replacing(folder / "last.json", to_json({"folder": path.name, "step": _place(path)[0]}))


def find_checkpoint(folder: Path, which: str) -> Path:
    """Return the step folder that `last` or `best` points to. Raises CheckpointError where there is none."""
    pointer = folder / f"{which}.json"
    if not pointer.is_file():
        raise CheckpointError(
            f"{folder} has no {which} checkpoint, the run was stopped before that was saved; go on with `firstlight train --resume`"
        )
    found = _read_json(pointer)
    name = found.get("folder") if isinstance(found, dict) else None
    if not isinstance(name, str) or not STEP_FOLDER.fullmatch(name):
        raise CheckpointError(f'{pointer} is damaged; write into it the name of a folder beside it, {{"folder": "step-N"}}')
    if not (folder / name).is_dir():
        raise CheckpointError(f"{pointer} points to {name}, which is not there; put it back, or point to another step folder")
    return folder / name


def read_checkpoint(path: Path) -> Checkpoint:
    """Return all that a step folder holds. Raises CheckpointError that names the file which is damaged or of another version."""
    record = read_record(path)
    return Checkpoint(path, record, {name: _checked_tensors(path, name, record) for name in record["sha256"]})


def newest_whole(folder: Path, warn: Callable[[str], None], *, scheduled: bool = False) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, with a warning for each newer one that is not; None where nothing was saved yet.

    scheduled: pass over those that only an interruption made, so that a run that was stopped goes back to where it would have.
    A step folder appears whole or not at all, so the newest may be taken before `last` points to it.
    Raises the first CheckpointError where all are damaged, and CheckpointFormatError for a whole one that another version wrote.
    """
    errors: list[CheckpointError] = []
    for path in reversed(step_folders(folder)):
        try:
            if not scheduled or read_record(path)["scheduled"]:
                return read_checkpoint(path)
        except CheckpointFormatError:
            raise
        except CheckpointError as error:
            errors.append(error)
            warn(str(error))
    if errors:
        raise errors[0]
    if (folder / "last.json").exists():
        raise CheckpointError(f"{folder / 'last.json'} points to a checkpoint, but there is none; put the step folders back")
    return None


def restore_state(checkpoint: Checkpoint, state: TrainState, *, optimizer: bool = True) -> None:
    """Put a checkpoint into a state for the same network, its optimizer's memory too. Raises CheckpointError for another architecture."""
    record, tensors, where = checkpoint.record, checkpoint.tensors, checkpoint.path
    load_weights(state.model, tensors["model.safetensors"], where)
    if state.ema is not None:  # a run that is to keep an average from here on begins it at its weights
        load_weights(state.ema, tensors.get("ema.safetensors", tensors["model.safetensors"]), where)
    try:
        if optimizer:
            restore_optimizer(state.optimizer, tensors["optim.safetensors"], record["optimizer"])
        for name in POSITION:
            setattr(state, name, record["position"][name])
        loss, num_correct = record["running"]
        state.running = (loss, num_correct)
        state.best = None if record["best"] is None else Best(**record["best"])
        state.schedule_state = type(state.schedule_state)(**record["schedule"])
        for group, lr in zip(state.optimizer.param_groups, record["lr"], strict=True):
            group["lr"] = lr
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} does not fit this training ({type(error).__name__}: {error}); use another checkpoint") from error


def step_folders(folder: Path) -> list[Path]:
    """Return the step folders, in the order in which a training reaches them. Raises CheckpointError where one cannot look."""
    try:
        names = [entry.name for entry in os.scandir(folder) if STEP_FOLDER.fullmatch(entry.name)]
    except FileNotFoundError as error:
        if not folder.is_symlink():
            return []
        raise CheckpointError(f"{folder} leads nowhere; mount or put back what it points to") from error
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror}); mend that, the checkpoints may be whole") from error
    return sorted((folder / name for name in names), key=_place)


def drop_after(folder: Path, checkpoint: Checkpoint) -> None:
    """Delete the step folders past a checkpoint that training went back to: it saves there again. Raises StorageError."""
    for path in step_folders(folder):
        if _place(path) > _place(checkpoint.path):
            with storage_errors(path):
                remove(path)
    carry_out(_pointing_to_last(folder, checkpoint.path))


def go_on_from(folder: Path, checkpoint: Checkpoint, best: Best | None) -> None:
    """Make a checkpoint the last one: set aside the damaged ones past it, under another name, and let both pointers say so."""
    for path in step_folders(folder):
        if _place(path) > _place(checkpoint.path):
            others = sum(1 for _ in folder.glob(f"damaged-{path.name}*"))
            move(path, path.with_name(f"damaged-{path.name}" + (f"-{others + 1}" if others else "")))
    carry_out(_pointing(folder, best, checkpoint.path))


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint ({type(error).__name__}: {error}); use another one") from None
    if record.pop("sha256_of_record", None) != _sha256_of(record):
        raise CheckpointError(f"{path / 'state.json'} is damaged: its sha256 is not the one that it records; use another checkpoint")
    if version != FORMAT:
        raise CheckpointFormatError(
            f"{path} has checkpoint format {version}, this firstlight reads {FORMAT}; use the version that wrote it"
        )
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
        raise CheckpointError(
            f"the weights in {where} are for another architecture: {', '.join(differences)}; use the network they were saved from"
        )
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
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror or error}); use another checkpoint") from error
    if sha256(content) != record["sha256"].get(name):
        raise CheckpointError(f"{file} is damaged: its sha256 is not the one recorded in state.json; use another checkpoint")
    return tensors_from_bytes(content, file)


def _sha256_of(record: dict[str, Any]) -> str:
    return sha256(json.dumps(record, sort_keys=True).encode())


def prune(folder: Path, keep_last: int) -> None:
    """Drop all but the newest, those that are kept for good, and the best epoch of each; one that cannot be read is left alone."""
    records = {path: record for path in step_folders(folder) if (record := _record_or_none(path))}
    scheduled = [path for path, record in records.items() if record["scheduled"]]
    newest = {*list(records)[-1:], *scheduled[-keep_last:]}
    kept = {path: record for path, record in records.items() if record["keep"] or path in newest}
    wanted = {path.name for path in kept} | {f"step-{record['best']['step']}" for record in kept.values() if record["best"]}
    for path in records:
        if path.name not in wanted:
            with storage_errors(path):
                remove(path)


def _record_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return read_record(path)
    except CheckpointError:
        return None


def _place(path: Path) -> tuple[int, bool, int]:
    """Return the place of a step folder in the training: by step, and at one step the end of the epoch after its last batch."""
    found = STEP_FOLDER.fullmatch(path.name)
    assert found is not None, path
    step, batch = int(found[1]), int(found[2] or 0)
    return step, not batch, batch


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
