"""Seeds as functions of where the training stands, so that nothing random has to be saved or replayed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mix(*parts: int) -> int:
    """Return 63 well-mixed bits of some integers; other integers, other bits."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_batch(seed: int, epoch: int, batch: int) -> None:
    """Seed torch's generators for the random draws inside the network (dropout) on one batch."""
    torch.manual_seed(mix(seed, epoch, batch))


@contextmanager
def private_randomness() -> Iterator[None]:
    """Give torch's CPU generator back as it was after the block, so that training leaves no trace in the caller's draws."""
    with torch.random.fork_rng(devices=[]):
        yield
