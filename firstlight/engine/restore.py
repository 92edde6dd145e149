"""A run brought back to life: its config, its network, its best weights. No class file of the user's is needed."""

from pathlib import Path
from typing import Any

import torch

from firstlight.config.schema import Config
from firstlight.data.normalize import Normalize
from firstlight.engine.checkpoint import find_checkpoint, load_weights, read_weights
from firstlight.engine.device import Arithmetic, is_present
from firstlight.engine.places import runs_dir_of
from firstlight.engine.sources import load_config
from firstlight.errors import RunNotFoundError
from firstlight.models.build import build_model
from firstlight.tracking.run import Run, find_run


def load_model(run: str | Path | Run, *, which: str = "best", runs_dir: str | Path | None = None) -> Any:
    """Return the network of a run on the CPU, in eval mode, with the weights of its `best` or `last` checkpoint.

    It maps normalised float32 images [B, C, H, W] to logits [B, num_classes].
    """
    found = run if isinstance(run, Run) else find_run(run, runs_dir_of(runs_dir))
    data = data_record(found)
    config = config_of(found)
    model = build_model(config.model, tuple(data["image_shape"]), len(data["class_names"]), seed=0, whiten=config.input.whiten)
    path = find_checkpoint(found.path / "checkpoints", which)
    load_weights(model, read_weights(path), path)
    model.eval()
    return model


def config_of(run: Run) -> Config:
    """Return the resolved config of a run."""
    return load_config(run.path / "config.yaml")


def arithmetic_of(run: Run) -> Arithmetic:
    """Return the arithmetic that a run was settled on; where its device is not here, plain float32 on the CPU."""
    try:
        recorded = Arithmetic(**run.info["arithmetic"])
    except (KeyError, TypeError):
        raise RunNotFoundError(f"{run.path / 'run.json'} says nothing of its arithmetic; start a new run") from None
    return recorded if is_present(recorded.device) else Arithmetic("cpu", threads=torch.get_num_threads())


def normalize_of(run: Run) -> Normalize:
    """Return the normalisation that a run was trained with."""
    record = data_record(run)["normalize"]
    return Normalize(tuple(record["mean"]), tuple(record["std"]))


def data_record(run: Run) -> dict[str, Any]:
    """Return what run.json says of the data. Raises RunNotFoundError where the run was stopped before it knew."""
    record: dict[str, Any] = run.info.get("data", {})
    kinds = {"class_names": list, "image_shape": list, "normalize": dict}
    if not record:
        raise RunNotFoundError(f"{run.path} says nothing of its data, it was stopped before training began; train it anew")
    if not all(isinstance(record.get(key), kind) for key, kind in kinds.items()) or len(record["image_shape"]) != 3:
        raise RunNotFoundError(f"{run.path / 'run.json'} is damaged in what it says of the data; take it from a copy of the run")
    return record
