"""Which trials are trained side by side: by what can be fused, by what was timed, by what was asked."""

import subprocess
import sys
from pathlib import Path

import pytest

import firstlight as fl
from firstlight.config.schema import Config
from firstlight.engine import lanes
from firstlight.engine.lanes import Load, Times
from firstlight.studies import plan
from firstlight.studies.plan import make_plan
from firstlight.studies.study import Trial

FIXED = {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1}


def trials_of(*settings: tuple[str, ...], device: str = "cpu") -> list[tuple[Trial, Config]]:
    base = ("optim.name=sgd", "split.num_train=100", "train.batch_size=50")
    fixed = {**FIXED, "name": device}
    return [(Trial(number, {}, 0), fl.load_config("quickstart", *base, *words, device=fixed)) for number, words in enumerate(settings)]


MLP = ("model={name: mlp, hidden: [8]}",)
WIDE = ("model={name: mlp, hidden: [9]}",)
RESNET = ("model=resnet18", "input.image_size=32")


def test_trials_are_grouped_by_what_can_be_fused() -> None:
    """Widths share a program; another order of the data is a program of its own; what cannot be a lane, or has no company, is alone."""
    trials = trials_of(MLP, RESNET, WIDE, (*MLP, "seed=1"), (*WIDE, "seed=1"), (*MLP, "augment.flip=true"))
    found = make_plan(trials, Path(), way="on")
    assert [[trial.number for trial in group.trials] for group in found.groups] == [[0, 2], [3, 4]]
    assert sorted(trial.number for trial in found.alone) == [1, 5]
    assert len(found.remarks) == 1  # timed once: another order of the data takes as long
    assert found.remarks[0].startswith("2 x 2 trials side by side: ")


def test_nothing_is_grouped_where_lanes_are_off() -> None:
    found = make_plan(trials_of(MLP, WIDE), Path(), way="off")
    assert (found.groups, len(found.alone), found.remarks) == ((), 2, ())


def test_lanes_on_cuda_are_taken_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast they were timed."""
    monkeypatch.setattr(lanes, "is_present", lambda name: True)
    monkeypatch.setattr(plan, "time_both", lambda configs, data_dir, load: Times(2, 9.0, 1.0, 2, 1))
    trials = trials_of(MLP, WIDE, device="cuda")
    assert make_plan(trials, Path()).groups == ()
    assert [len(group.trials) for group in make_plan(trials, Path(), way="on").groups] == [2]


@pytest.mark.parametrize(("alone", "processes", "fused"), [(1.0, 1, False), (3.0, 1, True), (3.0, 2, False)])
def test_the_faster_way_is_taken_and_said(monkeypatch: pytest.MonkeyPatch, alone: float, processes: int, fused: bool) -> None:
    """By the timing, against as many processes as would share the work."""
    monkeypatch.setattr(plan, "time_both", lambda configs, data_dir, load: Times(2, alone, 2.0, 2, 1))
    found = make_plan(trials_of(MLP, WIDE), Path(), processes=processes)
    assert bool(found.groups) is fused
    assert ("side by side" if fused else "each alone") in found.remarks[0]
    assert "2e+03 ms a step" in found.remarks[0]


def test_programs_stay_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number that was fastest, and by their memory."""
    monkeypatch.setattr(plan, "time_both", lambda configs, data_dir, load: Times(2, 9.0, 1.0, 2, 1))
    assert [len(group.trials) for group in make_plan(trials_of(*[MLP] * 5), Path()).groups] == [2, 2, 1]
    monkeypatch.setattr(plan, "MAX_BYTES", 1)
    assert [len(group.trials) for group in make_plan(trials_of(*[MLP] * 3), Path()).groups] == [1, 1, 1]


def test_a_timing_takes_no_more_memory_than_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand large networks only as many are made for it as a program may hold, from the first to the last."""
    seen: list[int] = []

    def record(configs: list[Config], data_dir: Path, load: Load) -> Times:
        seen[:] = [config.model.options["hidden"][0] for config in configs]
        return Times(len(configs), 1.0, 2.0, len(configs), 1)

    monkeypatch.setattr(plan, "time_both", record)
    trials = trials_of(*[("model.name=mlp", f"model.hidden=[{2000 + width}]") for width in range(100)])
    monkeypatch.setattr(plan, "MAX_BYTES", 5 * plan.num_bytes(trials[-1][1]))
    make_plan(trials, Path())
    assert seen == [2000, 2020, 2040, 2060, 2080]


LIMITED = """
import resource, sys
from firstlight.studies import plan
from firstlight.studies.runner import open_study, run_study
from firstlight.tracking.console import Console
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
plan.time_both = lambda configs, data_dir, load: plan.Times(len(configs), 9.0, 1.0, len(configs), 1)
settings = ["model={name: mlp, hidden: [2]}", "optim.name=sgd", "train.epochs=1", "split.num_train=50", "device.threads=1"]
rows = run_study(*open_study("quickstart", settings, grid=["optim.lr=log:0.01:1:70"], runs_dir="runs"), Console(quiet=True))
print(len(rows), {row["state"] for row in rows}, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "raised"), [(230, 230), (4096, 3 * 70 + plan.OTHER_FILES)])
def test_lanes_hold_no_more_files_open_than_the_system_allows(tmp_path: Path, hard: int, raised: int) -> None:
    """70 lanes in a process that may open 230 files at first, as little as on macOS: the limit is raised, or there are more programs."""
    command = [sys.executable, "-c", LIMITED, "230", str(hard)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"70 {{'finished'}} {raised}\n", done.stderr
