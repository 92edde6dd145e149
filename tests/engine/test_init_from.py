"""The start from weights that exist, and what is refused."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import firstlight as fl
from firstlight.config.schema import Kind, TrainConfig
from firstlight.engine.init_from import fit_names, head_names, read_foreign, start_from
from firstlight.engine.weights_probe import read
from firstlight.errors import CheckpointError, FirstlightError
from firstlight.models.build import build_model
from firstlight.tracking.console import Console

SHAPE = (1, 8, 8)
NETWORK = Kind("small_cnn", {"widths": (4, 8)})


def network(num_classes: int = 10, seed: int = 0) -> Any:
    return build_model(NETWORK, SHAPE, num_classes, seed)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def begin(path: object, *, head: Any = "keep", num_classes: int = 10) -> tuple[Any, Any]:
    model = network(num_classes, seed=1)
    return model, start_from(model, TrainConfig(init_from=str(path), init_head=head))


def test_nothing_named_draws_new_weights() -> None:
    model = network()
    assert start_from(model, TrainConfig()) is None and same(model.state_dict(), network().state_dict())


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda weights: weights,
    "DataParallel": lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
    "compiled in a checkpoint": lambda weights: {
        "epoch": 3,
        "optimizer": {"state": {}},
        "model_state_dict": {f"_orig_mod.{name}": tensor for name, tensor in weights.items()},
    },
    "float64": lambda weights: {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in weights.items()},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_are_taken_name_by_name(tmp_path: Path, form: str) -> None:
    """A state dict as people save it."""
    weights, path = network(seed=5).state_dict(), tmp_path / "weights.pt"
    torch.save(WRAPPED[form](weights), path)
    found = fit_names(read(path, path.stat().st_size), network(seed=1).state_dict(), where=path, new_head=False)
    assert same({name: tensor.to(weights[name].dtype) for name, tensor in found.items()}, weights)


def test_a_pt_file_is_read_by_a_process_of_its_own(tmp_path: Path) -> None:
    weights = network(seed=5).state_dict()
    torch.save(WRAPPED["compiled in a checkpoint"](weights), tmp_path / "weights.pt")
    model, start = begin(tmp_path / "weights.pt")
    assert same(model.state_dict(), weights)
    assert (start["tensors"], start["new"]) == (len(weights), [])


def test_safetensors_from_anywhere(tmp_path: Path) -> None:
    weights = network(seed=5).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    assert same(begin(tmp_path / "weights.safetensors")[0].state_dict(), weights)


@pytest.mark.parametrize("name", ["head", "fc"])
def test_another_head_is_drawn_anew(tmp_path: Path, name: str) -> None:
    """`init_head=new`: all but the last linear layer, whatever the file calls it."""
    weights = {key.replace("head", name): tensor for key, tensor in network(7, seed=5).state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"train\.init_head=new|take the network they were saved from"):
        begin(tmp_path / "w.safetensors")
    model, start = begin(tmp_path / "w.safetensors", head="new")
    found, drawn = model.state_dict(), network(seed=1).state_dict()
    assert start["new"] == ["head.weight", "head.bias"]
    for key, tensor in found.items():
        assert torch.equal(tensor, drawn[key] if key.startswith("head") else weights[key]), key


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (Kind("mlp", {"hidden": (5,), "output_norm": True}), {"linear2.weight", "linear2.bias", *(f"output_norm.{name}" for name in (
            "weight", "bias", "running_mean", "running_var", "num_batches_tracked"))}),
        (Kind("scratch_mlp", {"hidden": (5,)}), {"linear2.weight", "linear2.bias"}),
        (Kind("airbench", {"widths": (4, 4, 4)}), {"head.weight"}),
    ],
)  # fmt: skip
def test_the_head_is_the_last_matrix_and_what_stands_behind_it(kind: Kind, head: set[str]) -> None:
    assert head_names(build_model(kind, (1, 8, 8), 10, 0).state_dict()) == head


Weights = dict[str, Tensor]


def without(weights: Weights, name: str) -> Weights:
    return {key: tensor for key, tensor in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: without(w, "head.bias"), "head.bias is missing; set train.init_head=new"),
        (lambda w: w | {"extra.weight": torch.zeros(2)}, "extra.weight is not in the network; take the network they were saved from"),
        (
            lambda w: w | {"head.weight": torch.zeros(3, 8)},
            r"head.weight is \[3, 8\] there and \[10, 8\] in the network; set train.init_head=new",
        ),
        (lambda w: w | {"head.weight": torch.zeros(10, 8, dtype=torch.int64)}, "head.weight is int64 there and float32 in the network"),
        (lambda w: w | {"head.bias": torch.full((10,), float("nan"))}, "head.bias holds numbers that are not finite; take weights"),
        (lambda w: {f"layers.{n}": torch.zeros(1) for n in range(9)}, "features.0.weight is missing, .* and 20 more; take the network"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(tmp_path: Path, change: Callable[[Weights], Weights], says: str) -> None:
    """B11: strict, and the first that differ are named; the network is as it was."""
    save_file(change(network(seed=5).state_dict()), tmp_path / "w.safetensors")
    model = network(seed=1)
    with pytest.raises(CheckpointError, match=says) as caught:
        start_from(model, TrainConfig(init_from=str(tmp_path / "w.safetensors")))
    assert str(tmp_path / "w.safetensors") in str(caught.value) and "\n" not in str(caught.value)
    assert same(model.state_dict(), network(seed=1).state_dict())


# What a .pt file may hold


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(path.with_name("ran"))))


def a_network(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def hidden_code(path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(2)}, "more": Evil(path.with_name("ran"))}, path)


def cut_off(path: Path) -> None:
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:3000])


def a_bomb(path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, path)


def a_squeezed_archive(path: Path) -> None:
    """Zeros that a zip makes small: 16 MiB in some KiB."""
    torch.save({"w": torch.zeros(1 << 22)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def a_script(path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


REFUSED: dict[Callable[[Path], None], str] = {
    a_pickle: "holds pickled (code|objects).* not weights alone, and is not loaded",
    hidden_code: "holds pickled (code|objects).* not weights alone, and is not loaded",
    a_network: r"holds pickled code \(torch.nn.modules.linear.Linear\), not weights alone",
    a_script: "it is TorchScript, which is code; save model.state_dict\\(\\) instead",
    cut_off: "it is no whole .pt file; get it again",
    a_bomb: "its tensors would take more than the [0-9,]+ bytes that the file has; it is made to do harm",
    a_squeezed_archive: "its tensors would take more than the [0-9,]+ bytes|far more memory|no whole .pt file",
    lambda path: torch.save([1, 2], path): "it holds one list, not weights by name; save model.state_dict",
    lambda path: torch.save({}, path): "it holds 0 entries",
    lambda path: torch.save({"a": 1}, path): "its entry 'a' is no tensor but int",
    lambda path: torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, path): "a is a tensor of torch.complex64",
    lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path): "no whole .pt file|a is a tensor of torch.float32, torch.sparse_coo",
    lambda path: path.write_text("hello") and None: "it is no whole .pt file; get it again",
}  # type: ignore[dict-item, return-value]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_a_pt_file_that_holds_anything_else_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """F12, fault 23: nothing in the file runs, and nothing larger than it is made."""
    path = tmp_path / "foreign.pt"
    make(path)
    with pytest.raises(CheckpointError, match=REFUSED[make]):
        read(path, path.stat().st_size)
    assert not (tmp_path / "ran").exists()


def test_the_child_refuses_and_this_process_lives(tmp_path: Path) -> None:
    """Fault 23, fault 26: the same in the process with limits, which answers with one line."""
    a_squeezed_archive(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"^train.init_from: .*w\.pt: .*;"):
        read_foreign(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing.pt", "is not there, or is no file; name a .safetensors or .pt file"),
        ("nothing", "is not there; name a run, or a file that ends in .safetensors or .pt"),
        ("some.onnx", "ends in none of .safetensors, .pt, .pth, .bin, .ckpt; name a file of weights, or a run"),
        ("half.safetensors", "is not a whole safetensors file"),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "some.onnx").write_text("x")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match=says):
        begin(tmp_path / name)


# Whole trainings


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., fl.Run]:
    def run(*overrides: str, name: str) -> fl.Run:
        fixed = ["model={name: small_cnn, widths: [4, 8]}", "train.test_at_end=false", "device.threads=1", "device.precision=float32"]
        return fl.train("quickstart", *fixed, *overrides, name=name, runs_dir=tmp_path, console=Console(quiet=True))

    return run


def test_a_run_begins_where_another_ended(tmp_path: Path, train: Callable[..., fl.Run]) -> None:
    """The best weights of a run at a vanishing learning rate stay what they were; drawn ones know nothing."""
    first = train("train.epochs=6", name="first")
    still = ["train.epochs=1", "optim.lr=1e-12", "optim.weight_decay=0"]
    drawn, begun = train(*still, name="drawn"), train(*still, f"train.init_from={first.path}", name="begun")
    assert begun.summary["val_accuracy"] > 0.8 > 0.3 > drawn.summary["val_accuracy"]
    began_with = begun.info["network"]["init_from"]
    assert began_with["file"].startswith(str(first.path)) and began_with["new"] == []
    assert fl.load_config(begun.path / "config.yaml").train.init_from == str(first.path)


def test_a_resumed_run_needs_the_file_no_more(tmp_path: Path, train: Callable[..., fl.Run]) -> None:
    """F3: what a checkpoint holds is not overwritten by what the run began with."""
    weights = fl.load_model(train("train.epochs=1", name="first")).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "w.safetensors")
    begun = train("train.epochs=1", f"train.init_from={tmp_path / 'w.safetensors'}", name="begun")
    before = begun.summary["train_loss"]
    (tmp_path / "w.safetensors").unlink()
    longer = fl.resume(begun.path, "train.epochs=2", override=True, console=Console(quiet=True))
    assert longer.summary["epochs"] == 2 and longer.epochs[1]["train_loss"] < before
    with pytest.raises(FirstlightError, match=r"these settings cannot change within a run: train\.init_head keep -> new"):
        fl.resume(begun.path, "train.epochs=3", "train.init_head=new", override=True, console=Console(quiet=True))
