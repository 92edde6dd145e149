"""What only a CUDA device can show; the same tests run on the CPU, so that they are known to work before a GPU is at hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.data.augment import Augment
from firstlight.data.build import load_training_data
from firstlight.data.loader import Loader
from firstlight.engine.graph import WARM_UP, LaneGraph, StepGraph
from firstlight.engine.lanes import group_key, make_lanes, time_both, train_lanes
from firstlight.engine.record import Recorder
from firstlight.engine.seeding import private_randomness, seed_batch
from firstlight.engine.step import train_step
from firstlight.engine.train import prepare, run_training
from firstlight.engine.vectorized import Lanes
from firstlight.tracking.console import Console
from firstlight.tracking.run import Run
from firstlight.tracking.writer import RunWriter

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
EVERYTHING = (
    "augment={flip: true, crop: 1, rotation: 10, color_jitter: 0.2, cutout: 3}",
    "train.clip_norm=1",
    "train.ema_decay=0.9",
    "train.label_smoothing=0.1",
    "train.accumulate=2",
    "train.early_size=6",
)


@contextmanager
def no_synchronisation(device: str) -> Iterator[None]:
    """Make every wait for a CUDA device an error for the block."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("settings", [(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("device", DEVICES)
def test_steps_do_not_wait_for_the_device(tmp_path: Path, device: str, settings: tuple[str, ...], optimizer: str) -> None:
    """Loader, step and bookkeeping of an epoch behind its first two steps, which make the optimizer's memory, under sync-debug "error"."""
    config = fl.load_config("quickstart", f"optim={optimizer}", f"device.name={device}", "train.batch_size=32", *settings)
    prepared = prepare(config, Path())
    state, setup = prepared.state, prepared.setup
    state.model.train()
    batches = setup.train_loader.batches(0, reuse_buffers=True)
    with RunWriter(tmp_path / "run") as writer, private_randomness(device):
        recorder = Recorder(writer, Console(quiet=True), facts={}, config={}, resume_line="")

        def steps(num: int) -> None:
            for _ in range(num):
                batch = next(batches)
                seed_batch(0, 0, state.batch, device=device)
                state.batch += 1
                lr = setup.lr(state) if state.batch % setup.train.accumulate == 0 else None
                num_images = batch.labels.size(0)
                result = train_step(state, batch, setup, share=setup.share(state.batch - 1, num_images), lr=lr)
                recorder.note_batch(result, num_images)
                if lr is not None:
                    recorder.close_step(state, lr, result.grad_norms)

        steps(4)
        before = state.step
        with no_synchronisation(device):
            steps(8)
        recorder.fetch(state, setup)
        assert state.step == before + 8 // setup.train.accumulate
        assert state.running[0] > 0


