"""Where and in which arithmetic a network runs, as one value."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from firstlight.errors import ConfigError


@dataclass(frozen=True)
class Arithmetic:
    """What was settled: device, number format of the forward pass, order of the image dimensions in memory, CPU threads."""

    device: str
    precision: str = "float32"
    memory_format: str = "contiguous"
    threads: int = 1
    probe: dict[str, Any] | None = field(default=None, compare=False)
    """How it was found: `seconds` that it took, `num_images` of a step, `milliseconds` of a step for each candidate, and whether the
    machine was `busy`; None where the config names it all, or the device leaves no choice."""

    @property
    def channels_last(self) -> bool:
        """Whether images and filters lie in memory as NHWC."""
        return self.memory_format == "channels_last"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def describe(self) -> str:
        """Return one line about the choice."""
        chosen = f"{self.device}, {self.precision}, {self.memory_format}, threads {self.threads}"
        if self.probe is None:
            return chosen
        num, images = len(self.probe["milliseconds"]), self.probe["num_images"]
        busy = "; the machine was busy, so the next start times them again" if self.probe["busy"] else ""
        return f"{chosen} (the fastest of {num}, by a step on {images} images{busy})"

    @contextmanager
    def on_threads(self) -> Iterator[None]:
        """Let torch use the settled number of CPU threads for the block, and flush denormal numbers to zero.

        A processor takes a hundred times as long over those (below 1e-38): velocities of units that no longer learn decay into them, and
        after a few hundred steps the update of a small network would take twice as long.
        """
        before, flushed = torch.get_num_threads(), flushes_denormals()
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.set_flush_denormal(flushed)

    def place(self, model: Any) -> Any:
        """Move a model to the device, its filters in the chosen order."""
        model = model.to(self.device)
        if self.channels_last and isinstance(model, torch.nn.Module):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


def flushes_denormals() -> bool:
    """Return whether this thread takes numbers below the smallest normal one as zero."""
    return not bool(torch.full((), torch.finfo(torch.float32).tiny) * 0.5)


def choose_device(name: str) -> str:
    """Return the device for a setting: `auto` takes CUDA, then Apple's MPS, then the CPU. Raises ConfigError for one that is not here."""
    present = [device for device in ("cuda", "mps", "cpu") if is_present(device)]
    if name == "auto":
        return present[0]
    if name not in present:
        here = ", ".join(present)
        raise ConfigError(f"device.name is {name!r}, but this machine (or this build of torch) has {here}; set device.name=auto")
    return name


def is_present(device: str) -> bool:
    """Tell whether torch can use a device here."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}[device]
