"""Random numbers that are functions of (seed, epoch, index, stream), so that batches, workers and resumes cannot change them.

The generator is SplitMix64 (Steele, Lea and Flood 2014) used as a hash: integers only, the same bits on every device.
"""

from enum import IntEnum

import torch
from torch import Tensor

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


class Stream(IntEnum):
    """What a number is drawn for; each has numbers of its own. A value is part of the results: never give one away again."""

    ORDER = 0
    CROP_TOP = 1
    CROP_LEFT = 2
    FLIP = 3
    ANGLE = 4
    BRIGHTNESS = 5
    CONTRAST = 6
    SATURATION = 7
    CUTOUT_TOP = 8
    CUTOUT_LEFT = 9
    IN_WINDOW = 10


def uniform(seed: int, epoch: int, indices: Tensor, stream: int) -> Tensor:
    """Return one number in [0, 1) for each index, in steps of 2**-24; indices int64 [B] -> float32 [B]."""
    return _shift_right(_hash(seed, epoch, indices, stream), 40).to(torch.float32) * 2.0**-24


def integers(seed: int, epoch: int, indices: Tensor, stream: int, bound: int) -> Tensor:
    """Return one whole number in 0..bound-1 for each index; indices int64 [B] -> int64 [B]; bound <= 2**31."""
    return _shift_right(_hash(seed, epoch, indices, stream), 32).mul_(bound) >> 32


def permutation(num: int, seed: int, epoch: int) -> Tensor:
    """Return the numbers 0..num-1 in the random order of this epoch, int64 [num] on the CPU."""
    generator = torch.Generator().manual_seed(_key(seed, epoch, Stream.ORDER))
    return torch.randperm(num, generator=generator)


def _hash(seed: int, epoch: int, indices: Tensor, stream: int) -> Tensor:
    """Return 64 random bits for each index, as int64; products wrap around."""
    bits = (indices * _signed(_GOLDEN)).add_(_signed(_key(seed, epoch, stream)))
    bits.bitwise_xor_(_shift_right(bits, 30)).mul_(_signed(_MIX_1))
    bits.bitwise_xor_(_shift_right(bits, 27)).mul_(_signed(_MIX_2))
    return bits.bitwise_xor_(_shift_right(bits, 31))


def _key(seed: int, epoch: int, stream: int) -> int:
    key = 0
    for word in (seed, epoch, stream):
        key = _mix((key + word + _GOLDEN) & _WORD)
    return key


def _mix(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * _MIX_1) & _WORD
    bits = ((bits ^ (bits >> 27)) * _MIX_2) & _WORD
    return bits ^ (bits >> 31)


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Shift int64 right and fill with zeros (torch's own shift repeats the sign)."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