@pytest.mark.parametrize("augment", [Augment(), Augment(flip=True, crop=2), Augment(flip="alternating", crop=1, cutout=3)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_those_of_the_cpu(device: str, channels_last: bool, augment: Augment) -> None:
    """Randomness is a function of (seed, epoch, index) on every device: the same images, the same windows, the same mirror images."""
    data = load_training_data(fl.load_config("quickstart"), Path())
    settings = {"batch_size": 100, "seed": 3, "normalize": data.record.normalize, "augment": augment, "shuffle": True}
    here = Loader(data.train, **settings, channels_last=channels_last)
    there = Loader(data.train, **settings, channels_last=channels_last, device=device)
    for epoch in range(2):
        for ours, theirs in zip(here.batches(epoch), there.batches(epoch), strict=True):
            assert torch.equal(ours.indices, theirs.indices.cpu())
            assert torch.equal(ours.labels, theirs.labels.cpu())
            torch.testing.assert_close(ours.images, theirs.images.cpu(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_trains_evaluates_and_goes_on(tmp_path: Path, device: str) -> None:
    """The whole path on the device, in what it settles on by itself, with a resume and the sealed test set."""
    place = {"runs_dir": tmp_path, "console": Console(quiet=True)}
    run = fl.train("quickstart", f"device.name={device}", "train.epochs=3", "train.ema_decay=0.9", name="run", **place)
    assert run.info["arithmetic"]["device"] == device
    longer = fl.resume("run", "train.epochs=6", override=True, **place)
    assert len(longer.epochs) == 6
    assert fl.evaluate("run", split="test", runs_dir=tmp_path)["accuracy"] > 0.9


@pytest.mark.parametrize("device", DEVICES)
def test_float32_steps_equal_those_of_the_cpu(device: str) -> None:
    """The same network, data and draws: ten steps of SGD stay together within rounding."""
    losses = {}
    for name in ("cpu", device):
        fixed = {"name": name, "precision": "float32", "memory_format": "contiguous", "threads": 1}
        prepared = prepare(fl.load_config("quickstart", "optim=sgd", "optim.lr=0.05", device=fixed), Path())
        state, setup = prepared.state, prepared.setup
        state.model.train()
        losses[name] = [
            float(train_step(state, batch, setup, share=1.0, lr=0.05).loss)
            for batch, _ in zip(setup.train_loader.batches(0), range(10), strict=False)
        ]
    assert losses[device] == pytest.approx(losses["cpu"], rel=1e-3)


@pytest.mark.parametrize("network", ["{name: mlp, hidden: [32], dropout: 0.3}", "{name: small_cnn, widths: [4, 8]}"])
@pytest.mark.parametrize("optimizer", ["sgd", "{name: sgd, momentum: 0.9}", "adam", "adamw", "muon", "{name: muon, others: sgd}"])
@pytest.mark.parametrize("device", DEVICES)
def test_captured_steps_equal_plain_ones(device: str, optimizer: str, network: str) -> None:
    """Batch and step as one CUDA graph: two epochs with every augmentation, dropout, a moving average, and images that grow half-way.

    On the CPU the same program runs from the same memory without a capture.
    """
    rest = [setting for setting in EVERYTHING if "accumulate" not in setting and ("early" not in setting or "cnn" in network)]
    config = fl.load_config(
        "quickstart", f"model={network}", "train.epochs=2", f"optim={optimizer}", f"device.name={device}", "train.batch_size=100", *rest
    )
    losses, weights = {}, {}
    for way in ("plain", "captured"):
        prepared = prepare(config, Path())
        state, setup = prepared.state, prepared.setup
        graph = StepGraph(state, setup)
        state.model.train()
        results = []
        with private_randomness(device):
            for state.epoch in range(2):
                loader = setup.train_loader
                for number, (batch, drawn) in enumerate(zip(loader.batches(state.epoch), loader.draws(state.epoch), strict=True)):
                    seed_batch(0, state.epoch, number, device=device)
                    lr = setup.lr(state)
                    results.append(train_step(state, batch, setup, share=1.0, lr=lr) if way == "plain" else graph.step(drawn, lr))
        assert state.step == len(results)
        assert isinstance(state.optimizer.param_groups[0]["lr"], float)
        losses[way] = [(float(result.loss), int(result.hits.sum())) for result in results]
        weights[way] = [value.cpu() for value in (*state.model.parameters(), *state.ema.parameters())]
    assert len(losses["plain"]) > 20
    torch.testing.assert_close(torch.tensor(losses["captured"]), torch.tensor(losses["plain"]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights["captured"], weights["plain"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA)])
def test_a_captured_run_equals_a_plain_one_and_resumes(tmp_path: Path, device: str) -> None:
    """device.graph through the whole path: the same curve, and a resume that captures anew."""
    place = {"runs_dir": tmp_path, "console": Console(quiet=True)}
    settings = (f"device.name={device}", "device.precision=float32", "train.epochs=3")
    plain = fl.train("quickstart", *settings, name="plain", **place)
    captured = fl.train("quickstart", *settings, "device.graph=true", name="captured", **place)
    assert [row["train_loss"] for row in captured.epochs] == pytest.approx([row["train_loss"] for row in plain.epochs], rel=1e-2)
    assert len(fl.resume("captured", "train.epochs=5", override=True, **place).epochs) == 5


WIDTHS = ([16], [5], [16])


def lane_configs(device: str, optimizer: str, *settings: str) -> list[fl.Config]:
    """Return three MLPs of two widths, each with a start and a learning rate of its own, in float32."""
    fixed = {"name": device, "precision": "float32", "memory_format": "contiguous", "threads": 1}
    common = ("model.name=mlp", "order_seed=0", "schedule=cosine", "train.batch_size=100", *settings)
    own = [
        (f"model.hidden={hidden}", f"optim={{{optimizer}, lr: {0.01 * (seed + 1)}}}", f"init_seed={seed}")
        for seed, hidden in enumerate(WIDTHS)
    ]
    return [fl.load_config("quickstart", *common, *words, device=fixed) for words in own]


LANE_OPTIMIZERS = ["name: sgd", "name: sgd, momentum: 0.9", "name: rmsprop", "name: adam", "name: adamw"]


@pytest.mark.parametrize("optimizer", LANE_OPTIMIZERS)
@pytest.mark.parametrize("device", DEVICES)
def test_captured_steps_of_lanes_equal_plain_ones(device: str, optimizer: str) -> None:
    """F1: the step of all lanes as one CUDA graph, over batches of two sizes, at learning rates that change from step to step."""
    configs = lane_configs(device, optimizer)
    losses, weights = {}, {}
    for way in ("plain", "captured"):
        runs = [prepare(config, Path()) for config in configs]
        lanes = make_lanes(configs, [one.state for one in runs], 10)
        assert isinstance(lanes, Lanes)
        assert lanes.device.type == device
        step = lanes.step if way == "plain" else LaneGraph(lanes).step
        said = []
        with torch.no_grad():
            for epoch in range(2):
                for number, batch in enumerate(runs[0].setup.train_loader.batches(epoch, reuse_buffers=True)):
                    rates = torch.tensor([0.01, 0.02, 0.03]) / (1 + number)
                    said.append(step(batch.images, batch.labels, rates, seeds=(0, epoch, number)))
        assert len({len(batch.labels) for batch in runs[0].setup.train_loader.batches(0)}) == 2
        losses[way] = torch.stack([torch.stack([one.loss, one.hits.float(), one.grad_norm]).cpu() for one in said])
        weights[way] = [lanes.weights(lane) for lane in range(3)]
    torch.testing.assert_close(losses["captured"], losses["plain"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights["captured"], weights["plain"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_replayed_steps_of_lanes_do_not_wait_for_the_device(device: str) -> None:
    configs = lane_configs(device, "name: sgd, momentum: 0.9", "split.num_train=1000")
    runs = [prepare(config, Path()) for config in configs]
    lanes = make_lanes(configs, [one.state for one in runs], 10)
    assert isinstance(lanes, Lanes)
    graph = LaneGraph(lanes)
    batches = list(runs[0].setup.train_loader.batches(0))
    with torch.no_grad():
        for number, batch in enumerate(batches):
            with no_synchronisation(device if number > WARM_UP + 1 else "cpu"):
                said = graph.step(batch.images, batch.labels, torch.full((3,), 0.01 / (1 + number)), seeds=(0, 0, number))
    assert len(batches) > WARM_UP + 2
    assert torch.isfinite(said.loss).all()


@pytest.mark.parametrize("optimizer", ["name: sgd, momentum: 0.9", "name: adam"])
@pytest.mark.parametrize("device", DEVICES)
def test_lanes_on_a_device_are_their_solo_runs(tmp_path: Path, device: str, optimizer: str) -> None:
    """F1: three epochs with a pause behind the second, on the device; the curves of the run folders against runs trained alone."""
    configs, quiet = lane_configs(device, optimizer, "train.epochs=3"), Console(quiet=True)
    assert len({group_key(config, cuda=True) for config in configs}) == 1
    paths = [tmp_path / f"lane{number}" for number in range(3)]
    paused = train_lanes(configs, paths, quiet, Path(), pause_after=2)
    lanes = train_lanes(configs, paths, quiet, Path(), resumed=[run for run in paused if isinstance(run, Run)])
    for number, (config, lane) in enumerate(zip(configs, lanes, strict=True)):
        solo = run_training(config, tmp_path / f"solo{number}", quiet, Path())
        assert isinstance(lane, Run)
        assert lane.info["arithmetic"]["device"] == device
        assert [row["val_loss"] for row in lane.epochs] == pytest.approx([row["val_loss"] for row in solo.epochs], abs=1e-3)
        assert [row["loss"] for row in lane.steps] == pytest.approx([row["loss"] for row in solo.steps], rel=1e-3, abs=1e-3)
    assert time_both(configs, Path()).together > 0
