"""The parts of a step are those of the engine's own loop, which is not changed by being timed."""

from pathlib import Path

import torch

from firstlight.engine import step as engine_step
from firstlight.engine.sources import load_config
from firstlight.engine.train import Prepared, prepare
from firstlight.profiling.parts import PARTS, Clock, Timing, measure_parts, training_on


def prepared(tiny: Path, *overrides: str) -> Prepared:
    return prepare(load_config(tiny, *overrides), Path())


def test_each_step_is_marked_in_order(tiny: Path, tmp_path: Path) -> None:
    """D17: data wait stands apart from forward, backward and optimizer, at every step."""
    with training_on(prepared(tiny), 20, tmp_path / "run") as training:
        clock = Clock("cpu")
        training.round(3, clock)
    assert [part for part, _ in clock._marks] == ["rest", "data wait", "forward", "backward", "optimizer"] * 3
    moments = [moment for _, moment in clock._marks]
    assert moments == sorted(moments)


def test_accumulated_batches_step_once(tiny: Path, tmp_path: Path) -> None:
    with training_on(prepared(tiny, "train.accumulate=2"), 20, tmp_path / "run") as training:
        clock = Clock("cpu")
        training.round(4, clock)
        timing = measure_parts(training, 20)
    assert [part for part, _ in clock._marks].count("backward") == 4
    assert [part for part, _ in clock._marks].count("optimizer") == 2
    assert timing.num_steps % 2 == 0


def test_nothing_is_changed_by_being_timed(tiny: Path, tmp_path: Path) -> None:
    """The engine's functions are back in their place, and marked steps train to the same bits as plain ones."""
    before, weights = (engine_step._run_backward, engine_step.apply_gradients), []
    for place, clock in enumerate((None, Clock("cpu"))):
        made = prepared(tiny)
        with training_on(made, 20, tmp_path / f"run{place}") as training:
            made.state.lr_scale = 1.0
            training.round(5, clock)
        weights.append([parameter.detach().clone() for parameter in made.state.model.parameters()])
    assert (engine_step._run_backward, engine_step.apply_gradients) == before
    assert all(torch.equal(plain, timed) for plain, timed in zip(*weights, strict=True))


def test_weights_stay_while_a_training_is_profiled(tiny: Path, tmp_path: Path) -> None:
    made = prepared(tiny)
    weights = [parameter.detach().clone() for parameter in made.state.model.parameters()]
    with training_on(made, 20, tmp_path / "run") as training:
        training.round(30)
    assert all(torch.allclose(old, new, rtol=0, atol=1e-6) for old, new in zip(weights, made.state.model.parameters(), strict=True))


def test_batches_go_on_over_the_end_of_an_epoch(tiny: Path, tmp_path: Path) -> None:
    """All are whole, and those of the training's own epochs in their order."""
    made = prepared(tiny)
    made.setup.train_loader.batch_size = 64
    expected = [batch.indices for epoch in range(2) for batch in made.setup.train_loader.batches(epoch) if len(batch.labels) == 64]
    with training_on(made, 64, tmp_path / "run") as training:
        found = [training.next_batch().indices for _ in range(6)]
    assert len(expected) == 6
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_sum_is_compared_pair_by_pair() -> None:
    parts = dict.fromkeys(PARTS, 0.2)
    timing = Timing(1, 1, (1.0, 2.0, 10.0), (parts, dict.fromkeys(PARTS, 0.4), dict.fromkeys(PARTS, 1.0)))
    assert (timing.seconds, timing.sum_over_whole) == (2.0, 1.0)
    assert timing.parts == dict.fromkeys(PARTS, 0.4)
