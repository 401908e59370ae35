"""Perturbation directions u as pure functions of five integers.

Entry j of direction p of parameter i at a step is a hash of (seed, step, p, i, j). Nothing is
stored and nothing is global: perturbing, updating, resuming and replaying all compute the same
numbers, on any device, in any order, in any dtype. A generator's state, as in MeZO, would depend on
the order in which parameters are visited. All families have mean 0 and E[u u^T] = I.

The hash is in :mod:`zotutor.streams`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .checks import check_integer, check_real
from .parameters import Parameters, ParametersLike, at_least_float32, matrix_shape, resolve
from .streams import Stream, Where, normals, signs, signs_of_each, uniforms

CHUNK = 1 << 18
"""Entries drawn at a time: few enough for the cache, enough to hide Python's overhead."""

CACHED = 1 << 22
"""Up to this many numbers are cached for a step: the entries of a small model's directions, or the
factors of LowRank ones."""

_UNSCALED = 1.0  # recognized by identity, to skip a multiplication by 1


@dataclass(frozen=True)
class Direction:
    """One direction u_p of a family at a given (seed, step, p), over given parameters.

    It holds integers and shapes; entries are computed when they are read, unless :func:`draw` has
    computed them all, as for small models. Made by :meth:`Directions.at`. With a range for p it
    represents several directions, and entries get a leading dimension for them.
    """

    family: Directions
    shapes: tuple[torch.Size, ...]
    devices: tuple[torch.device, ...]
    """Where each parameter is, and its part of u is drawn."""
    seed: int
    step: int
    p: int | range
    scale: float | Tensor = _UNSCALED
    parts: tuple[Tensor, ...] | None = field(default=None, compare=False, repr=False)
    """All entries, in the parameters' shapes, for a small model; see :func:`draw`."""
    factor_cache: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )
    """LowRank factors already computed: of all matrices, or of the last one read."""
    caches_all_factors: bool = field(default=False, compare=False, repr=False)

    def stream(self, i: int, *purpose: int) -> Stream:
        """The random words of parameter i; independent ones for each ``purpose``."""
        if isinstance(self.p, int):
            return Stream.of(self.seed, self.step, self.p, i, *purpose)
        streams = [Stream.of(self.seed, self.step, p, i, *purpose) for p in self.p]
        return Stream.stack(streams, self.devices[i])

    def entries(self, i: int, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Entries start, ..., stop - 1 of parameter i's part of u, row-major; read only."""
        if self.parts is not None and self.parts[i].dtype == dtype:
            return self.parts[i].view(-1)[start:stop]
        u = self.family._entries(self, i, slice(start, stop), at_least_float32(dtype))
        return (u if self.scale is _UNSCALED else u * self._scale_on(u.device)).to(dtype)

    def _scale_on(self, device: torch.device) -> float | Tensor:
        return self.scale.to(device) if isinstance(self.scale, Tensor) else self.scale

    def rows(self, i: int, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the matrix parameter i, by number: (..., n) for numbers (...)."""
        n = self.shapes[i][1:].numel()
        where = numbers.long()[..., None] * n + torch.arange(n, device=numbers.device)  # (..., n)
        u = self.family._entries(self, i, where, at_least_float32(dtype))
        return (u if self.scale is _UNSCALED else u * self._scale_on(u.device)).to(dtype)

    def tensor(self, i: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Parameter i's part of u, in that parameter's shape."""
        u = torch.empty(self.shapes[i].numel(), dtype=dtype, device=self.devices[i])
        for start, stop in chunks(u.numel(), u.device):
            u[start:stop] = self.entries(i, start, stop, dtype)
        return u.view(self.shapes[i])

    def perturbed(
        self,
        i: int,
        theta: Tensor,
        c: float,
        start: int = 0,
        stop: int | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """A new tensor theta + c u for parameter i, rounded once to theta's dtype.

        Strided as theta is. With ``start`` and ``stop`` it is only these entries, flat, written to
        ``out`` if that is given. Extra memory: the result and one chunk; twice the result for a
        theta that is not contiguous.
        """
        whole = start == 0 and stop is None
        flat = theta.detach().reshape(-1)[start:stop]
        out = torch.empty_like(flat) if out is None else out
        exact = at_least_float32(theta.dtype)
        for low, high in chunks(flat.numel(), theta.device):
            u = self.entries(i, start + low, start + high, exact)
            if exact == theta.dtype:
                torch.add(flat[low:high], u, alpha=c, out=out[low:high])
            else:  # c u must not be rounded to half precision before it is added
                out[low:high] = flat[low:high].to(exact).add_(u, alpha=c)
        if not whole:
            return out
        out = out.view(theta.shape)
        return out if theta.is_contiguous() else torch.empty_like(theta).copy_(out)

    def all_perturbed(self, thetas: Sequence[Tensor], c: float) -> Sequence[Tensor]:
        """:meth:`perturbed` for all parameters of a small model, in one call; the same bits.

        Called without gradients.
        """
        if self.parts is not None and self.parts_fit(thetas):
            return torch._foreach_add(list(thetas), self.parts, alpha=c)
        return [self.perturbed(i, theta, c) for i, theta in enumerate(thetas)]

    def parts_fit(self, thetas: Sequence[Tensor]) -> bool:
        """Whether ``parts`` can be added to the parameters as they are: dtypes and layouts."""
        return self.parts is not None and all(
            u.dtype is theta.dtype and theta.is_contiguous()
            for u, theta in zip(self.parts, thetas, strict=True)
        )


def chunks(count: int, device: torch.device | None = None) -> Iterator[tuple[int, int]]:
    """(start, stop) pairs that cover range(count), each at most :data:`CHUNK` long.

    On a GPU, where a launch costs more than a cache miss, 64 times that.
    """
    length = CHUNK << 6 if device is not None and device.type == "cuda" else CHUNK
    for start in range(0, count, length):
        yield start, min(start + length, count)


def draw(
    family: Directions, params: ParametersLike, *, P: int, seed: int, step: int
) -> list[Direction]:
    """The P directions of one step, each of which is read three times: at +eps, -eps, the update.

    In a small model's step, most of the time is the overhead of hashing: where the entries of one
    direction fit in one chunk, and those of all P are at most :data:`CACHED`, they are computed
    once and live as long as the list. In larger models, entries are computed at each read, and the
    factors of LowRank directions are cached up to the same number.
    """
    params = resolve(params)
    drawn = [family._at(params, seed, step, p) for p in range(P)]
    # LowRank's factors are cheaper than its entries, and are cached below
    limit = CHUNK if isinstance(family, LowRank) else CACHED
    if params.d <= CHUNK and P * params.d <= limit:
        dtypes = [at_least_float32(dtype) for dtype in params.dtypes]
        return [replace(one, parts=family._parts(one, dtypes)) for one in drawn]
    if not isinstance(family, LowRank):
        return drawn
    size = P * family.rank * sum(sum(shape) for shape in params.matrices if shape)  # (m + n) r each
    return [replace(one, caches_all_factors=size <= CACHED) for one in drawn]


def weighted_sum(
    directions: Sequence[Direction],
    weights: Sequence[float],
    i: int,
    start: int,
    stop: int,
    dtype: torch.dtype,
) -> Tensor:
    """Entries start, ..., stop - 1 of sum_p weights[p] u_p for parameter i, in float32 at least.

    Estimators and optimizers both call it, so that an estimate and an update agree to the bit.
    """
    exact = at_least_float32(dtype)
    total = directions[0].entries(i, start, stop, exact) * weights[0]
    for direction, weight in zip(directions[1:], weights[1:], strict=True):
        total.add_(direction.entries(i, start, stop, exact), alpha=weight)
    return total


def weighted_sums(directions: Sequence[Direction], weights: Sequence[float]) -> Sequence[Tensor]:
    """:func:`weighted_sum` for all parameters of a small model; the same bits."""
    first, *others = [direction.parts or () for direction in directions]
    total = torch._foreach_mul(first, weights[0])
    for parts, weight in zip(others, weights[1:], strict=True):
        torch._foreach_add_(total, parts, alpha=weight)
    return total


class Directions(ABC):
    """A family of random directions with mean 0 and E[u u^T] = I.

    Subclasses: :class:`Rademacher` (the default), :class:`Gaussian`, :class:`Uniform`,
    :class:`Sphere`, :class:`Sparse`, :class:`LowRank`.
    """

    @property
    @abstractmethod
    def kurtosis(self) -> float:
        """E[u_i^4], kappa, the fourth moment of one entry; every exact law depends on it."""

    @abstractmethod
    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        """The entries ``where`` of parameter i, not yet multiplied by ``direction.scale``."""

    def at(self, params: ParametersLike, *, seed: int, step: int, p: int = 0) -> Direction:
        """The direction u_p at (seed, step), over the trainable parameters of ``params``.

        Args:
            params: a model, or its parameters, with or without names.
            seed: 0 <= seed < 2^64.
            step: which optimizer step, at least 0.
            p: which of the step's perturbations, at least 0. u_p is the same for every P.

        Raises:
            TypeError, ValueError: for integers out of range or nothing trainable.
        """
        found = resolve(params)
        seed = check_integer("seed", seed, low=0, high=1 << 64)
        step = check_integer("step", step, low=0, high=1 << 63)
        p = check_integer("p", p, low=0, high=1 << 63)
        return self._at(found, seed, step, p)

    def _at(self, params: Parameters, seed: int, step: int, p: int) -> Direction:
        return self._scaled(Direction(self, params.shapes, params.devices, seed, step, p))

    def _parts(self, one: Direction, dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
        """All entries of a direction, one tensor per parameter, of its shape."""
        return tuple(
            one.entries(i, 0, shape.numel(), dtype).view(shape)
            for i, (shape, dtype) in enumerate(zip(one.shapes, dtypes, strict=True))
        )

    def _scaled(self, direction: Direction) -> Direction:
        return direction

    def dense(
        self, params: ParametersLike, *, P: int, seed: int, step: int, first: int = 0
    ) -> Tensor:
        """The directions u_first, ..., u_(first + P - 1) as columns, unscaled.

        U = dense(...) / sqrt(P) is the matrix of the ZO eNTK J_o U U^T J_u^T, with E[U U^T] = I.
        Its columns are the very directions that :func:`~zotutor.estimate_gradient` and
        :class:`~zotutor.ZOSGD` use at the same seed and step. It holds d P numbers: for small
        models only.

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
        found = resolve(params)
        one = self.at(found, seed=seed, step=step, p=first)
        columns = torch.empty(P, found.d, dtype=found.dtype, device=found.device)
        size = max(1, CHUNK // found.d)  # directions per pass: one call hashes them all
        for low in range(0, P, size):
            high = min(low + size, P)
            several = self._scaled(replace(one, p=range(first + low, first + high)))
            for i, tensor, offset, _ in found:
                for start, stop in chunks(tensor.numel(), tensor.device):
                    u = several.entries(i, start, stop, found.dtype)  # (high - low, stop - start)
                    columns[low:high, offset + start : offset + stop] = u
        return columns.T  # (d, P)


def check_draw(
    directions: Directions | None, *, P: int, seed: int, step: int, at_least: int = 1
) -> Directions:
    """The family given, or Rademacher for None, after checking every argument of a draw.

    Raises:
        TypeError, ValueError: for anything but a family, or for integers out of range.
    """
    check_integer("P", P, low=at_least)
    check_integer("seed", seed, low=0, high=1 << 64)
    check_integer("step", step, low=0, high=1 << 63)
    return check_family(directions)


def check_family(directions: Directions | None) -> Directions:
    """The family given, or Rademacher for None; a TypeError for anything else."""
    if directions is None:
        return Rademacher()
    if not isinstance(directions, Directions):
        given = repr(directions)
        if isinstance(directions, type):
            given = f"the class {directions.__name__}"
        raise TypeError(
            f"directions: given {given}, expected a family such as Rademacher() or Gaussian(); "
            "construct one"
        )
    return directions


@dataclass(frozen=True)
class Rademacher(Directions):
    """Independent random signs: P(u_i = 1) = P(u_i = -1) = 1/2. The default.

    kappa = E[u_i^4] = 1, the smallest possible, so that by the exact law no i.i.d. family gives a
    smaller error. It takes one hashed bit per entry, about 0.3 ns on a CPU against 5 ns for a
    normal; and since +-c is exact in floating point, theta + c u is rounded once, to the same
    number on every device.

    Reference: Hutchinson (1990), for signs against normals.

    Example:
        >>> Rademacher().kurtosis
        1.0
    """

    @property
    def kurtosis(self) -> float:
        """1: the square of a sign is always 1."""
        return 1.0

    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        return signs(direction.stream(i), where, dtype, direction.devices[i])

    def _parts(self, one: Direction, dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
        # one pass over all parameters if dtypes allow it: most of the cost is Python's overhead
        if len({*dtypes}) > 1 or len({*one.devices}) > 1 or not isinstance(one.p, int):
            return super()._parts(one, dtypes)
        states = Stream.states(one.seed, one.step, one.p, count=len(dtypes))
        return signs_of_each(states, one.shapes, dtypes[0], one.devices[0])


@dataclass(frozen=True)
class Gaussian(Directions):
    """Independent standard normals: u_i ~ N(0, 1).

    kappa = E[u_i^4] = 3. The family of MeZO and of most proofs; use it to compare with them.
    Computed in float64 by the Box-Muller transform and rounded once, so that two devices agree up
    to the rounding of log, sin and cos. |u_i| is at most 6.8, since the radius comes from 32 bits.

    Example:
        >>> Gaussian().kurtosis
        3.0
    """

    @property
    def kurtosis(self) -> float:
        """3: the fourth moment of a standard normal."""
        return 3.0

    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        return normals(direction.stream(i), where, direction.devices[i]).to(dtype)


@dataclass(frozen=True)
class Uniform(Directions):
    """Independent entries, uniform on (-sqrt(3), sqrt(3)).

    kappa = E[u_i^4] = 9/5: by the exact law between Rademacher and Gaussian. The third family of
    the paper's study; it has no advantage over :class:`Rademacher`. An entry is an odd integer
    below 2^32 in size, times sqrt(3) / 2^32 in float64, rounded once: the same on every device.

    References:
        Li et al. (2026).

    Example:
        >>> u = Uniform().dense([torch.zeros(1000, requires_grad=True)], P=1, seed=0, step=0)
        >>> bool(u.abs().max() <= 3**0.5), round(float(u.square().mean()), 1)
        (True, 1.0)
    """

    @property
    def kurtosis(self) -> float:
        """9/5: E[u^4] / E[u^2]^2 of a uniform number of mean 0."""
        return 9.0 / 5.0

    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        v = uniforms(direction.stream(i), where, direction.devices[i])  # n / 2^32
        # (2 n + 1 - 2^32) / 2^32 needs 33 bits, so that only the last product is rounded
        return v.mul_(2.0).sub_(1.0 - 2.0**-32).mul_(math.sqrt(3.0)).to(dtype)


@dataclass(frozen=True)
class Sphere(Directions):
    """Uniform on the sphere of radius sqrt(d): u = sqrt(d) n / |n|, n standard normal.

    |u|^2 = d exactly; E[u u^T] = I. The entries are not independent, and the length takes one more
    pass over all parameters, so that this family costs twice as much as Gaussian. It is the family
    of the one-point bandit literature (Flaxman, Kalai and McMahan, 2005).

    Example:
        >>> u = Sphere().dense([torch.zeros(100, requires_grad=True)], P=1, seed=0, step=0)
        >>> round(float(u.square().sum()), 3)
        100.0
    """

    @property
    def kurtosis(self) -> float:
        """3, the limit of 3 d / (d + 2) for large d. Not i.i.d.: the laws treat it separately."""
        return 3.0

    def _scaled(self, direction: Direction) -> Direction:
        squares: Tensor | float = 0.0  # |n|^2, a first pass over all entries; none is stored
        for i, shape in enumerate(direction.shapes):
            for start, stop in chunks(shape.numel(), direction.devices[i]):
                u = self._entries(direction, i, slice(start, stop), torch.float64)
                squares = squares + u.square().sum(-1, keepdim=True).to(direction.devices[0])
        d = sum(shape.numel() for shape in direction.shapes)
        return replace(direction, scale=(d / torch.as_tensor(squares)).sqrt())

    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        return Gaussian()._entries(direction, i, where, dtype)


@dataclass(frozen=True)
class Sparse(Directions):
    """Sparse normals: u_i = m_i n_i / sqrt(density), m_i ~ Bernoulli(density), n_i ~ N(0, 1).

    kappa = E[u_i^4] = 3 / density: the sparser, the noisier, at the same P. ``Sparse(1.0)`` draws
    exactly what :class:`Gaussian` draws.

    Args:
        density: the expected fraction of nonzero entries, from 1e-6 (32 bits decide for each entry
            whether it is zero) to 1.

    Raises:
        ValueError: for a density outside [1e-6, 1].

    Example:
        >>> Sparse(0.1).kurtosis
        30.0
    """

    density: float

    def __post_init__(self) -> None:
        check_real("density", self.density, low=1e-6)
        if self.density > 1.0:
            raise ValueError(f"density: given {self.density}, expected at most 1; 1 is Gaussian")

    @property
    def kurtosis(self) -> float:
        """3 / density."""
        return 3.0 / self.density

    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        n = normals(direction.stream(i), where, direction.devices[i])
        mask = uniforms(direction.stream(i, 1), where, direction.devices[i]) < self.density
        return (n * mask / math.sqrt(self.density)).to(dtype)


@dataclass(frozen=True)
class LowRank(Directions):
    """Rank-r directions: u = vec(sum_k a_k b_k^T) / sqrt(r) for a matrix, a_k and b_k normal.

    For each matrix-shaped parameter u is a product A B^T of factors of r columns, so that a probe
    can add (x B) A^T to the product x W^T without forming the matrix. Vectors and scalars get
    :class:`Gaussian` entries. The entries of one matrix are not independent, so the law has terms
    of its own, which vanish as 1/r.

    Args:
        rank: r, at least 1.

    Raises:
        TypeError, ValueError: for a rank that is not an int of at least 1.

    References:
        Chen et al. (2025), LOZO; Sarkar et al. (2025), EGGROLL.

    Example:
        >>> w = torch.zeros(20, 30, requires_grad=True)
        >>> u = LowRank(2).dense([w], P=1, seed=0, step=0).view(20, 30)
        >>> int(torch.linalg.matrix_rank(u))
        2
    """

    rank: int

    def __post_init__(self) -> None:
        check_integer("rank", self.rank, low=1, high=1 << 31)

    @property
    def kurtosis(self) -> float:
        """3 + 6 / r for an entry of a matrix; the entries are not independent."""
        return 3.0 + 6.0 / self.rank

    def factors(
        self, direction: Direction, i: int, dtype: torch.dtype, rows: slice | None = None
    ) -> tuple[Tensor, Tensor]:
        """A (m, r) and B (n, r) with u = A B^T for matrix parameter i; only ``rows`` of A.

        Read only: they stay in ``direction.factor_cache`` for the next block of the matrix, or, if
        ``direction.caches_all_factors``, for the next probe and the update.
        """
        cache = direction.factor_cache
        if (i, dtype) not in cache:
            m, n = matrix_shape(direction.shapes[i]) or (0, 0)
            r = self.rank
            A = normals(direction.stream(i), slice(0, m * r), direction.devices[i])
            B = normals(direction.stream(i, 1), slice(0, n * r), direction.devices[i])
            A, B = A.unflatten(-1, (-1, r)), B.unflatten(-1, (-1, r))  # (..., m, r), (..., n, r)
            if not direction.caches_all_factors:
                cache.clear()
            cache[i, dtype] = (A / math.sqrt(r)).to(dtype), B.to(dtype)
        A, B = cache[i, dtype]
        return (A if rows is None else A[..., rows, :]), B

    def _entries(self, direction: Direction, i: int, where: Where, dtype: torch.dtype) -> Tensor:
        shape = matrix_shape(direction.shapes[i])
        if shape is None:
            return Gaussian()._entries(direction, i, where, dtype)
        n = shape[1]
        if isinstance(where, Tensor):
            A, B = self.factors(direction, i, dtype)
            return _sum_of_products(A[..., where // n, :], B[..., where % n, :])
        # entries start, ..., stop - 1 lie in rows first, ..., last - 1
        first, last = where.start // n, -(-where.stop // n)
        A, B = self.factors(direction, i, dtype, slice(first, last))
        block = _sum_of_products(A[..., :, None, :], B[..., None, :, :])  # (..., last - first, n)
        return block.flatten(-2)[..., where.start - first * n : where.stop - first * n]


def _sum_of_products(A: Tensor, B: Tensor) -> Tensor:
    """sum_k A[..., k] B[..., k], added term by term.

    A matmul would be faster, but its rounding depends on which slice of the matrix is computed.
    """
    total = A[..., 0] * B[..., 0]
    for k in range(1, A.shape[-1]):
        total += A[..., k] * B[..., k]
    return total


INDEPENDENT = (Rademacher, Gaussian, Uniform, Sparse)
"""The families with independent entries, whose laws depend on the family by kappa alone."""

_BY_NAME: dict[str, type[Directions]] = {
    "rademacher": Rademacher,
    "gaussian": Gaussian,
    "uniform": Uniform,
    "sphere": Sphere,
}


def from_name(text: str) -> Directions:
    """The family with this name: rademacher, gaussian, uniform, sphere, sparse:0.1 or lowrank:4.

    Raises:
        ValueError: for another name, or a parameter that is not a number in its range.

    >>> from_name("lowrank:4")
    LowRank(rank=4)
    """
    name, _, number = text.partition(":")
    try:
        if name in _BY_NAME and not number:
            return _BY_NAME[name]()
        if name == "sparse":
            return Sparse(float(number))
        if name == "lowrank":
            return LowRank(int(number))
    except ValueError as error:
        raise ValueError(f"directions: given {text[:40]!r}; {error}") from None
    raise ValueError(
        f"directions: given {text[:40]!r}, expected one of {', '.join(_BY_NAME)}, or "
        "sparse:DENSITY or lowrank:RANK, as in sparse:0.1 and lowrank:4"
    )


def name_of(directions: Directions) -> str:
    """The name that :func:`from_name` reads.

    Raises:
        TypeError: for a family that is not defined in this module and so has no name.

    >>> name_of(Sparse(0.1))
    'sparse:0.1'
    """
    if type(directions) is Sparse:
        return f"sparse:{directions.density!r}"
    if type(directions) is LowRank:
        return f"lowrank:{directions.rank}"
    for name, kind in _BY_NAME.items():
        if type(directions) is kind:
            return name
    raise TypeError(
        f"directions: given {directions!r}, expected a family of zotutor.directions, which can be "
        "named in a file; use one of those, or run without output="
    )
