"""Damage for files, the same damage for the same seed: what a fuzz test feeds to a parser."""

import random
from collections.abc import Callable

MAX_SPAN = 64
LARGE = (0xFF, 0x7F, 0x80, 0x00)
"""Bytes that make a length in a header huge, negative or nothing."""


def mutate(content: bytes, seed: int) -> bytes:
    """Return `content` after one to four damages: bits flipped, spans deleted, repeated, inserted or swapped, lengths made huge, a cut.

    Half of the damages fall into the first 512 bytes, where most formats keep their headers.
    """
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 2, 4))):
        content = draw.choice(DAMAGES)(content, draw)
    return content


def _place(content: bytes, draw: random.Random) -> int:
    end = len(content) if draw.random() < 0.5 else min(len(content), 512)
    return draw.randrange(end + 1)


def _span(content: bytes, draw: random.Random) -> tuple[int, int]:
    start = _place(content, draw)
    return start, min(len(content), start + draw.randint(1, MAX_SPAN))


def _flip_bits(content: bytes, draw: random.Random) -> bytes:
    flipped = bytearray(content)
    for _ in range(draw.choice((1, 1, 4, 16)) if content else 0):
        flipped[_place(content, draw) - 1] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _delete(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:start] + content[end:]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:end] + content[start:end] * draw.choice((1, 1, 100)) + content[end:]


def _insert(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:start] + draw.randbytes(end - start) + content[start:]


def _swap(content: bytes, draw: random.Random) -> bytes:
    (start, middle), (other, end) = sorted((_span(content, draw), _span(content, draw)))
    if middle > other:
        return content
    return content[:start] + content[other:end] + content[middle:other] + content[start:middle] + content[end:]


def _huge_length(content: bytes, draw: random.Random) -> bytes:
    """Overwrite 2, 4 or 8 bytes by one value, as a hostile header would."""
    start, size = _place(content, draw), draw.choice((2, 4, 8))
    return content[:start] + bytes([draw.choice(LARGE)]) * min(size, len(content) - start) + content[start + size :]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip_bits,
    _flip_bits,
    _truncate,
    _delete,
    _repeat,
    _insert,
    _swap,
    _huge_length,
)
