"""Lanes against solo runs: the same batches, the same draws, the same numbers (F1)."""

from pathlib import Path
from typing import Any

import pytest
import torch

import firstlight as fl
from firstlight.engine.seeding import private_randomness, seed_batch
from firstlight.engine.step import train_step
from firstlight.engine.train import prepare
from firstlight.engine.vectorized import ACTIVATIONS, Lane, Lanes, hits_of_lanes
from firstlight.models.layers import ACTIVATIONS as SOLO_ACTIVATIONS

FIXED = {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1}
RULE_OF = {"momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.8, "nesterov": True}}


def config_of(rule: str, lane: dict[str, Any]) -> fl.Config:
    options = {"name": rule if rule in ("rmsprop", "adam", "adamw") else "sgd", **RULE_OF.get(rule, {}), **lane["optim"]}
    model = {"name": "mlp", "hidden": lane["hidden"], "activation": lane["activation"], "dropout": lane["dropout"]}
    train = {"batch_size": 50, "epochs": 1, "label_smoothing": lane["smoothing"]}
    return fl.load_config("quickstart", model=model, optim=options, train=train, init_seed=lane["seed"], augment={}, device=FIXED)


def lane_of(config: fl.Config) -> Lane:
    model, optim = config.model.options, config.optim.options
    hyper = {name: float(value) for name, value in optim.items() if name not in ("lr", "nesterov")}
    return Lane(model["hidden"], model["activation"], model["dropout"], config.train.label_smoothing, hyper)


LANES = [
    {"hidden": [16], "activation": "relu", "dropout": 0.0, "smoothing": 0.0, "seed": 0, "optim": {"lr": 0.01}},
    {"hidden": [5], "activation": "tanh", "dropout": 0.25, "smoothing": 0.0, "seed": 1, "optim": {"lr": 0.003}},
    {"hidden": [16], "activation": "relu", "dropout": 0.5, "smoothing": 0.2, "seed": 2, "optim": {"lr": 0.03, "weight_decay": 0.01}},
    {"hidden": [1], "activation": "gelu", "dropout": 0.0, "smoothing": 0.1, "seed": 3, "optim": {"lr": 0.01}},
]
DEEP = [{**lane, "hidden": [*lane["hidden"], 7, 3 + number // 2]} for number, lane in enumerate(LANES)]


OF_ITS_OWN = {
    "momentum": [{"momentum": 0.5}, {"momentum": 0.9}, {"momentum": 0.98}, {"momentum": 0.9, "weight_decay": 0.1}],
    "nesterov": [{"momentum": 0.5}, {"momentum": 0.9}, {"momentum": 0.98}, {"momentum": 0.9, "weight_decay": 0.1}],
    "rmsprop": [{"decay": 0.9}, {"decay": 0.99}, {"eps": 1e-3}, {"weight_decay": 0.1}],
    "adam": [{"beta1": 0.5}, {"beta2": 0.99}, {"eps": 1e-3}, {"weight_decay": 0.1}],
    "adamw": [{"beta1": 0.5}, {"beta2": 0.99}, {"eps": 1e-3}, {"weight_decay": 0.1}],
}
"""What a rule can have of its own in each lane."""


@pytest.mark.parametrize("rule", list(OF_ITS_OWN))
def test_the_rule_has_settings_of_its_own_in_each_lane(rule: str) -> None:
    """F1: momentum, betas, decay and weight decay by lane."""
    lr = 1e-3 if rule == "rmsprop" else 0.01
    test_each_lane_equals_its_solo_run(
        rule, [{**lane, "optim": {"lr": lr, **own}} for lane, own in zip(LANES, OF_ITS_OWN[rule], strict=True)]
    )


@pytest.mark.parametrize("lanes", [LANES, DEEP], ids=["one-layer", "three-layers"])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
def test_each_lane_equals_its_solo_run(rule: str, lanes: list[dict[str, Any]]) -> None:
    """F1: widths, activations, dropout, smoothing, seeds, lr and decay of its own; over an epoch each loss within 1e-4 of the solo one."""
    configs = [config_of(rule, lane) for lane in lanes]
    prepared = [prepare(config, Path()) for config in configs]
    states = [one.state for one in prepared]
    together = Lanes([lane_of(c) for c in configs], [s.model.state_dict() for s in states], rule=rule, num_classes=10)
    lrs = [config.optim.options["lr"] / (10 if rule == "rmsprop" and len(lanes[0]["hidden"]) > 1 else 1) for config in configs]
    logits: list[torch.Tensor] = []
    for state in states:
        state.model.register_forward_hook(lambda model, inputs, output: logits.append(output.detach()))
    num_open = num_images = 0
    with private_randomness(), torch.no_grad():
        for number, batch in enumerate(prepared[0].setup.train_loader.batches(0)):
            figures = together.step(batch.images, batch.labels, torch.tensor(lrs), seeds=(0, 0, number))
            for place, (one, state) in enumerate(zip(prepared, states, strict=True)):
                state.model.train()
                seed_batch(0, 0, number)
                with torch.enable_grad():
                    solo = train_step(state, batch, one.setup, share=1.0, lr=lrs[place])
                assert float(figures.loss[place]) == pytest.approx(float(solo.loss), abs=1e-4)
                best, second = logits.pop().topk(2).values.T
                open_between_two = int((best - second < 1e-3).sum())  # rounding decides; of a layer with dead units, for all images at once
                assert abs(int(figures.hits[place]) - int(solo.hits.sum())) <= open_between_two
                num_open, num_images = num_open + open_between_two, num_images + len(batch.labels)
                norm = torch.stack(list(solo.grad_norms)).square().sum().sqrt()
                assert float(figures.grad_norm[place]) == pytest.approx(float(norm), rel=1e-3, abs=1e-4)
        assert num_open < num_images / 8
        for place, state in enumerate(states):
            for name, expected in state.model.state_dict().items():
                torch.testing.assert_close(together.weights(place)[name], expected, rtol=1e-3, atol=1e-4)
            state.model.eval()
            torch.testing.assert_close(together.logits(batch.images)[place], state.model(batch.images), rtol=1e-3, atol=1e-3)


def test_every_activation_has_its_lane() -> None:
    assert set(ACTIVATIONS) == set(SOLO_ACTIVATIONS)
    before = torch.linspace(-3, 3, 61)
    for name, lane in ACTIVATIONS.items():
        solo, seen = SOLO_ACTIVATIONS[name](), before.clone().requires_grad_()
        after = solo(seen)
        after.backward(torch.ones_like(after))
        torch.testing.assert_close(lane.value(before), after.detach())
        torch.testing.assert_close(lane.slope(torch.ones_like(before), before), seen.grad)


def test_a_lane_that_breaks_leaves_the_others_alone() -> None:
    """A lane whose numbers are not finite any more harms no other lane."""
    configs = [config_of("sgd", lane) for lane in LANES]
    prepared = prepare(configs[0], Path())
    weights = [prepare(config, Path()).state.model.state_dict() for config in configs]
    lanes = [lane_of(config) for config in configs]
    whole, broken = (Lanes(lanes, weights, rule="sgd", num_classes=10) for _ in range(2))
    with private_randomness():
        for number, batch in enumerate(prepared.setup.train_loader.batches(0)):
            good = whole.step(batch.images, batch.labels, torch.tensor([0.01] * 4), seeds=(0, 0, number))
            bad = broken.step(batch.images, batch.labels, torch.tensor([0.01, 0.01, 1e38, 0.01]), seeds=(0, 0, number))
    assert not torch.isfinite(bad.loss[2])
    assert torch.equal(bad.loss[[0, 1, 3]], good.loss[[0, 1, 3]])


def test_of_equal_logits_the_first_counts() -> None:
    """A network that starts at zero gives every class the same logit, and recognises the first class alone, as `argmax` has it."""
    labels = torch.tensor([0, 1, 2, 2, 0])
    logits = torch.tensor([[0.0, 0, 0], [0, 1, 1], [1, 0, 1], [-5, -5, -4], [2, 3, 3]]).T.expand(2, 3, 5).clone()
    logits[1] = 0
    assert hits_of_lanes(logits, labels).tolist() == [3, 2] == (logits.argmax(1) == labels).sum(1).tolist()
    draws = torch.randint(0, 4, (50, 12, 40)).float()
    labels = torch.randint(0, 12, (40,))
    assert torch.equal(hits_of_lanes(draws, labels), (draws.argmax(1) == labels).sum(1))


def test_a_step_takes_the_learning_rates_that_it_is_given() -> None:
    """Learning rates that stay are not spread anew; others are, and the caller may fill the same tensor again."""
    configs = [config_of("sgd", lane) for lane in LANES]
    prepared = prepare(configs[0], Path())
    weights = [prepare(config, Path()).state.model.state_dict() for config in configs]
    lanes = Lanes([lane_of(config) for config in configs], weights, rule="sgd", num_classes=10)
    batch, lrs = next(prepared.setup.train_loader.batches(0)), torch.full((4,), 0.01)
    with private_randomness():
        lanes.step(batch.images, batch.labels, lrs, seeds=(0, 0, 0))
        for moves in (False, True):
            lrs.fill_(0.01 if moves else 0.0)
            before = [lanes.weights(lane)["linear1.weight"] for lane in range(4)]
            lanes.step(batch.images, batch.labels, lrs, seeds=(0, 0, 1))
            stayed = [torch.equal(lanes.weights(lane)["linear1.weight"], before[lane]) for lane in range(4)]
            assert stayed == [not moves] * 4


@pytest.mark.parametrize("rule", ["sgd", "momentum", "rmsprop", "adam"])
def test_lanes_are_on_the_device_of_their_weights(rule: str) -> None:
    """Where every other tensor would be made elsewhere, a step, an evaluation and a resume find all of theirs together."""
    configs = [config_of(rule, {**lane, "dropout": 0.0}) for lane in LANES]
    prepared = [prepare(config, Path()) for config in configs]
    batch = next(prepared[0].setup.train_loader.batches(0))
    weights = [one.state.model.state_dict() for one in prepared]
    with torch.device("meta"), torch.no_grad():
        lanes = Lanes([lane_of(config) for config in configs], weights, rule=rule, num_classes=10)
        for number, lr in enumerate((0.01, 0.02)):
            said = lanes.step(batch.images, batch.labels, torch.full((4,), lr, device="cpu"), seeds=(0, 0, number))
        lanes.remember([lanes.memory_of(lane) for lane in range(4)])
        found = [said.loss, said.hits, said.grad_norm, lanes.logits(batch.images), *lanes.parameters(), *lanes.weights(0).values()]
        found += [value for memory in lanes.memory for value in memory.values()]
    assert {str(value.device) for value in found} == {"cpu"}
    assert torch.isfinite(said.loss).all()
