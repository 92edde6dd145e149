"""Configs in the style of a course's vision repository (`MODEL: {NAME: lenet}`), read as ours.

The upper-case keys are those of the yacs configs that such repositories share (they go back to Swin Transformer's).
"""

from collections.abc import Mapping
from typing import Any

from firstlight.config.kinds import Problem
from firstlight.config.yaml import brief, show_key
from firstlight.errors import did_you_mean

KEYS: dict[str, str] = {
    "DATA.DATASET": "data.name",
    "DATA.DATA_PATH": "data.path",
    "DATA.MEDIUM_IMAGENET_PATH": "data.path",
    "DATA.BATCH_SIZE": "train.batch_size",
    "DATA.IMG_SIZE": "input.image_size",
    "MODEL.NAME": "model.name",
    "MODEL.NUM_CLASSES": "input.num_classes",
    "MODEL.DROP_RATE": "model.dropout",
    "MODEL.LABEL_SMOOTHING": "train.label_smoothing",
    "AUG.LABEL_SMOOTHING": "train.label_smoothing",
    "AUG.COLOR_JITTER": "augment.color_jitter",
    "AUG.FLIP": "augment.flip",
    "AUG.CROP": "augment.crop",
    "AUG.CUTOUT": "augment.cutout",
    "AUG.ROTATION": "augment.rotation",
    "TRAIN.EPOCHS": "train.epochs",
    "TRAIN.LR": "optim.lr",
    "TRAIN.BASE_LR": "optim.lr",
    "TRAIN.WEIGHT_DECAY": "optim.weight_decay",
    "TRAIN.WARMUP_EPOCHS": "schedule.warmup_epochs",
    "TRAIN.CLIP_GRAD": "train.clip_norm",
    "TRAIN.ACCUMULATION_STEPS": "train.accumulate",
    "TRAIN.OPTIMIZER.NAME": "optim.name",
    "TRAIN.OPTIMIZER.MOMENTUM": "optim.momentum",
    "TRAIN.OPTIMIZER.WEIGHT_DECAY": "optim.weight_decay",
    "TRAIN.LR_SCHEDULER.NAME": "schedule.name",
    "TRAIN.LR_SCHEDULER.DECAY_EPOCHS": "schedule.every_epochs",
    "TRAIN.LR_SCHEDULER.DECAY_RATE": "schedule.gamma",
    "OUTPUT": "name",
    "SAVE_FREQ": "checkpoint.every",
    "PRINT_FREQ": "train.log_every",
    "SEED": "seed",
}
"""Their key: ours."""

IDLE = {
    "DATA.NUM_WORKERS": "data live in memory and need no workers",
    "DATA.PIN_MEMORY": "data live on the device",
    "DATA.INTERPOLATION": "images are resized bilinearly with antialiasing",
    "MODEL.RESUME": "resume with `firstlight train --resume RUN`",
    "TRAIN.AUTO_RESUME": "resume with `firstlight train --resume RUN`",
    "TRAIN.START_EPOCH": "a resumed run knows its epoch",
    "TRAIN.MIN_LR": "use schedule.final, a share of the lr",
    "TRAIN.WARMUP_LR": "warm-up starts near zero",
    "TRAIN.OPTIMIZER.EPS": "the optimizer's default is used",
    "TRAIN.OPTIMIZER.BETAS": "use optim.beta1 and optim.beta2",
    "TAG": "use --name",
    "EVAL_MODE": "use `firstlight evaluate RUN`",
    "THROUGHPUT_MODE": "throughput is not measured by a setting",
}
"""Keys of theirs without a counterpart, and why: they are named in a note and nothing reads them."""

NULL_IF_ZERO = {"TRAIN.CLIP_GRAD"}


def is_course_style(tree: Mapping[str, Any]) -> bool:
    """Tell whether any top-level key but BASE is written in upper case."""
    return any(key.isupper() and key != "BASE" for key in tree)


def translate(
    tree: Mapping[str, Any], lines: dict[tuple[str, ...], int]
) -> tuple[dict[str, Any], dict[tuple[str, ...], int], list[Problem], list[str]]:
    """Return our tree and its lines for a course-style tree, what is wrong with it, and notes on the keys left idle."""
    ours: dict[str, Any] = {}
    our_lines: dict[tuple[str, ...], int] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for path, value in _leaves(tree):
        key = ".".join(path)
        if key in KEYS:
            target = tuple(KEYS[key].split("."))
            problems += _place(ours, target, _tidy(key, value), path)
            our_lines[target] = _line_of(path, lines)
        elif key in IDLE:
            notes.append(f"{key} is not used: {IDLE[key]}")
        elif value is not None or not _is_section(key):  # a section with nothing below it says nothing
            our_lines[path] = _line_of(path, lines)
            known = f"{key} is a section; write its keys below it" if _is_section(key) else ""
            problems.append(Problem(path, known or f"unknown key {show_key(path)}{did_you_mean(key, (*KEYS, *IDLE))}"))
    return ours, our_lines, problems, notes


def _is_section(key: str) -> bool:
    return any(other.startswith(f"{key}.") for other in KEYS)


def _line_of(path: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> int:
    """Return the line of a key, or of the key above it that an alias gave its parts."""
    return next(lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for key, value in tree.items():
        here = (*path, key)
        leaves += _leaves(value, here) if isinstance(value, Mapping) else [(here, value)]
    return leaves


def _place(tree: dict[str, Any], target: tuple[str, ...], value: Any, path: tuple[str, ...]) -> list[Problem]:
    *parents, last = target
    for part in parents:
        tree = tree.setdefault(part, {})
    if last in tree and tree[last] != value:
        first, second = brief(repr(tree[last])), brief(repr(value))
        return [Problem(path, f"{'.'.join(target)} is given twice, as {first} and (by {'.'.join(path)}) as {second}; keep one")]
    tree[last] = value
    return []


def _tidy(key: str, value: Any) -> Any:
    if key == "OUTPUT" and isinstance(value, str):
        return value.rstrip("/").rsplit("/", 1)[-1]
    if key in NULL_IF_ZERO and not value:
        return None
    return value.lower() if isinstance(value, str) and key.endswith(("NAME", "DATASET")) else value
