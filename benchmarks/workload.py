"""One piece of training that several frameworks do: an experiment's images in firstlight's own order of the first epoch, and its network.

The parent writes it once; each arm reads it. In the warm-up epoch all arms go through the images as they stand here, from the same
weights, so that the loss behind it can be compared; from the second epoch on everybody shuffles.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import firstlight as fl
from firstlight.data.build import load_training_data, make_train_loader
from firstlight.data.normalize import Normalize
from firstlight.data.places import data_dir_of
from firstlight.models.flops import flops_per_image

GUARD_IMAGES = 512
"""Images on which the loss of the guard is taken."""


@dataclass(frozen=True)
class Workload:
    """What is trained: uint8 images [N, H, W, C], int64 labels [N], mean and std a channel, and the words that make the config."""

    source: str
    overrides: tuple[str, ...]
    images: Any
    labels: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: str

    @property
    def config(self) -> fl.Config:
        """The experiment, as firstlight trains it."""
        return fl.load_config(self.source, *self.overrides)

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return self.config.train.batch_size

    @property
    def num_steps(self) -> int:
        """Steps an epoch; the last batch is as large as the others."""
        return len(self.images) // self.batch_size

    @property
    def lr(self) -> float:
        """The learning rate of SGD; it stays."""
        return float(self.config.optim.options["lr"])

    @property
    def momentum(self) -> float:
        """The momentum of SGD."""
        return float(self.config.optim.options.get("momentum", 0))

    def build_model(self) -> Any:
        """Return the network with the weights that every arm begins with, as firstlight makes it: a plain nn.Module."""
        height, width, channels = self.images.shape[1:]
        seed = self.config.seed
        return fl.build_model(self.config.model, (channels, height, width), 10, seed=seed)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all images as the network sees them, float32 [N, C, H, W], and the labels."""
        images = torch.from_numpy(self.images).permute(0, 3, 1, 2)
        return Normalize(self.mean, self.std).apply(images).contiguous(), torch.from_numpy(self.labels)

    def training_flops_per_image(self) -> int:
        """Return the operations of forward and backward, 6 a multiply-add."""
        height, width, channels = self.images.shape[1:]
        return 3 * flops_per_image(self.build_model(), (channels, height, width))

    def guard(self, model: Any) -> dict[str, Any]:
        """Return what must be equal in all arms behind the warm-up, for a network of torch."""
        model.eval()
        with torch.no_grad():
            logits = model(self.tensors()[0][:GUARD_IMAGES]).float()
        model.train()
        return self.guard_of(logits, list(model.parameters()), list(self.build_model().parameters()))

    def guard_of(self, logits: Tensor, weights: Sequence[Tensor], first: Sequence[Tensor]) -> dict[str, Any]:
        """Return the guard: the parameters, how far they went from where they started, and the loss on the first images.

        The distance is there because the loss alone hardly tells a network that learned for a few steps from one that did not.
        """
        loss = cross_entropy(logits, torch.from_numpy(self.labels[:GUARD_IMAGES])).item()
        moved = math.sqrt(sum(float((now.detach() - then.detach()).square().sum()) for now, then in zip(weights, first, strict=True)))
        count = sum(weight.numel() for weight in weights)
        return {"parameters": count, "distance_from_start": moved, f"loss_after_{self.num_steps}_steps": loss}

    @classmethod
    def make(cls, source: str, *overrides: str) -> "Workload":
        """Read the experiment's data and put them into the order of firstlight's first epoch; leave with a line where they are missing."""
        config = fl.load_config(source, *overrides)
        try:
            data = load_training_data(config, data_dir_of(None))
        except fl.FirstlightError as error:
            sys.exit(str(error))
        loader = make_train_loader(config, data.train, data.record.normalize, seed=config.seed, device="cpu", channels_last=False)
        order = torch.cat([loader.indices(0, number) for number in range(loader.num_batches)])
        images, labels = data.train.images[order], data.train.labels[order]  # type: ignore[index]
        assert len(images) % config.train.batch_size == 0, "all batches are equally large"
        normalize = data.record.normalize
        hwc = images.permute(0, 2, 3, 1).contiguous().numpy()
        return cls(source, overrides, hwc, labels.numpy(), normalize.mean, normalize.std, data.record.source)

    def write(self, folder: Path) -> Path:
        """Write the workload into a folder, and return it."""
        np.savez(folder / "data.npz", images=self.images, labels=self.labels)
        facts = {"source": self.source, "overrides": self.overrides, "mean": self.mean, "std": self.std, "data": self.data}
        (folder / "workload.json").write_text(json.dumps(facts), encoding="utf-8")
        return folder

    @classmethod
    def read(cls, folder: Path) -> "Workload":
        """Read what `write` wrote."""
        facts = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
        arrays = np.load(folder / "data.npz")
        lists = {key: tuple(facts[key]) for key in ("overrides", "mean", "std")}
        return cls(facts["source"], images=arrays["images"], labels=arrays["labels"], data=facts["data"], **lists)
