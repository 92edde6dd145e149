"""A run's weights as one safetensors file, from which any program can take them; firstlight builds the network from the config inside."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from firstlight.config.schema import Config
from firstlight.data.normalize import Normalize
from firstlight.engine.checkpoint import load_weights
from firstlight.engine.evaluate import eval_mode
from firstlight.engine.sources import config_from
from firstlight.errors import CheckpointError, ConfigError
from firstlight.export.description import KEY, Description, read_description
from firstlight.export.network import pixel_network
from firstlight.export.reader import Exported, read_content
from firstlight.files import tensors_from_bytes, tensors_to_chunks
from firstlight.models.build import build_model

MAX_BYTES = 2**36
MAX_HEADER = 10**8
"""Bytes of a header: safetensors' own limit."""


def to_safetensors(model: Any, description: Description) -> bytes:
    """Return the content of a safetensors file: every tensor by its name in the run's checkpoints, the description as metadata."""
    weights_alone = replace(description, has_graph=False)
    return b"".join(tensors_to_chunks(model.state_dict(), {"format": "pt", KEY: weights_alone.to_json()}))


class WeightsReader(Exported):
    """A safetensors file by its path: the network of its config, with its weights. Nothing in it is code. Raises CheckpointError."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        content = content or read_content(path, MAX_BYTES)
        weights = tensors_from_bytes(content, path)
        self.description = read_description(metadata_of(content).get(KEY), path)
        config = self._config()
        model = build_model(config.model, self.image_shape, len(self.class_names), seed=0, whiten=config.input.whiten)
        load_weights(model, weights, path)
        model.eval()
        normalize = Normalize(self.description.mean, self.description.std)
        self._network = pixel_network(model, config, normalize, self.description.white)

    def _config(self) -> Config:
        settings = self.description.about.get("config")
        if not isinstance(settings, dict):
            raise CheckpointError(f"{self.path} holds weights and no config, so there is no network to put them in; take another export")
        try:
            return config_from(settings)
        except ConfigError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def _ask(self, pixels: NDArray[Any]) -> NDArray[Any]:
        with eval_mode(self._network):
            found: NDArray[Any] = self._network(torch.from_numpy(pixels)).numpy()
        return found


def metadata_of(content: bytes) -> dict[str, str]:
    """Return the texts in the header of a safetensors file that was found whole."""
    length = int.from_bytes(content[:8], "little")
    found = json.loads(content[8 : 8 + min(length, MAX_HEADER)]).get("__metadata__", {})
    return {str(key): str(value) for key, value in found.items()}
