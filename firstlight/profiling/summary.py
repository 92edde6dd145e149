"""A network layer by layer: shapes, parameters, floating-point operations, bytes; and the published figures beside the totals."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.config.schema import Config, Kind
from firstlight.engine.places import data_dir_of
from firstlight.models.build import build_model
from firstlight.models.flops import CountFlops
from firstlight.models.layers import count_parameters
from firstlight.profiling.subject import find_subject
from firstlight.tracking.table import show_mflop

CONVENTION = "A multiply-add counts as 2 FLOPs; elementwise layers, pooling and normalisation count none. Bytes are float32, of one image."


@dataclass(frozen=True)
class Published:
    """Figures of a network in print, and where. multiply_adds: of one image's forward pass, to the digits that are printed."""

    kind: Kind
    image_shape: tuple[int, int, int]
    num_classes: int
    parameters: int
    source: str
    multiply_adds: float | None = None


PUBLISHED = (
    Published(Kind("cnn5"), (3, 32, 32), 10, 1_558_026, "the course that trains it on CIFAR-10"),
    Published(Kind("lenet"), (3, 32, 32), 10, 83_126, "the course's table of models"),
    Published(Kind("lenet"), (3, 32, 32), 200, 99_276, "the course's table of models"),
    Published(Kind("alexnet"), (3, 70, 70), 10, 57_044_810, "the course's table of models"),
    Published(Kind("alexnet"), (3, 70, 70), 200, 57_823_240, "the course's table of models"),
    Published(
        Kind("resnet18"),
        (3, 32, 32),
        10,
        11_173_962,
        "He et al. 2016 in the form for CIFAR-10; github.com/da2so/DA2Lite, model zoo",
        0.56e9,
    ),
)


def profile_summary(
    source: str | None,
    *overrides: str,
    out: Path | None = None,
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Describe the network of an experiment or a run layer by layer, draw it, and return the figures as plain data."""
    from firstlight.plotting.layers import plot_layers

    subject = find_subject(source, overrides, runs_dir)
    image_shape, num_classes = subject.image_shape(data_dir_of(data_dir))
    config = subject.config
    model = build_model(config.model, image_shape, num_classes, seed=0, whiten=config.input.whiten)
    layers = describe_layers(model, image_shape, config.model.name)
    total = {
        "layer": "total",
        "kind": "",
        "output": [num_classes],
        "parameters": count_parameters(model),
        "flops": sum(layer["flops"] for layer in layers),
        "output_bytes": sum(layer["output_bytes"] for layer in layers),
        "weight_bytes": sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())),
    }
    says = explain(config.model.name, layers, total, image_shape)
    figures = {
        "image_shape": list(image_shape),
        "num_classes": num_classes,
        "num_images": 1,
        "says": says,
        "note": CONVENTION
        if isinstance(model, nn.Module)
        else f"{CONVENTION} {config.model.name} is made of plain tensors: it has one row.",
        "layers": layers,
        "total": total,
        "published": compare(config, image_shape, num_classes, total),
    }
    return subject.keep("summary", figures, plot_layers(layers, title=says), out)


def describe_layers(model: Any, image_shape: tuple[int, int, int], name: str) -> list[dict[str, Any]]:
    """Return a row for each call of a layer that has no layers inside, in the order of the forward pass of one image.

    A network of plain tensors is one row. Parameters count where a layer is called first. What the network computes between its layers
    stands in a row at the end, where it is more than elementwise.
    """
    rows: list[dict[str, Any]] = []
    seen: set[int] = set()
    with CountFlops() as counter:

        def before(layer: nn.Module, inputs: Any) -> None:
            began.append(counter.flops)

        def after(layer: nn.Module, inputs: Any, output: Any) -> None:
            own = [] if id(layer) in seen else [*layer.parameters(), *layer.buffers()]
            trained = sum(tensor.numel() for tensor in own if tensor.requires_grad)
            seen.add(id(layer))
            rows.append(_row(names[layer], type(layer).__name__, output, trained, counter.flops - began.pop(), own))

        began: list[int] = []
        leaves = [layer for layer in model.modules() if not list(layer.children())] if isinstance(model, nn.Module) else []
        names = {layer: path for path, layer in model.named_modules()} if leaves else {}
        hooks = [hook for layer in leaves for hook in (layer.register_forward_pre_hook(before), layer.register_forward_hook(after))]
        was_training = model.training
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = model(torch.zeros(1, *image_shape))
        model.train(was_training)
        for hook in hooks:
            hook.remove()
        between = counter.flops - sum(row["flops"] for row in rows)
    held = {id(tensor) for layer in leaves for tensor in (*layer.parameters(), *layer.buffers())}
    own = [tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in held]
    if between or own:
        trained = sum(tensor.numel() for tensor in own if tensor.requires_grad)
        rows.append(_row("(between the layers)" if rows else name, type(model).__name__, output, trained, between, own))
    return rows


def _row(name: str, kind: str, output: Tensor, parameters: int, flops: int, weights: list[Tensor]) -> dict[str, Any]:
    return {
        "layer": name or kind,
        "kind": kind,
        "output": list(output.shape[1:]),
        "parameters": parameters,
        "flops": flops,
        "output_bytes": output.numel() * output.element_size(),
        "weight_bytes": sum(tensor.numel() * tensor.element_size() for tensor in weights),
    }


def compare(config: Config, image_shape: tuple[int, int, int], num_classes: int, total: dict[str, Any]) -> list[str]:
    """Return a line for each published figure of this very network; none where its shape or its settings are others."""
    lines = []
    for known in PUBLISHED:
        defaults = Kind(known.kind.name, {})
        same = (known.kind.name, known.image_shape, known.num_classes) == (config.model.name, image_shape, num_classes)
        if not same or config.input.whiten:
            continue
        built = build_model(defaults, image_shape, num_classes, seed=0)
        if count_parameters(built) != total["parameters"]:
            continue  # other widths or depths
        lines.append(f"published: {known.parameters:,} parameters ({known.source}); here {total['parameters']:,}")
        if known.multiply_adds is not None:
            here = total["flops"] / 2e9
            lines.append(f"published: {known.multiply_adds / 1e9:.2f} G multiply-adds an image (the same); here {here:.3f} G")
    return lines


def explain(name: str, layers: list[dict[str, Any]], total: dict[str, Any], image_shape: tuple[int, int, int]) -> str:
    """Return the finding in one sentence: the totals, and the layers that hold most of them."""
    size = f"{image_shape[0]}x{image_shape[1]}x{image_shape[2]}"
    head = f"{name} on {size}: {total['parameters']:,} parameters, {show_mflop(total['flops'])} MFLOP an image"
    if len(layers) == 1 or not total["parameters"] or not total["flops"]:
        return head
    heavy, busy = (max(layers, key=lambda layer, key=key: layer[key]) for key in ("parameters", "flops"))  # type: ignore[misc]
    weights, work = (
        f"{heavy['parameters'] / total['parameters']:.0%} of the parameters",
        f"{busy['flops'] / total['flops']:.0%} of the FLOPs",
    )
    if heavy is busy:
        return f"{head}; {heavy['layer']} has {weights} and {work}"
    return f"{head}; {heavy['layer']} has {weights}, {busy['layer']} {work}"
