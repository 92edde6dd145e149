"""What must hold before a run goes on: the same settings, the same data, the same arithmetic. Each difference is named.

Settings are of three sorts. HARMLESS ones may change; FIXED ones make the run what it is and never do; the rest needs `override`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from firstlight.engine.device import Arithmetic
from firstlight.errors import ConfigError, DataError
from firstlight.tracking.environment import cpu_model

HARMLESS = (
    "name",
    "checkpoint",
    "device",
    "tracking",
    "data.path",
    "train.log_every",
    "train.patience",
    "train.on_divergence",
    "train.test_at_end",
)
"""Settings, or whole sections, that change nothing of the steps to come (`data.path`: the images themselves are compared)."""
FIXED = (
    *("data", "split", "input", "model", "seed", "init_seed", "order_seed"),
    *("train.batch_size", "train.accumulate", "train.drop_last", "train.monitor", "train.freeze_norm_scale", "evaluation"),
    *("train.init_from", "train.init_head"),
)
"""Settings without which a position in the data, a weight, or the figure of the best epoch would mean something else."""
KEEPS_MEMORY = ("optim.lr", "optim.weight_decay")
"""Settings of an optimizer that leave what it remembers valid."""


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Return the settings that differ between two configs as plain data: `{"optim.lr": "0.1 -> 0.2"}`."""
    changes: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after, name = old.get(key), new.get(key), prefix + key
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= changed_settings(before, after, prefix=f"{name}.")
        elif before != after:
            changes[name] = f"{before} -> {after}"
    return changes


def check_config(old: Mapping[str, Any], new: Mapping[str, Any], *, override: bool) -> dict[str, str]:
    """Return the settings that changed since a run was saved. Raises ConfigError for those that would lead it elsewhere."""
    changes = changed_settings(old, new)
    fixed = {key: change for key, change in changes.items() if _is_in(key, FIXED) and not _is_in(key, HARMLESS)}
    if fixed:
        listed = ", ".join(f"{key} {change}" for key, change in fixed.items())
        raise ConfigError(f"these settings cannot change within a run: {listed}; put them back, or start a new run with them")
    refused = {} if override else {key: change for key, change in changes.items() if not _is_harmless(key, old, new)}
    if refused:
        listed = ", ".join(f"{key} {change}" for key, change in refused.items())
        raise ConfigError(f"the run was trained with other settings: {listed}; put them back, or add --override to go on with the new ones")
    return changes


def check_data(old: Mapping[str, Any], new: Mapping[str, Any], *, override: bool) -> list[str]:
    """Return what changed in the data since a run began; raises DataError for that without `override`. Where they lie may change."""
    common = sorted(old.keys() & new.keys() - {"source"})
    changes = changed_settings({key: old[key] for key in common}, {key: new[key] for key in common})
    listed = [f"{key} {change}" if len(change) < 60 else key for key, change in changes.items()]
    if listed and not override:
        raise DataError(f"the data changed since the run began: {', '.join(listed)}; put the old data back, or add --override to go on")
    return listed


def check_ranks(info: Mapping[str, Any], num_ranks: int, *, override: bool) -> str | None:
    """Return what changed in the number of processes since a run began; None where nothing did. Raises ConfigError without `override`."""
    before = info.get("ranks", 1)
    if before == num_ranks:
        return None
    if not override:
        raise ConfigError(
            f"the run was trained by {_processes(before)}, and this is {num_ranks}; start {before} (torchrun --nproc-per-node), "
            f"or add --override to go on with {num_ranks}, whose sums are rounded otherwise"
        )
    return f"the resumed run will not be bit-exact because of another number of processes: {before} -> {num_ranks}"


def _processes(num: int) -> str:
    return "one process" if num == 1 else f"{num} processes"


def keeps_memory(changes: Mapping[str, str]) -> bool:
    """Tell whether an optimizer's state can be restored after these changes."""
    return all(key in KEEPS_MEMORY for key in changes if key.startswith("optim."))


def machine(arithmetic: Arithmetic) -> dict[str, Any]:
    """Return what decides the last bits of a sum: a run goes on to the same bits only where all of it is the same."""
    return {
        "device": arithmetic.device,
        "precision": arithmetic.precision,
        "memory format": arithmetic.memory_format,
        "threads": arithmetic.threads,
        "torch": torch.__version__,
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "cpu": cpu_model(),
    }


def inexact(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return why a resumed run will not have the same bits; None where nothing speaks against it."""
    changes = changed_settings(old, {key: new.get(key) for key in old})
    listed = ", ".join(f"{key} {change}" for key, change in changes.items())
    return f"the resumed run will not be bit-exact because of another machine: {listed}" if changes else None


def _is_harmless(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if key == "train.epochs":
        return bool(new["train"]["epochs"] > old["train"]["epochs"])
    if key.startswith("checkpoint.") and "rollback" in (old["train"]["on_divergence"], new["train"]["on_divergence"]):
        return False  # when to save says where to go back to
    return _is_in(key, HARMLESS)


def _is_in(key: str, settings: tuple[str, ...]) -> bool:
    return key in settings or key.partition(".")[0] in settings
