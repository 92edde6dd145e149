"""A run as an ONNX file: a graph that any ONNX runtime computes."""

import torch
from torch import Tensor

from firstlight.errors import ConfigError
from firstlight.export.description import INPUT, KEY, OUTPUT, Description
from firstlight.export.network import PixelNetwork
from firstlight.export.quiet import quiet

OPSET = 18
"""Version of ONNX's operators that the graph is written in: the one that torch's exporter is made for (onnxruntime >= 1.14 reads it)."""


def to_onnx(network: PixelNetwork, example: Tensor, description: Description) -> bytes:
    """Return the content of an ONNX file; example: images [B, C, H, W] of the dtype that it is to take. Raises ConfigError."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError('--format onnx needs onnx and onnxscript; pip install "firstlight[onnx]"') from None
    with quiet("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # the exporter leaves the places in the source that each came from, with this machine's paths
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, description.to_json()
    content: bytes = model.SerializeToString(deterministic=True)
    return content
