"""Every schedule against torch.optim.lr_scheduler, and the warm-up that is really applied."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from firstlight.config.schema import Kind
from firstlight.errors import ConfigError
from firstlight.optim.build import SCHEDULES, build_schedule
from firstlight.optim.schedules import Constant, ScheduleState

EPOCHS, PER_EPOCH = 6, 10
TOTAL = EPOCHS * PER_EPOCH


def _ours(name: str, **options: Any) -> list[float]:
    schedule = build_schedule(Kind(name, options))
    return [schedule.factor(step, total_steps=TOTAL, steps_per_epoch=PER_EPOCH) for step in range(TOTAL)]


def _theirs(make: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, used = make(optimizer), []
    for _ in range(TOTAL):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize(
    ("name", "options", "make"),
    [
        ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1)),
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
        ("cosine", {"final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.1)),
        ("linear", {"final": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL)),
        ("step", {"every_epochs": 2, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 2 * PER_EPOCH, 0.5)),
        ("step", {"milestones": (1, 4)}, lambda o: lr_scheduler.MultiStepLR(o, [PER_EPOCH, 4 * PER_EPOCH])),
        ("one_cycle", {}, lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL)),
        (
            "one_cycle",
            {"peak": 0.25, "initial": 0.1, "final": 1e-3, "shape": "linear"},
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, pct_start=0.25, div_factor=10, final_div_factor=100, anneal_strategy="linear"),
        ),
    ],
)
def test_schedules_are_those_of_torch(name: str, options: dict[str, Any], make: Any) -> None:
    """B6 D19."""
    assert _ours(name, **options) == pytest.approx(_theirs(make), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=30), st.integers(1, 3), st.sampled_from([0.0, 0.01, 0.3]))
def test_plateau_is_that_of_torch(losses: list[float], patience: int, threshold: float) -> None:
    """B6: the dynamic schedule, on any sequence of validation losses."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=threshold, min_lr=0.1, eps=0)
    ours = build_schedule(Kind("plateau", {"gamma": 0.5, "patience": patience, "threshold": threshold, "least": 0.1}))
    state = ours.start()
    for loss in losses:
        theirs.step(loss)
        state = ours.update(state, loss)
        assert ours.factor(3, total_steps=9, steps_per_epoch=3, state=state) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_plateau_takes_a_loss_that_is_no_number_as_no_better() -> None:
    schedule = build_schedule(Kind("plateau", {"patience": 1}))
    state = schedule.start()
    for loss in (math.nan, math.inf):
        state = schedule.update(state, loss)
    assert state == ScheduleState(scale=0.1, best=None, num_bad=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_really_applied(name: str) -> None:
    """D19: step i of n has (i + 1) / n of what the schedule says at its start, and the schedule follows."""
    plain, warm = _ours(name), _ours(name, warmup_epochs=1.5)
    rise = [(step + 1) / 15 for step in range(15)]
    if name == "one_cycle":  # which has moved on meanwhile
        assert warm == pytest.approx([a * b for a, b in zip(plain, rise + [1] * 45, strict=True)])
    else:
        assert warm[:15] == pytest.approx(rise)
        assert warm[15] == pytest.approx(plain[0])
        assert warm[16] <= 1


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_fall_takes_the_steps_behind_the_warm_up(name: str) -> None:
    schedule = build_schedule(Kind(name, {"warmup_epochs": 2}))
    shorter = build_schedule(Kind(name))
    for step in range(20, TOTAL):
        expected = shorter.factor(step - 20, total_steps=40, steps_per_epoch=PER_EPOCH)
        assert schedule.factor(step, total_steps=TOTAL, steps_per_epoch=PER_EPOCH) == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup_epochs", [0.0, 1.0, 9.0])
def test_trainings_of_a_few_steps_have_factors_between_0_and_1(name: str, total: int, warmup_epochs: float) -> None:
    schedule = build_schedule(Kind(name, {"warmup_epochs": warmup_epochs}))
    factors = [schedule.factor(step, total_steps=total, steps_per_epoch=1) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_the_one_interface_and_a_state_of_plain_numbers(name: str) -> None:
    schedule = build_schedule(Kind(name))
    assert isinstance(schedule, Constant)
    state = schedule.update(schedule.start(), 0.5)
    assert type(state)(**json.loads(json.dumps(asdict(state)))) == state
    assert (state != schedule.start()) == (name == "plateau")


def test_unknown_schedule_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"schedule: unknown name 'cosin'; did you mean 'cosine'\?"):
        build_schedule(Kind("cosin"))
