"""Counter-based random numbers: SplitMix64 (Steele, Lea and Flood, 2014).

Word n of a stream is mix(key + n * gamma), with key and gamma (odd) mixed from the integers that
identify the stream. With one gamma for all, the streams would be shifts of a single sequence, and
could overlap. Only integer arithmetic is used, so that every device gives the same words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _mix(z: int) -> int:
    """SplitMix64's bijection of 64-bit integers: each bit of z affects every bit of the result."""
    z &= _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def mixed(*parts: int) -> int:
    """A 64-bit hash of the given integers, which depends on their order."""
    z = 0
    for part in parts:
        z = _mix((z + _GOLDEN) ^ _mix(part + _GOLDEN))
    return z


@lru_cache(maxsize=4096)
def _mix_of_number(i: int) -> int:
    return _mix(i + _GOLDEN)


def _signed(z: int) -> int:
    """The int64 with the bits of the unsigned 64-bit z: torch computes in int64 and wraps."""
    return z - (1 << 64) if z >> 63 else z


@dataclass(frozen=True)
class Stream:
    """An endless sequence of 64-bit words with random access.

    ``key`` and ``gamma`` are int64, or tensors of them for several streams: (S, 1) for the same
    numbers of S streams, or one entry per number.
    """

    key: int | Tensor
    gamma: int | Tensor

    @classmethod
    def of(cls, *parts: int) -> Stream:
        """The stream identified by a tuple of integers, such as (seed, step, p, parameter)."""
        z = mixed(*parts)
        return cls(_signed(_mix(z + _GOLDEN)), _signed(_mix(z + 2 * _GOLDEN) | 1))

    @classmethod
    def states(cls, *parts: int, count: int) -> list[list[int]]:
        """[keys, gammas] of the streams of (*parts, 0), ..., (*parts, count - 1)."""
        z = mixed(*parts) + _GOLDEN  # hashes their common prefix once
        states = [_mix(z ^ _mix_of_number(i)) for i in range(count)]
        keys = [_signed(_mix(state + _GOLDEN)) for state in states]
        return [keys, [_signed(_mix(state + 2 * _GOLDEN) | 1) for state in states]]

    @classmethod
    def stack(cls, streams: Sequence[Stream], device: torch.device | str) -> Stream:
        """S streams as one, whose draws have shape (S, ...)."""
        keys, gammas = zip(*((stream.key, stream.gamma) for stream in streams), strict=True)
        return cls(
            torch.tensor(keys, device=device)[:, None], torch.tensor(gammas, device=device)[:, None]
        )

    def words(self, start: int, stop: int, device: torch.device | str) -> Tensor:
        """Words start, ..., stop - 1, as int64 of shape (stop - start,), or (S, stop - start)."""
        return self.at(torch.arange(start, stop, dtype=torch.int64, device=device))

    def at(self, numbers: Tensor) -> Tensor:
        """The words with these numbers, int64 of the same shape (for one stream)."""
        z = (numbers * self.gamma).add_(self.key)
        # `_mix`, on tensors. int64 shifts copy the sign bit; the masks make them unsigned shifts
        z = z.bitwise_xor_((z >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(_MIX_1))
        z = z.bitwise_xor_((z >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(_MIX_2))
        return z.bitwise_xor_((z >> 31).bitwise_and_((1 << 33) - 1))


Where = slice | Tensor
"""Which numbers of a stream: slice(start, stop), or a tensor of int64 numbers in any order."""


@lru_cache(maxsize=16)
def _sign_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Row b, of shape (8,): the bits of the byte b, lowest first, as -1 and +1; (256, 8)."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return (2 * bits - 1).to(dtype=dtype, device=device)


def signs(stream: Stream, where: Where, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Random signs, 64 per word: one bit per sign is why they cost so little."""
    if isinstance(where, Tensor):
        bits = (stream.at(where >> 6) >> (where & 63)) & 1
        return (2 * bits - 1).to(dtype)
    first = where.start // 64
    drawn = _signs_of(stream.words(first, -(-where.stop // 64), device), dtype)
    return drawn[..., where.start - 64 * first : where.stop - 64 * first]


def _signs_of(words: Tensor, dtype: torch.dtype) -> Tensor:
    """The bits of words (..., W) as signs (..., 64 W)."""
    octets = words.view(torch.uint8).int()  # (..., 8 W)
    table = _sign_table(dtype, words.device)  # (256, 8): one lookup instead of eight shifts
    return table.index_select(0, octets.view(-1)).view(*words.shape[:-1], -1)


@lru_cache(maxsize=16)
def _layout(
    shapes: tuple[torch.Size, ...], device: torch.device
) -> tuple[Tensor, Tensor, list[tuple[torch.Size, tuple[int, ...], int]]]:
    """Where the signs of several tensors lie, each tensor's from the first bit of a word.

    Returns the stream of each word, (W,), its number in it, (W,), and for each tensor its shape,
    strides and first sign.
    """
    counts = [-(-shape.numel() // 64) for shape in shapes]
    owner = torch.repeat_interleave(torch.tensor(counts, device=device))  # (W,)
    starts = [0, *accumulate(counts)][:-1]
    numbers = torch.arange(len(owner), device=device)
    numbers -= torch.tensor(starts, device=device)[owner]
    strides = [torch.empty(shape, device="meta").stride() for shape in shapes]
    views = [(shape, s, 64 * k) for shape, s, k in zip(shapes, strides, starts, strict=True)]
    return owner, numbers, views


def signs_of_each(
    states: list[list[int]],
    shapes: tuple[torch.Size, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """The first signs of each stream, as a tensor of each shape, from one pass over all words.

    Equal to :func:`signs` of each of the streams with these :meth:`Stream.states`. On a small model
    it costs for all as much as that for one.
    """
    owner, numbers, views = _layout(shapes, device)
    keys, gammas = torch.tensor(states, device=device).index_select(1, owner).unbind()  # (W,) each
    drawn = _signs_of(Stream(keys, gammas).at(numbers), dtype)  # (64 W,)
    return tuple([drawn.as_strided(*view) for view in views])


def _halves(stream: Stream, where: Where, device: torch.device) -> tuple[Tensor, Tensor]:
    """The low and the high 32 bits of the words that hold numbers ``where``, two per word."""
    if isinstance(where, Tensor):
        words = stream.at(where >> 1)
    else:
        words = stream.words(where.start // 2, -(-where.stop // 2), device)
    return words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF


def _pick(even: Tensor, odd: Tensor, where: Where) -> Tensor:
    """The numbers ``where``, given the even and the odd number that each word yields."""
    if isinstance(where, Tensor):
        return torch.where((where & 1).bool(), odd, even)
    first = where.start % 2
    pairs = torch.stack((even, odd), dim=-1).flatten(-2)  # (..., W) each -> (..., 2 W)
    return pairs[..., first : first + where.stop - where.start]


def normals(stream: Stream, where: Where, device: torch.device) -> Tensor:
    """Standard normals by the transform of Box and Muller (1958), two per word, float64.

    Devices agree up to the rounding of log, sin and cos.
    """
    low, high = _halves(stream, where, device)
    # + 0.5 keeps the logarithm finite
    radius = high.double().add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = low.double().mul_(2.0**-32 * 2.0 * math.pi)
    return _pick(radius * angle.cos(), radius * angle.sin(), where)


def uniforms(stream: Stream, where: Where, device: torch.device) -> Tensor:
    """Uniform on [0, 1) with 32 bits, two per word, float64."""
    low, high = _halves(stream, where, device)
    return _pick(low, high, where).double().mul_(2.0**-32)
