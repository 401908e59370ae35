"""Which way to look: perturbation directions u as pure functions of five integers.

Entry j of direction p of parameter i at a step is a hash of (seed, step, p, i, j). Nothing is
stored and nothing is global: whoever perturbs, updates, resumes or replays asks again and gets the
same numbers, on any device, in any order, in any dtype. All families have mean 0 and E[u u^T] = I.

The hash is SplitMix64 (Steele, Lea and Flood, 2014): word n of a stream is mix(key + n * gamma),
where key and gamma, an odd number, are themselves mixed from (seed, step, p, i). Two streams never
run along the same sequence, because their gammas differ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from .checks import Parameters, at_least_float32, check_integer, check_real, trainable

CHUNK = 1 << 18
"""Entries drawn at a time: small enough for a cache, large enough to hide Python."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _mix(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def _signed(z: int) -> int:
    """The int64 with the bits of the unsigned 64-bit z: torch computes in int64 and wraps."""
    return z - (1 << 64) if z >> 63 else z


@dataclass(frozen=True)
class Stream:
    """An endless row of 64-bit words, any of which can be asked for by its number."""

    key: int
    gamma: int

    @classmethod
    def of(cls, *parts: int) -> Stream:
        """The stream that belongs to a tuple of integers, such as (seed, step, p, parameter)."""
        z = 0
        for part in parts:
            z = _mix((z + _GOLDEN) ^ _mix(part + _GOLDEN))
        return cls(_mix(z + _GOLDEN), _mix(z + 2 * _GOLDEN) | 1)

    def words(self, start: int, stop: int, device: torch.device | str) -> Tensor:
        """Words start, ..., stop - 1, as int64 of shape (stop - start,)."""
        z = torch.arange(start, stop, dtype=torch.int64, device=device)
        z = z.mul_(_signed(self.gamma)).add_(_signed(self.key))
        # int64 shifts copy the sign bit; the masks make them shifts of an unsigned number
        z = z.bitwise_xor_((z >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(_MIX_1))
        z = z.bitwise_xor_((z >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(_MIX_2))
        return z.bitwise_xor_((z >> 31).bitwise_and_((1 << 33) - 1))


@lru_cache(maxsize=16)
def _sign_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Row b, of shape (8,): the bits of the byte b, lowest first, as -1 and +1; (256, 8)."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return (2 * bits - 1).to(dtype=dtype, device=device)


def _signs(
    stream: Stream, start: int, stop: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    first = start // 64
    words = stream.words(first, -(-stop // 64), device)
    bytes_ = words.view(torch.uint8).int()
    signs = _sign_table(dtype, device).index_select(0, bytes_).view(-1)
    return signs[start - 64 * first : stop - 64 * first]


def _normals(stream: Stream, start: int, stop: int, device: torch.device) -> Tensor:
    """Standard normals by Box and Muller (1958), two from each word, float64."""
    first = start // 2
    words = stream.words(first, -(-stop // 2), device)
    radius = ((words >> 32) & 0xFFFFFFFF).double().add_(0.5).mul_(2.0**-32)
    radius = radius.log_().mul_(-2.0).sqrt_()
    angle = (words & 0xFFFFFFFF).double().mul_(2.0**-32 * 2.0 * math.pi)
    normals = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).view(-1)
    return normals[start - 2 * first : stop - 2 * first]


@dataclass(frozen=True)
class Direction:
    """One direction u_p of a family at a given (seed, step, p), over given parameters.

    It holds integers and shapes only; entries are computed when they are asked for. Made by
    :meth:`Directions.at`.
    """

    family: Directions
    shapes: tuple[torch.Size, ...]
    device: torch.device
    seed: int
    step: int
    p: int
    scale: float = 1.0
    kept: dict[tuple[int, int, int, torch.dtype], Tensor] | None = field(
        default=None, compare=False, repr=False
    )
    """Entries already asked for; None to compute them each time. See :func:`draw`."""

    def entries(self, i: int, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Entries start, ..., stop - 1 of parameter i's part of u, row-major; read only."""
        key = (i, start, stop, dtype)
        if self.kept is not None and key in self.kept:
            return self.kept[key]
        u = self.family._entries(self, i, start, stop, at_least_float32(dtype))
        u = (u if self.scale == 1.0 else u * self.scale).to(dtype)
        if self.kept is not None:
            self.kept[key] = u
        return u

    def tensor(self, i: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Parameter i's part of u, in that parameter's shape."""
        u = torch.empty(self.shapes[i].numel(), dtype=dtype, device=self.device)
        for start, stop in chunks(u.numel()):
            u[start:stop] = self.entries(i, start, stop, dtype)
        return u.view(self.shapes[i])

    def perturbed(self, i: int, theta: Tensor, c: float) -> Tensor:
        """A new tensor theta + c u for parameter i, rounded once to theta's dtype.

        Extra memory: the result, and a chunk.
        """
        flat = theta.detach().reshape(-1)
        out = torch.empty_like(flat)
        exact = at_least_float32(theta.dtype)
        for start, stop in chunks(flat.numel()):
            u = self.entries(i, start, stop, exact)
            if exact == theta.dtype:
                torch.add(flat[start:stop], u, alpha=c, out=out[start:stop])
            else:
                out[start:stop] = flat[start:stop].to(exact).add_(u, alpha=c)
        return out.view(theta.shape)


def chunks(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) pairs that cover range(count), each at most :data:`CHUNK` long."""
    for start in range(0, count, CHUNK):
        yield start, min(start + CHUNK, count)


def draw(
    family: Directions, tensors: Sequence[Tensor], *, P: int, seed: int, step: int
) -> list[Direction]:
    """The P directions of one step, each of which is read three times: at +eps, -eps, the update.

    Where all their entries fit one chunk together, they are computed once and kept as long as the
    list is: a small model's step is mostly the overhead of hashing. Larger ones are computed anew.
    """
    first = family.at(tensors, seed=seed, step=step, p=0)
    few = P * sum(shape.numel() for shape in first.shapes) <= CHUNK
    drawn = [first, *(family.at(tensors, seed=seed, step=step, p=p) for p in range(1, P))]
    return [replace(direction, kept={}) for direction in drawn] if few else drawn


def weighted_sum(
    directions: Sequence[Direction],
    weights: Sequence[float],
    i: int,
    start: int,
    stop: int,
    dtype: torch.dtype,
) -> Tensor:
    """Entries start, ..., stop - 1 of sum_p weights[p] u_p for parameter i, in float32 at least.

    The one place where directions become an update: estimators and optimizers both call it.
    """
    exact = at_least_float32(dtype)
    total = torch.zeros(stop - start, dtype=exact, device=directions[0].device)
    for direction, weight in zip(directions, weights, strict=True):
        total.add_(direction.entries(i, start, stop, exact), alpha=weight)
    return total


class Directions(ABC):
    """A family of random directions with mean 0 and E[u u^T] = I.

    Subclasses: :class:`Rademacher` (the default), :class:`Gaussian`, :class:`Sphere`,
    :class:`Sparse`.
    """

    @property
    @abstractmethod
    def kurtosis(self) -> float:
        """E[u_i^4], kappa, the fourth moment of one entry; every exact law depends on it."""

    @abstractmethod
    def _entries(
        self, direction: Direction, i: int, start: int, stop: int, dtype: torch.dtype
    ) -> Tensor:
        """Entries start, ..., stop - 1 for parameter i, before ``direction.scale``."""

    def at(self, params: Parameters, *, seed: int, step: int, p: int = 0) -> Direction:
        """The direction u_p at (seed, step), over the trainable parameters of ``params``.

        Args:
            params: a model, or its parameters, with or without names.
            seed: 0 <= seed < 2^64.
            step: which optimizer step, at least 0.
            p: which of the step's perturbations, at least 0. It does not depend on how many
                there are.

        Raises:
            TypeError, ValueError: for integers out of range or nothing trainable.
        """
        tensors = trainable(params)
        seed = check_integer("seed", seed, low=0, high=1 << 64)
        step = check_integer("step", step, low=0, high=1 << 63)
        p = check_integer("p", p, low=0, high=1 << 63)
        shapes = tuple(t.shape for t in tensors)
        return self._scaled(Direction(self, shapes, tensors[0].device, seed, step, p))

    def _scaled(self, direction: Direction) -> Direction:
        return direction

    def dense(self, params: Parameters, *, P: int, seed: int, step: int, first: int = 0) -> Tensor:
        """The directions u_first, ..., u_(first + P - 1) as columns, unscaled.

        U = dense(...) / sqrt(P) is the random projection of the kernel, with E[U U^T] = I. These
        are the very numbers that :func:`~zotutor.estimate_gradient` and :class:`~zotutor.ZOSGD`
        use at the same seed and step. It holds d * P numbers: for small models only.

        Args:
            params: a model, or its parameters, with or without names.
            P: how many directions, at least 1.
            seed: 0 <= seed < 2^64.
            step: which optimizer step, at least 0.
            first: number of the first direction.

        Returns:
            Shape (d, P), float64 if any parameter is, else float32.

        Example:
            >>> u = Rademacher().dense([torch.zeros(3, requires_grad=True)], P=4, seed=0, step=0)
            >>> u.shape, sorted(set(u.flatten().tolist()))
            (torch.Size([3, 4]), [-1.0, 1.0])
        """
        check_integer("P", P, low=1)
        tensors = trainable(params)
        dtype = torch.float32
        for tensor in tensors:
            dtype = torch.promote_types(dtype, tensor.dtype)
        d = sum(t.numel() for t in tensors)
        columns = torch.empty(P, d, dtype=dtype, device=tensors[0].device)
        for row in range(P):
            direction = self.at(tensors, seed=seed, step=step, p=first + row)
            offset = 0
            for i, tensor in enumerate(tensors):
                for start, stop in chunks(tensor.numel()):
                    u = direction.entries(i, start, stop, dtype)
                    columns[row, offset + start : offset + stop] = u
                offset += tensor.numel()
        return columns.T


@dataclass(frozen=True)
class Rademacher(Directions):
    """Independent random signs: P(u_i = 1) = P(u_i = -1) = 1/2. The default.

    kappa = E[u_i^4] = 1, the smallest possible, so that by the exact law no i.i.d. family gives a
    smaller error. One hashed bit an entry, some 0.3 ns on a CPU against 5 ns for a normal; and
    since +-c is exact in floating point, theta + c u is one rounding, the same on every device.

    Reference: Hutchinson (1990), for signs against normals.

    Example:
        >>> Rademacher().kurtosis
        1.0
    """

    @property
    def kurtosis(self) -> float:
        """1: the square of a sign is always 1."""
        return 1.0

    def _entries(
        self, direction: Direction, i: int, start: int, stop: int, dtype: torch.dtype
    ) -> Tensor:
        stream = Stream.of(direction.seed, direction.step, direction.p, i)
        return _signs(stream, start, stop, dtype, direction.device)


@dataclass(frozen=True)
class Gaussian(Directions):
    """Independent standard normals: u_i ~ N(0, 1).

    kappa = E[u_i^4] = 3. The family of MeZO and of most proofs; use it to compare with them.
    Computed in float64 by Box and Muller and rounded once, so that two devices agree up to the
    rounding of log, sin and cos. |u_i| is at most 6.8, since 32 bits make the radius.

    Example:
        >>> Gaussian().kurtosis
        3.0
    """

    @property
    def kurtosis(self) -> float:
        """3: the fourth moment of a standard normal."""
        return 3.0

    def _entries(
        self, direction: Direction, i: int, start: int, stop: int, dtype: torch.dtype
    ) -> Tensor:
        stream = Stream.of(direction.seed, direction.step, direction.p, i)
        return _normals(stream, start, stop, direction.device).to(dtype)


@dataclass(frozen=True)
class Sphere(Directions):
    """Uniform on the sphere of radius sqrt(d): u = sqrt(d) n / |n|, n standard normal.

    |u|^2 = d exactly; E[u u^T] = I. The entries are not independent, and the length takes one more
    pass over all parameters, so that this family costs twice a Gaussian. The family of the
    one-point bandit literature (Flaxman, Kalai and McMahan, 2005).

    Example:
        >>> u = Sphere().dense([torch.zeros(100, requires_grad=True)], P=1, seed=0, step=0)
        >>> round(float(u.square().sum()), 3)
        100.0
    """

    @property
    def kurtosis(self) -> float:
        """3, the limit for many parameters; exactly 3 d / (d + 2). Not i.i.d.: has its own laws."""
        return 3.0

    def _scaled(self, direction: Direction) -> Direction:
        squares = 0.0
        for i, shape in enumerate(direction.shapes):
            for start, stop in chunks(shape.numel()):
                u = self._entries(direction, i, start, stop, torch.float64)
                squares += float(u.square().sum())
        d = sum(shape.numel() for shape in direction.shapes)
        return replace(direction, scale=math.sqrt(d / squares))

    def _entries(
        self, direction: Direction, i: int, start: int, stop: int, dtype: torch.dtype
    ) -> Tensor:
        return Gaussian()._entries(direction, i, start, stop, dtype)


@dataclass(frozen=True)
class Sparse(Directions):
    """Sparse normals: u_i = m_i n_i / sqrt(density), m_i ~ Bernoulli(density), n_i ~ N(0, 1).

    kappa = E[u_i^4] = 3 / density: the sparser, the noisier, at the same P. ``Sparse(1.0)`` draws
    exactly what :class:`Gaussian` draws.

    Args:
        density: the expected share of entries that are not 0, in (0, 1].

    Raises:
        ValueError: for a density outside (0, 1].

    Example:
        >>> Sparse(0.1).kurtosis
        30.0
    """

    density: float

    def __post_init__(self) -> None:
        check_real("density", self.density, low=0.0, open_low=True)
        if self.density > 1.0:
            raise ValueError(f"density: given {self.density}, expected at most 1; 1 is Gaussian")

    @property
    def kurtosis(self) -> float:
        """3 / density."""
        return 3.0 / self.density

    def _entries(
        self, direction: Direction, i: int, start: int, stop: int, dtype: torch.dtype
    ) -> Tensor:
        stream = Stream.of(direction.seed, direction.step, direction.p, i)
        normals = _normals(stream, start, stop, direction.device)
        masks = Stream.of(direction.seed, direction.step, direction.p, i, 1)
        words = masks.words(start // 2, -(-stop // 2), direction.device)
        halves = torch.stack((words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF), dim=-1).view(-1)
        kept = halves[start % 2 :][: stop - start] < round(self.density * 2.0**32)
        return (normals * kept / math.sqrt(self.density)).to(dtype)
