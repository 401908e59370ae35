"""The package's random directions once more, in plain Python integers and floats.

Written from the descriptions in ``zotutor.streams`` and ``zotutor.directions`` without calling
them: slow, one entry at a time, and obviously the same on every platform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

Entry = Callable[[int, int, int, int, int], float]
"""One entry of a direction: (seed, step, p, parameter, element) to its value."""


def mix(z: int) -> int:
    """The finalizer of SplitMix64 on 64-bit unsigned integers."""
    z &= MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def word(name: Sequence[int], n: int) -> int:
    """Word n of the stream with this name: mix(key + n gamma)."""
    z = 0
    for part in name:
        z = mix((z + GOLDEN) ^ mix(part + GOLDEN))
    key, gamma = mix(z + GOLDEN), mix(z + 2 * GOLDEN) | 1
    return mix(key + n * gamma)


def sign(name: Sequence[int], j: int) -> float:
    """Bit j mod 64 of word j // 64, as -1 or +1."""
    return 2.0 * ((word(name, j // 64) >> (j % 64)) & 1) - 1.0


def normal(name: Sequence[int], j: int) -> float:
    """Box and Muller: cosine and sine of the low half of a word, radius from its high half."""
    w = word(name, j // 2)
    radius = math.sqrt(-2.0 * math.log(((w >> 32) + 0.5) * 2.0**-32))
    angle = 2.0 * math.pi * (w & 0xFFFFFFFF) * 2.0**-32
    return radius * (math.sin(angle) if j % 2 else math.cos(angle))


def uniform(name: Sequence[int], j: int) -> float:
    """The low half of a word for even j, the high half for odd j, over 2^32."""
    return ((word(name, j // 2) >> (32 * (j % 2))) & 0xFFFFFFFF) * 2.0**-32


def rademacher(seed: int, step: int, p: int, i: int, j: int) -> float:
    return sign((seed, step, p, i), j)


def symmetric_uniform(seed: int, step: int, p: int, i: int, j: int) -> float:
    """The middle of one of 2^32 equal intervals of (-sqrt(3), sqrt(3))."""
    return (2.0 * uniform((seed, step, p, i), j) - 1.0 + 2.0**-32) * math.sqrt(3.0)


def gaussian(seed: int, step: int, p: int, i: int, j: int) -> float:
    return normal((seed, step, p, i), j)


def sparse(density: float) -> Entry:
    def entry(seed: int, step: int, p: int, i: int, j: int) -> float:
        if uniform((seed, step, p, i, 1), j) >= density:
            return 0.0
        return normal((seed, step, p, i), j) / math.sqrt(density)

    return entry


def direction(
    entry: Entry, shapes: Sequence[Sequence[int]], *, seed: int, step: int, p: int
) -> list[list[float]]:
    """All entries of a direction, one list for each parameter, in row-major order."""
    return [
        [entry(seed, step, p, i, j) for j in range(math.prod(shape))]
        for i, shape in enumerate(shapes)
    ]


def sphere(shapes: Sequence[Sequence[int]], *, seed: int, step: int, p: int) -> list[list[float]]:
    """The Gaussian direction, stretched to length sqrt(d)."""
    u = direction(gaussian, shapes, seed=seed, step=step, p=p)
    d = sum(map(len, u))
    scale = math.sqrt(d / math.fsum(x * x for part in u for x in part))
    return [[x * scale for x in part] for part in u]


def low_rank(
    rank: int, shapes: Sequence[Sequence[int]], *, seed: int, step: int, p: int
) -> list[list[float]]:
    """sum_k a_k b_k^T / sqrt(rank) for matrices, Gaussian for what has less than two dimensions."""
    u = []
    for i, shape in enumerate(shapes):
        name = (seed, step, p, i)
        if len(shape) < 2:
            u.append([normal(name, j) for j in range(math.prod(shape))])
            continue
        m, n = shape[0], math.prod(shape[1:])
        a = [[normal(name, row * rank + k) for k in range(rank)] for row in range(m)]
        b = [[normal((*name, 1), column * rank + k) for k in range(rank)] for column in range(n)]
        u.append(
            [
                sum(x * y for x, y in zip(a[row], b[column], strict=True)) / math.sqrt(rank)
                for row in range(m)
                for column in range(n)
            ]
        )
    return u
