"""The probe: it tries what the config leaves open, leaves the network as it was, and forgets what it found on a busy machine."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.config.schema import DeviceConfig, Kind
from firstlight.engine import probe
from firstlight.engine.device import Arithmetic
from firstlight.engine.probe import NEARLY, _choose, _race, _Time, fastest, settle
from firstlight.files import write_json

SHAPE = (3, 16, 16)


def network(name: str = "cnn5") -> torch.nn.Module:
    model: torch.nn.Module = fl.build_model(Kind(name, {"width": 4} if name == "cnn5" else {}), SHAPE, 10, seed=0)
    return model


def test_all_that_is_open_is_timed_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "HOPELESS", math.inf)  # on a busy machine one of them may look so
    found = fastest(network(), SHAPE, {"precision": "float32"}, 1)
    assert found.probe is not None and found.probe["num_images"] in (1, 4, 16, 64, 128)
    assert found.probe["milliseconds"].keys() == {"float32 contiguous, threads 1", "float32 channels_last, threads 1"}
    assert (found.precision, found.threads) == ("float32", 1)
    assert Arithmetic(**json.loads(json.dumps(found.__dict__))) == found


def test_what_is_fixed_is_not_tried() -> None:
    found = fastest(network(), SHAPE, {"precision": "float32", "memory_format": "contiguous", "threads": 3}, 8)
    assert (found.memory_format, found.threads) == ("contiguous", 3)


@pytest.mark.parametrize("name", ["cnn5", "mlp", "scratch_mlp"])
def test_the_network_is_left_as_it_was(name: str) -> None:
    """Weights, statistics of normalisation, memory order, gradients, mode and random numbers: the probe works on a copy."""
    model = network(name)
    model.eval()
    state = {key: (value.clone(), value.stride()) for key, value in model.state_dict().items()}
    before = torch.get_rng_state()
    fastest(model, SHAPE, {}, torch.get_num_threads())
    assert all(torch.equal(value, state[key][0]) and value.stride() == state[key][1] for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before) and not model.training


def test_the_race_drops_what_is_hopeless_and_ends_at_the_largest_batch() -> None:
    """Steps that say how long they took: the slow one is left behind on small batches, the fast one is timed on 128 images."""
    quick, slow = Arithmetic("cpu", memory_format="channels_last"), Arithmetic("cpu")
    tried: list[int] = []

    def step(num_images: int, threads: int) -> _Time:
        tried.append(num_images)
        return _Time(3e-6 * num_images, 3e-6 * num_images)

    num_images, times = _race({quick: lambda num, _: _Time(1e-6 * num, 1e-6 * num), slow: step}, float("inf"))
    assert (num_images, list(times)) == (128, [quick])
    assert set(tried) == {1}


def test_the_race_ends_before_a_round_that_time_does_not_bear() -> None:
    num_images, _ = _race({Arithmetic("cpu"): lambda num, _: _Time(1.0 * num, 1.0 * num)}, 0.0)
    assert num_images == 1


def test_channels_last_wins_where_both_are_nearly_as_fast() -> None:
    """The gain of channels_last grows with the batch, and the probe's are small."""
    plain, last = Arithmetic("cpu"), Arithmetic("cpu", memory_format="channels_last")
    assert _choose({plain: _Time(1, 1), last: _Time(1, NEARLY - 0.01)}) == last
    assert _choose({plain: _Time(1, 1), last: _Time(1, NEARLY + 0.01)}) == plain


@pytest.mark.parametrize("busy", [True, False])
def test_a_choice_made_on_a_busy_machine_is_timed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path))
    model = network()
    settle(DeviceConfig(name="cpu"), model, SHAPE, 10)
    (path,) = (tmp_path / "arithmetic").iterdir()
    kept = json.loads(path.read_text())
    write_json(path, {**kept, "threads": 7, "probe": {**kept["probe"], "busy": busy}})
    assert (settle(DeviceConfig(name="cpu"), model, SHAPE, 10).threads == 7) is not busy


def test_the_choice_is_printed_and_recorded(tmp_path: Path) -> None:
    words = ["train", "data=digits", "model=linear", "train.epochs=1", "device.threads=null", "--name", "run"]
    environment = os.environ | {"FIRSTLIGHT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-m", "firstlight", *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    probe = json.loads((tmp_path / "runs/run/run.json").read_text())["arithmetic"]["probe"]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("device: ")]
    assert f"by a step on {probe['num_images']} images" in line
