"""A run as an ONNX file: a graph that any ONNX runtime computes."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight.errors import ConfigError
from firstlight.export.description import INPUT, KEY, OUTPUT, Description
from firstlight.export.network import PixelNetwork
from firstlight.export.reader import open_session

OPSET = 18
"""Version of ONNX's operators that the graph is written in: the one that torch's exporter is made for, read since onnxruntime 1.14 (2023)."""


def to_onnx(network: PixelNetwork, example: torch.Tensor, description: Description) -> bytes:
    """Return the content of an ONNX file; example: images [B, C, H, W] of the dtype that it is to take. Raises ConfigError."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError('--format onnx needs onnx and onnxscript; pip install "firstlight[onnx]"') from None
    with _quiet(), torch.no_grad():
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


def onnx_logits(content: bytes, images: NDArray[np.generic], where: Path) -> NDArray[np.float32]:
    """Return the logits that a file computes in onnxruntime; images: as it takes them."""
    found: NDArray[np.float32] = open_session(content, where).run([OUTPUT], {INPUT: images})[0]
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from speaking of packages that it does not need, and of what it deprecates within itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
