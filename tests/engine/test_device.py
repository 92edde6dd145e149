"""The arithmetic: settled by timing, kept in a cache that nothing depends on, used by training and by everything after it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.config.schema import DeviceConfig, Kind
from firstlight.engine.device import Arithmetic, flushes_denormals
from firstlight.engine.doctor import time_step
from firstlight.engine.probe import settle
from firstlight.files import write_json

Train = Callable[..., fl.Run]
CPU = DeviceConfig(name="cpu")


def settled() -> Arithmetic:
    return settle(CPU, fl.build_model(Kind("linear"), (1, 8, 8), 10, seed=0), (1, 8, 8), 10)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_cache_that_cannot_be_had_only_costs_time(cache: Path) -> None:
    """Fault 9: the cache is a convenience; a file in its place, as a folder without permission, refuses no training."""
    cache.write_text("in the way")
    assert settled().device == "cpu"
    assert cache.read_text() == "in the way"


@pytest.mark.parametrize("text", ["", "[1]", '{"device": "cpu", "colour": "red"}'])
def test_a_damaged_entry_of_the_cache_is_timed_anew(cache: Path, text: str) -> None:
    found = settled()
    (path,) = (cache / "arithmetic").iterdir()
    path.write_text(text)
    assert settled().memory_format == found.memory_format
    assert json.loads(path.read_text())["device"] == "cpu"


def test_a_torch_without_onednn_is_not_asked_for_its_bfloat16(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of torch without oneDNN (some ARM and source builds) lack the operator, and calling it raises."""

    def lacking() -> bool:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_is_mkldnn_bf16_supported'")

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lacking)
    assert settled().precision == "float32"


def test_threads_are_set_for_a_block_and_come_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), Arithmetic("cpu", threads=before + 1).on_threads():
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_numbers_below_the_smallest_normal_one_are_zero_for_a_block() -> None:
    tiny = torch.full((8,), torch.finfo(torch.float32).tiny)
    assert (tiny / 2).all()
    with pytest.raises(KeyError), Arithmetic("cpu").on_threads():
        assert not (tiny / 2).any()
        with Arithmetic("cpu").on_threads():
            assert flushes_denormals()
        assert flushes_denormals()
        raise KeyError
    assert (tiny / 2).all()


@pytest.fixture
def threads_seen() -> Iterator[set[int]]:
    """The numbers of threads on which networks ran."""
    seen: set[int] = set()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: seen.add(torch.get_num_threads()))
    yield seen
    handle.remove()


@pytest.mark.parametrize("use", ["evaluate", "predict"])
def test_a_finished_run_is_used_on_its_own_threads(train: Train, tmp_path: Path, threads_seen: set[int], use: str) -> None:
    """Figures come from the arithmetic that the run was settled on, sheet of predictions included."""
    run = train("device.threads=3", "train.epochs=1")
    threads_seen.clear()
    if use == "evaluate":
        fl.evaluate(run.path)
    else:
        fl.predict(run.path, [run.path / "curves.png"])
    assert threads_seen == {3}
    assert torch.get_num_threads() != 3


def test_the_doctor_times_its_step_on_the_threads_that_it_settled_on(cache: Path, threads_seen: set[int]) -> None:
    time_step()
    (path,) = (cache / "arithmetic").iterdir()
    write_json(path, {**json.loads(path.read_text()), "threads": 3, "probe": None})
    threads_seen.clear()
    time_step()
    assert threads_seen == {3}
